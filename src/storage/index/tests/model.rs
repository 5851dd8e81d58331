//! Whatever is recorded, however often the index is closed, killed and opened: it says what a map says.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::storage::index::apply::RECENCY_GRAIN;

const DIGESTS: u64 = 8;

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Close,
    /// Dropped with whatever was not yet applied.
    Kill,
    Compare,
    Look,
}

fn names() -> impl Strategy<Value = Home> {
    let names = vec!["a.io/x", "a.io/x/y", "a.io/x-y", "b.io/x", "a.io:5000/x", "x", "x/y"];
    prop::sample::select(names).prop_map(|name| match name.contains('.') {
        true => repository(name).into(),
        false => Home::Hosted(name.parse().unwrap()),
    })
}

fn cached(homes: impl Iterator<Item = Home>) -> Vec<Repository> {
    let repository = |home| if let Home::Cached(repository) = home { Some(repository) } else { None };
    homes.filter_map(repository).collect()
}

fn hosted(homes: impl Iterator<Item = Home>) -> Vec<RepoName> {
    homes.filter_map(|home| if let Home::Hosted(name) = home { Some(name) } else { None }).collect()
}

fn tags() -> impl Strategy<Value = Tag> {
    prop::sample::select(vec!["latest", "1", "1.0", "1-0"]).prop_map(|text| text.parse().unwrap())
}

fn digests() -> impl Strategy<Value = Digest> {
    (0..DIGESTS).prop_map(digest)
}

fn links() -> impl Strategy<Value = Link> {
    prop_oneof![
        any::<u64>().prop_map(|size| Link::Blob { size }),
        (prop::sample::select(MediaType::ALL.to_vec()), any::<u64>())
            .prop_map(|(media_type, size)| Link::Manifest { media_type, size }),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        (digests(), 0u64..1 << 40, Just(0)).prop_map(|(digest, size, at)| Change::BlobStored { digest, size, at }),
        digests().prop_map(|digest| Change::BlobRemoved { digest }),
        (names(), digests(), links()).prop_map(|(repository, digest, link)| Change::Linked {
            repository,
            digest,
            link
        }),
        (names(), digests()).prop_map(|(repository, digest)| Change::Unlinked { repository, digest }),
        (names(), tags(), digests(), Just(0)).prop_map(|(repository, tag, digest, at)| Change::TagSet {
            repository,
            tag,
            digest,
            at
        }),
        (names(), tags(), Just(0)).prop_map(|(repository, tag, at)| Change::TagChecked { repository, tag, at }),
        (names(), tags()).prop_map(|(repository, tag)| Change::TagRemoved { repository, tag }),
        (digests(), Just(0)).prop_map(|(digest, at)| Change::Used { digest, at }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => changes().prop_map(Step::Change),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::Compare),
        4 => Just(Step::Look),
    ]
}

/// Every question, whole and from the second on, against the map. Times only where none can have been lost.
fn assert_says(index: &Index, model: &Model, times_too: bool) {
    let named = model.links.keys().map(|(name, _)| name).chain(model.tags.keys().map(|(name, _)| name));
    let homes: BTreeSet<Home> = named.cloned().collect();
    assert_pages(&hosted(homes.iter().cloned()), |after, limit| index.hosted(after, limit));
    let repositories = cached(homes.into_iter());
    assert_pages(&repositories, |after, limit| index.repositories(after, limit));
    for repository in &repositories {
        let here = |name: &Home| *name == Home::Cached(repository.clone());
        let tags: Vec<_> = model.tags.keys().filter(|(name, _)| here(name)).map(|(_, tag)| tag.clone()).collect();
        assert_pages(&tags, |after, limit| index.tags(repository, after, limit));
        let links = model.links.iter().filter(|((name, _), _)| here(name));
        let links: Vec<_> = links.map(|((_, digest), link)| (*digest, *link)).collect();
        assert_pages(&links, |after, limit| index.links(repository, after.map(|(digest, _)| digest), limit));
    }
    for number in 0..DIGESTS {
        let digest = digest(number);
        let holders = model.links.keys().filter(|(_, held)| *held == digest).map(|(name, _)| name.clone());
        assert_eq!(index.repositories_of(&digest, 99), cached(holders.clone()));
        assert_eq!(index.hosts_of(&digest, 99), hosted(holders));
        let (said, known) = (index.blob(&digest), model.blobs.get(&digest));
        assert_eq!(said.map(|blob| blob.size), known.map(|(size, _)| *size));
        if let (Some(said), Some((_, used)), true) = (said, known, times_too) {
            assert!(said.last_used.abs_diff(*used) < RECENCY_GRAIN, "{said:?} {used}");
        }
    }
    for ((repository, tag), (_, checked)) in &model.tags {
        let Home::Cached(repository) = repository else { continue };
        let said = index.tag_checked(repository, tag);
        assert!(said == Some(*checked) || (said.is_some() && !times_too), "{said:?} {checked}");
    }
}

fn assert_pages<T: PartialEq + std::fmt::Debug + Clone>(all: &[T], page: impl Fn(Option<&T>, usize) -> Vec<T>) {
    assert_eq!(page(None, 99), all);
    let rest = all.get(1..).unwrap_or_default();
    assert_eq!(page(all.first(), 2), if all.is_empty() { all } else { &rest[..rest.len().min(2)] });
    assert!(page(None, 0).is_empty());
}

/// Time goes forward, or uses could not be told from old ones.
fn dated(mut change: Change, now: u64) -> Change {
    match &mut change {
        Change::BlobStored { at, .. }
        | Change::TagSet { at, .. }
        | Change::TagChecked { at, .. }
        | Change::Used { at, .. } => *at = now,
        Change::BlobRemoved { .. } | Change::Linked { .. } | Change::Unlinked { .. } | Change::TagRemoved { .. } => {}
    }
    change
}

fn run(steps: Vec<Step>) {
    let house = House::new();
    let (mut index, mut killed) = (house.open(), false);
    for (step, now) in steps.into_iter().zip((0..).step_by(25)) {
        match step {
            Step::Change(change) => house.change(&index, dated(change, now)),
            Step::Close => {
                assert!(index.settle(LONG) && index.close(LONG));
                index = house.open_at_once();
            }
            Step::Kill => {
                drop(index);
                killed = true;
                index = house.open_at_once();
            }
            Step::Compare => index.compare(),
            Step::Look => {
                assert_right(&index, &house.files);
                assert_says(&index, &house.files.model(), !killed);
            }
        }
    }
    assert_right(&index, &house.files);
    assert_says(&index, &house.files.model(), !killed);
    assert_eq!(house.rebuilds(), 0, "neither closing nor killing costs a rebuild");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(40) })]
    #[test]
    fn the_index_is_a_map(steps in prop::collection::vec(steps(), 1..120)) {
        run(steps);
    }
}
