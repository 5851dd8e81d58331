//! What is cached, as images, for people: what each takes, whether it is whole, and taking one away.
//!
//! Over the survey that eviction makes, so that what is told is what would go. Fetches nothing; a look is no use of an image.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;

use super::eviction::plan::Standing;
use super::eviction::survey::{Named, Subject, Survey};
use super::eviction::{Keeper, Needs, condemn};
use super::parts::Parts;
use super::pins::Pins;
use crate::oci::{Digest, Platform, Reference, Repository, Tag};
use crate::storage::{Condemned, Print, Removed, StorageError};
use crate::task;

/// How long the look from which a page was told is kept for the next page: it takes seconds where there are very many.
const KEPT: Duration = Duration::from_secs(60);

/// An image: a manifest that no other of its repository names.
#[derive(Clone, Debug)]
pub struct CachedImage {
    /// Where it is from.
    pub repository: Repository,
    /// The tags that mean it; none: it was asked for by digest.
    pub tags: Vec<Tag>,
    /// The manifest.
    pub root: Digest,
    /// What was pulled of it.
    pub platforms: Vec<Platform>,
    /// The disk that would be free without it, in bytes.
    pub bytes: u64,
    /// The disk that it takes together with others, in bytes.
    pub shared_bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
    /// Whether each platform that was pulled can be pulled from here alone.
    pub complete: bool,
    /// Whether it stays whatever happens.
    pub pinned: bool,
    /// Whether one of its tags would be served although upstream does not confirm it.
    pub stale: bool,
}

/// What is to go of a repository.
#[derive(Clone, Debug)]
pub enum Which {
    /// A tag, and the image if nothing else means it; or the image of a digest, with its tags.
    One(Reference),
    /// Every image with a tag.
    AllTags,
}

/// What went, or would go.
#[derive(Clone, Debug, Default)]
pub struct Dropped {
    /// The tags.
    pub tags: Vec<Tag>,
    /// The images.
    pub images: Vec<Digest>,
    /// Their content that nobody else needs.
    pub removed: Removed,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// The index cannot be relied on.
    #[error("the index is being made again: what is cached is known when that is done, and served meanwhile")]
    NotReady,
    /// There is no such image.
    #[error("{0} is not cached here: `larder ls` shows what is")]
    Absent(String),
    /// It is to stay.
    #[error("{0} is pinned: `larder unpin` it first, or take it out of `pin` in [cache]")]
    Pinned(String),
    /// The disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is cached.
pub struct Inventory {
    keeper: Arc<Keeper>,
    // The one that more pages may be told from.
    last: Arc<Mutex<Option<Arc<Survey>>>>,
}

impl Inventory {
    /// Of what `keeper` keeps.
    pub fn new(keeper: Arc<Keeper>) -> Inventory {
        Inventory { keeper, last: Arc::default() }
    }

    /// What is pinned.
    pub fn pins(&self) -> &Pins {
        &self.keeper.pins
    }

