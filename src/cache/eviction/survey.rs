//! What is cached, as images: which manifests and blobs each tag needs, and when it was last used. Changes nothing.
//!
//! Read from the index and the manifests' files. Where the index cannot be relied on there is no survey. While one lasts it
//! holds for each blob its digest and 28 bytes, for each image its tags and 4 bytes for each blob, and one repository's
//! links; what manifests name stays for the next one, 12 bytes for each name.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::plan::{Image, Piece, Standing};
use crate::oci::{Algorithm, Digest, Manifest, Repository, Tag};
use crate::storage::index::State;
use crate::storage::{Link, Print, StorageError, Store, footprint};

/// How long what no tag reaches does not go before others after it was last used: an image that is being pulled has no tag
/// yet, and one that was asked for by digest has none at all.
pub const GRACE_SECONDS: u64 = 600;
/// Rows that are read from the index in one go.
const PAGE: usize = 1000;

/// Whose an image is.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The repository, by its place in the list of them; none: a blob that no repository holds.
    pub repository: Option<u32>,
    /// The manifest that reaches all of it.
    pub root: Digest,
    /// The tags that mean it.
    pub tags: Vec<Tag>,
    /// Whether it is an image for people, too: content that no manifest names is none.
    pub is_image: bool,
}

/// All images.
#[derive(Default)]
pub struct Survey {
    /// The repositories.
    pub repositories: Vec<Repository>,
    /// What each image is.
    pub subjects: Vec<Subject>,
    /// The same, as the planner sees them.
    pub images: Vec<Image>,
    /// What they are made of.
    pub pieces: Vec<Piece>,
    /// Which content each piece is, in order.
    pub digests: Vec<Digest>,
    used: Vec<u64>,
    // What was on its way in when the look began.
    flying: HashSet<Print>,
}

/// What a manifest names. It never changes, so it is read once.
pub type Named = HashMap<Print, Box<[Print]>>;

/// What a repository holds.
type Links = HashMap<Print, (Digest, Link)>;

