//! What is cached, as images: which manifests and blobs each tag needs, and when it was last used. Changes nothing.
//!
//! Read from the index and the manifests' files. Where the index cannot be relied on there is no survey.

use std::collections::{HashMap, HashSet};

use super::plan::{Image, Piece, Standing};
use crate::oci::{Digest, Manifest, Repository, Tag};
use crate::storage::index::State;
use crate::storage::{Link, StorageError, Store, footprint};

/// How long what no tag reaches is left alone after it was last used: an image that is being pulled has no tag yet, and
/// one that was asked for by digest has none at all.
pub const GRACE_SECONDS: u64 = 600;
/// Rows that are read from the index in one go.
const PAGE: usize = 1000;

/// Whose an image is.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The repository; none: a blob that no repository holds.
    pub repository: Option<Repository>,
    /// The manifest that reaches all of it.
    pub root: Digest,
    /// The tags that mean it.
    pub tags: Vec<Tag>,
}

/// All images.
#[derive(Default)]
pub struct Survey {
    /// What each is.
    pub subjects: Vec<Subject>,
    /// The same, as the planner sees them.
    pub images: Vec<Image>,
    /// What they are made of.
    pub pieces: Vec<Piece>,
    /// Which content each piece is.
    pub digests: Vec<Digest>,
    places: HashMap<Digest, usize>,
    used: Vec<u64>,
}

/// What a manifest names. It never changes, so it is read once.
pub type Named = HashMap<Digest, Vec<Digest>>;

/// What only the cache knows of an image or a blob.
pub trait Judge {
    /// How an image stands that a tag reaches.
    fn standing(&self, repository: &Repository, tags: &[Tag], root: &Digest) -> Standing;
    /// Whether a blob is on its way in.
    fn is_flying(&self, digest: &Digest) -> bool;
}

/// Looks at everything; `None` while the index cannot be relied on.
///
/// # Errors
/// The disk fails: nothing is concluded then.
pub fn survey(store: &Store, named: &mut Named, judge: &impl Judge, now: u64) -> Result<Option<Survey>, StorageError> {
    let index = store.index();
    if index.state() != State::Ready {
        return Ok(None);
    }
    let mut survey = Survey::default();
    let mut after = None;
    loop {
        let page = index.blobs(after.as_ref(), PAGE);
        for (digest, record) in &page {
            let stays = judge.is_flying(digest) || !index.hosts_of(digest, 1).is_empty();
            survey.places.insert(*digest, survey.pieces.len());
            survey.pieces.push(Piece { bytes: footprint(record.size), stays });
            survey.digests.push(*digest);
            survey.used.push(record.last_used);
        }
        after = page.last().map(|(digest, _)| *digest);
        if page.len() < PAGE {
            break;
        }
    }
    let mut after = None;
    loop {
        let page = index.repositories(after.as_ref(), PAGE);
        for repository in &page {
            survey.add_repository(store, named, judge, repository, now)?;
        }
        after = page.last().cloned();
        if page.len() < PAGE {
            break;
        }
    }
    survey.add_orphans(now);
    survey.date();
    // Whatever was forgotten while we looked must not make anything look unneeded.
    Ok((index.state() == State::Ready).then_some(survey))
}