    /// The images whose key or `name:tag` has `part` in it, in the order of their keys, after one of them.
    ///
    /// # Errors
    /// The index is being made again, or the disk fails.
    pub async fn images(
        &self,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CachedImage>, InventoryError> {
        let is_next = after.is_some_and(|after| !after.is_empty());
        let mut last = self.last.lock().await;
        let known = last.take().filter(|_| is_next);
        let (keeper, part, after) = (self.keeper.clone(), part.to_owned(), after.unwrap_or_default().to_owned());
        let listed = self.keeper.looks.run(move |named| {
            let survey = known.map_or_else(|| look(&keeper, named).map(Arc::new), Ok)?;
            let images = list(&keeper, &survey, &part, &after, limit);
            Ok::<_, InventoryError>((survey, images))
        });
        let (survey, images) = listed.await?;
        if images.len() >= limit {
            *last = Some(survey.clone());
            self.forget_in_time(&survey);
        }
        Ok(images)
    }

    fn forget_in_time(&self, survey: &Arc<Survey>) {
        let (last, clock, survey) = (self.last.clone(), self.keeper.clock.clone(), Arc::downgrade(survey));
        task::spawn("inventory", async move {
            clock.sleep(KEPT).await;
            last.lock().await.take_if(|kept| Weak::ptr_eq(&Arc::downgrade(kept), &survey));
        });
    }

    /// Takes away what `which` says, or with `is_dry` only tells what that is. Frees what nobody else needs.
    ///
    /// # Errors
    /// It is not cached, or pinned; the index is being made again; or the disk fails.
    pub async fn remove(
        &self,
        repository: &Repository,
        which: &Which,
        is_dry: bool,
    ) -> Result<Dropped, InventoryError> {
        let _turn = self.keeper.turn.lock().await;
        let (keeper, at, which) = (self.keeper.clone(), repository.clone(), which.clone());
        let orders = self.keeper.looks.run(move |named| orders(&keeper, &look(&keeper, named)?, &at, &which)).await?;
        let mut dropped = Dropped::default();
        for Order { image, condemned, unneeded, bytes } in orders {
            dropped.tags.extend_from_slice(&condemned.tags);
            dropped.images.extend(image);
            let removed = if is_dry {
                Removed { blobs: unneeded.len() as u64, bytes }
            } else {
                self.keeper.take_away(Some(repository), condemned, unneeded).await?
            };
            dropped.removed.blobs += removed.blobs;
            dropped.removed.bytes += removed.bytes;
        }
        if !is_dry {
            let Removed { blobs, bytes } = dropped.removed;
            tracing::info!(%repository, tags = dropped.tags.len(), blobs, bytes, "removed by the operator");
        }
        Ok(dropped)
    }
}

impl CachedImage {
    /// By what it is found again, and in whose order images are told.
    pub fn key(&self) -> String {
        key(&self.repository, &self.root)
    }
}

fn key(repository: &Repository, root: &Digest) -> String {
    format!("{repository}@{root}")
}

fn look(keeper: &Keeper, named: &mut Named) -> Result<Survey, InventoryError> {
    keeper.look(named)?.ok_or(InventoryError::NotReady)
}

fn list(keeper: &Keeper, survey: &Survey, part: &str, after: &str, limit: usize) -> Vec<CachedImage> {
    let mut found = Vec::new();
    for (which, subject) in survey.subjects.iter().enumerate().filter(|(_, subject)| subject.is_image) {
        let Some(repository) = subject.repository.map(|number| &survey.repositories[number as usize]) else { continue };
        let key = key(repository, &subject.root);
        let is_meant =
            key.contains(part) || subject.tags.iter().any(|tag| format!("{repository}:{tag}").contains(part));
        if is_meant && key.as_str() > after {
            found.push((key, which, repository));
        }
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    found.truncate(limit);
    let mut sharers = vec![0u32; survey.pieces.len()];
    survey.images.iter().flat_map(|image| &image.pieces).for_each(|piece| sharers[*piece as usize] += 1);
    let (tags, is_own) = (keeper.tags.upgrade(), |at: usize| sharers[at] == 1 && !survey.pieces[at].stays);
    let described = found.into_iter().map(|(_, which, repository)| {
        let (subject, image) = (&survey.subjects[which], &survey.images[which]);
        let (own, shared): (Vec<usize>, Vec<usize>) =
            image.pieces.iter().map(|piece| *piece as usize).partition(|piece| is_own(*piece));
        let sum = |pieces: Vec<usize>| pieces.into_iter().map(|piece| survey.pieces[piece].bytes).sum();
        let here: HashSet<Digest> = image.pieces.iter().map(|piece| survey.digests[*piece as usize]).collect();
        let (platforms, complete) = Parts::new(&keeper.store, |digest| here.contains(digest)).look(&subject.root);
        let is_stale = |tag: &Tag| tags.as_ref().is_some_and(|tags| tags.is_stale(repository, tag));
        CachedImage {
            repository: repository.clone(),
            tags: subject.tags.clone(),
            root: subject.root,
            platforms,
            bytes: sum(own),
            shared_bytes: sum(shared),
            last_used: image.last_used,
            complete,
            pinned: image.standing == Standing::Pinned,
            stale: subject.tags.iter().any(is_stale),
        }
    });
    described.collect()
}

/// What is to be done for one image.
struct Order {
    // None: it stays, under another tag.
    image: Option<Digest>,
    condemned: Condemned,
    unneeded: Vec<Digest>,
    bytes: u64,
}

fn orders(
    keeper: &Keeper,
    survey: &Survey,
    repository: &Repository,
    which: &Which,
) -> Result<Vec<Order>, InventoryError> {
    let is_meant = |subject: &Subject| match which {
        _ if !subject.is_image => false,
        Which::One(Reference::Tag(tag)) => subject.tags.contains(tag),
        Which::One(Reference::Digest(digest)) => subject.root == *digest,
        Which::AllTags => !subject.tags.is_empty(),
    };
    let is_here = |subject: &Subject| {
        subject.repository.is_some_and(|number| survey.repositories[number as usize] == *repository)
    };
    let subjects = survey.subjects.iter().enumerate();
    let meant: Vec<usize> =
        subjects.filter(|(_, subject)| is_here(subject) && is_meant(subject)).map(|(at, _)| at).collect();
    if meant.is_empty() {
        return Err(InventoryError::Absent(match which {
            Which::One(Reference::Tag(tag)) => format!("{repository}:{tag}"),
            Which::One(Reference::Digest(digest)) => key(repository, digest),
            Which::AllTags => repository.to_string(),
        }));
    }
    let only = |subject: &Subject| match which {
        Which::One(Reference::Tag(tag)) if subject.tags.len() > 1 => Some(tag.clone()),
        _ => None,
    };
    for subject in meant.iter().map(|at| &survey.subjects[*at]) {
        let only = only(subject);
        let tags = only.as_ref().map_or(&subject.tags[..], std::slice::from_ref);
        if keeper.pins.cover(repository, tags, &subject.root) {
            let name = tags.first().map_or_else(|| key(repository, &subject.root), |tag| format!("{repository}:{tag}"));
            return Err(InventoryError::Pinned(name));
        }
    }
    let mut needs = Needs::new(survey, &meant);
    let order = |at: usize| {
        let subject = &survey.subjects[at];
        if let Some(tag) = only(subject) {
            let condemned = Condemned { tags: vec![tag], links: Vec::new() };
            return Order { image: None, condemned, unneeded: Vec::new(), bytes: 0 };
        }
        let (condemned, unneeded) = condemn(survey, at, &mut needs);
        let places = unneeded.iter().filter_map(|digest| survey.place(Print::of(digest)));
        let bytes = places.map(|place| survey.pieces[place as usize].bytes).sum();
        Order { image: Some(subject.root), condemned, unneeded, bytes }
    };
    Ok(meant.into_iter().map(order).collect())
}