/// What only the cache knows of an image or a blob.
pub trait Judge {
    /// How an image stands that a tag reaches.
    fn standing(&self, repository: &Repository, tags: &[Tag], root: &Digest) -> Standing;
    /// What is on its way in.
    fn flying(&self) -> HashSet<Print>;
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
    let mut survey = Survey { flying: judge.flying(), ..Survey::default() };
    // What is pushed meanwhile is looked at once more before anything goes.
    let hosts_any = !index.hosted(None, 1).is_empty();
    let mut after = None;
    loop {
        let page = index.blobs(after.as_ref(), PAGE);
        for (digest, record) in &page {
            let stays =
                survey.flying.contains(&Print::of(digest)) || hosts_any && !index.hosts_of(digest, 1).is_empty();
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
    named.retain(|print, _| survey.place(*print).is_some());
    // Whatever was forgotten while we looked must not make anything look unneeded.
    Ok((index.state() == State::Ready).then_some(survey))
}

impl Survey {
    /// Where a piece is.
    pub fn place(&self, print: Print) -> Option<u32> {
        // They are in the order of algorithms, then hashes.
        let (short, long) =
            self.digests.split_at(self.digests.partition_point(|it| it.algorithm() < Algorithm::Sha512));
        let find = |part: &[Digest]| part.binary_search_by_key(&print, Print::of).ok();
        find(short).or_else(|| find(long).map(|at| at + short.len())).and_then(|at| u32::try_from(at).ok())
    }

    fn add_repository(
        &mut self,
        store: &Store,
        named: &mut Named,
        judge: &impl Judge,
        repository: &Repository,
        now: u64,
    ) -> Result<(), StorageError> {
        let (mut links, mut after) = (Links::new(), None);
        loop {
            let page = store.index().links(repository, after.as_ref(), PAGE);
            after = page.last().map(|(digest, _)| *digest);
            let is_last = page.len() < PAGE;
            links.extend(page.into_iter().map(|(digest, link)| (Print::of(&digest), (digest, link))));
            if is_last {
                break;
            }
        }
        let number = u32::try_from(self.repositories.len()).ok();
        self.repositories.push(repository.clone());
        let mut roots: HashMap<Digest, Vec<Tag>> = HashMap::new();
        for tag in store.tags(repository)? {
            if let Some(record) = store.tag(repository, &tag)? {
                roots.entry(record.digest).or_default().push(tag);
            }
        }
        let mut reached = HashSet::new();
        for (root, tags) in roots {
            let standing = judge.standing(repository, &tags, &root);
            let subject = Subject { repository: number, root, tags, is_image: true };
            self.add_image(store, named, &links, subject, standing, &mut reached);
        }
        // Manifests that no tag reaches, each with what is below it; those that another of them reaches come with that.
        let mut untagged: Vec<Digest> = (links.iter())
            .filter(|(print, (_, link))| matches!(link, Link::Manifest { .. }) && !reached.contains(*print))
            .map(|(_, (digest, _))| *digest)
            .collect();
        let mut below = HashSet::new();
        for digest in &untagged {
            below.extend(names(store, named, digest).iter().copied());
        }
        untagged.retain(|digest| !below.contains(&Print::of(digest)));
        for root in untagged {
            // Asked for by digest, it is an image like any other; only one that nobody asks for any more is a leftover.
            let standing = match judge.standing(repository, &[], &root) {
                Standing::Ordinary | Standing::Irreplaceable if self.is_idle(&root, now) => Standing::Leftover,
                standing => standing,
            };
            let subject = Subject { repository: number, root, tags: Vec::new(), is_image: true };
            self.add_image(store, named, &links, subject, standing, &mut reached);
        }
        for (_, (digest, link)) in links.iter().filter(|(print, _)| !reached.contains(*print)) {
            let is_image = matches!(link, Link::Manifest { .. });
            let subject = Subject { repository: number, root: *digest, tags: Vec::new(), is_image };
            match self.place(Print::of(digest)) {
                place if self.is_idle(digest, now) => {
                    self.push(subject, place.into_iter().collect(), Standing::Leftover);
                }
                Some(place) if !self.pieces[place as usize].stays => {
                    self.push(subject, [place].into(), Standing::Loose);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_image(
        &mut self,
        store: &Store,
        named: &mut Named,
        links: &Links,
        subject: Subject,
        standing: Standing,
        reached: &mut HashSet<Print>,
    ) {
        let (mut pieces, mut ahead, mut seen) = (Vec::new(), vec![Print::of(&subject.root)], HashSet::new());
        while let Some(print) = ahead.pop() {
            if !seen.insert(print) {
                continue;
            }
            // Of what upstream has and we do not, there is nothing to count.
            if let (Some((digest, link)), Some(place)) = (links.get(&print), self.place(print)) {
                pieces.push(place);
                if matches!(link, Link::Manifest { .. }) {
                    ahead.extend(names(store, named, digest));
                }
            }
        }
        let is_filling = standing != Standing::Pinned && seen.iter().any(|print| self.flying.contains(print));
        reached.extend(seen);
        self.push(subject, pieces.into(), if is_filling { Standing::Filling } else { standing });
    }

    fn add_orphans(&mut self, now: u64) {
        let mut is_held = vec![false; self.pieces.len()];
        for piece in self.images.iter().flat_map(|image| &image.pieces) {
            is_held[*piece as usize] = true;
        }
        for (place, is_held) in (0..).zip(is_held) {
            let at = place as usize;
            if !is_held && !self.pieces[at].stays {
                let (root, tags) = (self.digests[at], Vec::new());
                let subject = Subject { repository: None, root, tags, is_image: false };
                let standing = if is_old(self.used[at], now) { Standing::Leftover } else { Standing::Loose };
                self.push(subject, [place].into(), standing);
            }
        }
    }

    fn push(&mut self, subject: Subject, pieces: Box<[u32]>, standing: Standing) {
        self.subjects.push(subject);
        self.images.push(Image { pieces, last_used: 0, standing });
    }

    /// A use of a blob that several images share says nothing of which one was used.
    fn date(&mut self) {
        let mut sharers = vec![0u32; self.pieces.len()];
        for piece in self.images.iter().flat_map(|image| &image.pieces) {
            sharers[*piece as usize] += 1;
        }
        for at in 0..self.images.len() {
            let root = self.place(Print::of(&self.subjects[at].root)).map(|place| self.used[place as usize]);
            let own = self.images[at].pieces.iter().map(|piece| *piece as usize).filter(|piece| sharers[*piece] == 1);
            let last_used = own.map(|piece| self.used[piece]).chain(root).max().unwrap_or(0);
            self.images[at].last_used = last_used;
        }
    }

    fn is_idle(&self, digest: &Digest, now: u64) -> bool {
        self.place(Print::of(digest)).is_none_or(|place| is_old(self.used[place as usize], now))
    }
}

fn is_old(used: u64, now: u64) -> bool {
    now.saturating_sub(used) >= GRACE_SECONDS
}

fn names<'n>(store: &Store, named: &'n mut Named, digest: &Digest) -> &'n [Print] {
    match named.entry(Print::of(digest)) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            // One that cannot be read now names nothing now; it is looked at again next time.
            let Ok(Some(blob)) = store.blob(digest) else { return &[] };
            let Some(manifest) = blob.read_all().ok().and_then(|bytes| Manifest::parse(&bytes).ok()) else {
                return &[];
            };
            let below = manifest.blobs().chain(&manifest.manifests).map(|descriptor| Print::of(&descriptor.digest));
            unknown.insert(below.collect())
        }
    }
}