impl Survey {
    fn add_repository(
        &mut self,
        store: &Store,
        named: &mut Named,
        judge: &impl Judge,
        repository: &Repository,
        now: u64,
    ) -> Result<(), StorageError> {
        let (mut links, mut after) = (HashMap::new(), None);
        loop {
            let page = store.index().links(repository, after.as_ref(), PAGE);
            after = page.last().map(|(digest, _)| *digest);
            let is_last = page.len() < PAGE;
            links.extend(page);
            if is_last {
                break;
            }
        }
        let mut roots: HashMap<Digest, Vec<Tag>> = HashMap::new();
        for tag in store.tags(repository)? {
            if let Some(record) = store.tag(repository, &tag)? {
                roots.entry(record.digest).or_default().push(tag);
            }
        }
        let mut reached = HashSet::new();
        for (root, tags) in roots {
            let standing = judge.standing(repository, &tags, &root);
            let subject = Subject { repository: Some(repository.clone()), root, tags };
            self.add_image(store, named, &links, subject, standing, &mut reached);
        }
        // Manifests that no tag reaches, each with what is below it; those that another of them reaches come with that.
        let mut untagged: Vec<Digest> = links
            .iter()
            .filter(|(digest, link)| matches!(link, Link::Manifest { .. }) && !reached.contains(*digest))
            .map(|(digest, _)| *digest)
            .collect();
        let below: HashSet<Digest> = untagged.iter().flat_map(|digest| self.names(store, named, digest)).collect();
        untagged.retain(|digest| !below.contains(digest));
        for root in untagged {
            // Asked for by digest, it is an image like any other; only one that nobody asks for any more is a leftover.
            let standing = match judge.standing(repository, &[], &root) {
                Standing::Ordinary | Standing::Irreplaceable if self.is_idle(&root, now) => Standing::Leftover,
                standing => standing,
            };
            let subject = Subject { repository: Some(repository.clone()), root, tags: Vec::new() };
            self.add_image(store, named, &links, subject, standing, &mut reached);
        }
        for digest in links.keys().filter(|digest| !reached.contains(*digest)) {
            if self.is_idle(digest, now) {
                let subject = Subject { repository: Some(repository.clone()), root: *digest, tags: Vec::new() };
                let pieces = self.places.get(digest).copied().into_iter().collect();
                self.push(subject, pieces, Standing::Leftover);
            } else if let Some(place) = self.places.get(digest) {
                // Its manifest may be just about to come.
                self.pieces[*place].stays = true;
            }
        }
        Ok(())
    }

    fn add_image(
        &mut self,
        store: &Store,
        named: &mut Named,
        links: &HashMap<Digest, Link>,
        subject: Subject,
        standing: Standing,
        reached: &mut HashSet<Digest>,
    ) {
        let (mut pieces, mut ahead, mut seen) = (Vec::new(), vec![subject.root], HashSet::new());
        while let Some(digest) = ahead.pop() {
            if !seen.insert(digest) {
                continue;
            }
            // Of what upstream has and we do not, there is nothing to count.
            if let (Some(link), Some(place)) = (links.get(&digest), self.places.get(&digest)) {
                pieces.push(*place);
                if matches!(link, Link::Manifest { .. }) {
                    ahead.extend(self.names(store, named, &digest));
                }
            }
        }
        reached.extend(seen);
        self.push(subject, pieces, standing);
    }

    fn add_orphans(&mut self, now: u64) {
        let held: HashSet<usize> = self.images.iter().flat_map(|image| image.pieces.iter().copied()).collect();
        for place in (0..self.pieces.len()).filter(|place| !held.contains(place)) {
            if !self.pieces[place].stays && self.is_old(self.used[place], now) {
                let subject = Subject { repository: None, root: self.digests[place], tags: Vec::new() };
                self.push(subject, vec![place], Standing::Leftover);
            }
        }
    }

    fn push(&mut self, subject: Subject, pieces: Vec<usize>, standing: Standing) {
        self.subjects.push(subject);
        self.images.push(Image { pieces, last_used: 0, standing });
    }

    /// A use of a blob that several images share says nothing of which one was used.
    fn date(&mut self) {
        let mut sharers = vec![0u32; self.pieces.len()];
        for piece in self.images.iter().flat_map(|image| &image.pieces) {
            sharers[*piece] += 1;
        }
        for (image, subject) in self.images.iter_mut().zip(&self.subjects) {
            let root = self.places.get(&subject.root).map(|place| self.used[*place]);
            let own = image.pieces.iter().filter(|piece| sharers[**piece] == 1).map(|piece| self.used[*piece]);
            image.last_used = own.chain(root).max().unwrap_or(0);
        }
    }

    fn is_idle(&self, digest: &Digest, now: u64) -> bool {
        self.places.get(digest).is_none_or(|place| self.is_old(self.used[*place], now))
    }

    fn is_old(&self, used: u64, now: u64) -> bool {
        now.saturating_sub(used) >= GRACE_SECONDS
    }

    fn names(&self, store: &Store, named: &mut Named, digest: &Digest) -> Vec<Digest> {
        if let Some(known) = named.get(digest) {
            return known.clone();
        }
        // One that cannot be read now names nothing now; it is looked at again next time.
        let Ok(Some(blob)) = store.blob(digest) else { return Vec::new() };
        let Some(manifest) = blob.read_all().ok().and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return Vec::new();
        };
        let below: Vec<Digest> =
            manifest.blobs().chain(&manifest.manifests).map(|descriptor| descriptor.digest).collect();
        named.insert(*digest, below.clone());
        below
    }
}
