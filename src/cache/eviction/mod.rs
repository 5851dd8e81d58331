//! Making room: a task that takes images away when someone waits for room, and before that, when the limit comes near.
//!
//! `survey` says what is here, `plan` what goes; here it is done, image by image, in the order tags, links, blobs. Whoever
//! has a file open goes on reading it. Ends with the cache.

mod looks;
pub mod plan;
pub mod survey;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

pub use self::looks::Looks;
use self::plan::Standing;
use self::survey::{Judge, Named, Subject, Survey};
use super::blobs::Blobs;
use super::manifests::Manifests;
use super::metrics::Metrics;
use super::origin::Origins;
use super::pins::Pins;
use super::room::Request;
use super::tag::WeakTags;
use crate::clock::Clock;
use crate::oci::{Digest, Repository, Tag};
use crate::storage::{Condemned, Print, Removed, StorageError, Store};
use crate::task;

/// Share of the limit from which on images go without anyone waiting for it, in percent: what is left is room for fills
/// that begin before the next look.
const HIGH_WATER: u64 = 95;
/// Share down to which they go then: so much that the work is not done again for every pull.
const LOW_WATER: u64 = 90;
/// How often it is looked whether the limit comes near.
const LOOKS: Duration = Duration::from_secs(10);
/// How long what was just recorded may take to be counted.
const CATCH_UP: Duration = Duration::from_secs(1);
/// The pause between two images while nobody waits.
const PACE: Duration = Duration::from_millis(50);
/// After a look at everything that found too little, none follows for so many times what it took: where all is pinned, each
/// pull asks for room.
const IN_VAIN: u32 = 10;
/// But for no longer than this.
const MOST_IN_VAIN: Duration = Duration::from_secs(60);

/// What the work needs.
#[derive(Clone)]
pub struct Keeper {
    /// What is kept.
    pub store: Store,
    /// Where it came from.
    pub origins: Origins,
    /// Must be told.
    pub manifests: Manifests,
    /// Must be told, if it is still there.
    pub tags: WeakTags,
    /// Knows what is on its way in.
    pub blobs: Blobs,
    /// What stays.
    pub pins: Pins,
    /// Counts.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// Where it is looked.
    pub looks: Looks,
    /// Who takes images away: one at a time, for each reckons with what is here.
    pub turn: Arc<Mutex<()>>,
}

/// Begins to serve `requests`, for as long as someone else has the keeper.
pub fn begin(keeper: &Arc<Keeper>, mut requests: mpsc::Receiver<Request>) {
    let (clock, keep) = (keeper.clock.clone(), Arc::downgrade(keeper));
    task::spawn("eviction", async move {
        let mut vain_until = clock.tick();
        loop {
            let request = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = clock.sleep(LOOKS) => None,
            };
            let Some(keeper) = keep.upgrade() else { return };
            let (lacking, reason) = match &request {
                Some(request) => (keeper.store.lacking(request.length, request.held).unwrap_or(0), "room"),
                None if keeper.over(HIGH_WATER) > 0 => (1, "watermark"),
                // The cache gives way to what was pushed: that can be had nowhere else.
                None => (keeper.store.pushes_lack(), "room"),
            };
            let begun = clock.tick();
            if lacking > 0 && begun >= vain_until {
                // What comes next needs room, too.
                let bytes = lacking.max(keeper.over(LOW_WATER));
                let freed = keeper.free(bytes, reason, &requests).await;
                if freed < lacking {
                    let now = clock.tick();
                    vain_until = now + (now.saturating_duration_since(begun) * IN_VAIN).min(MOST_IN_VAIN);
                }
            }
            drop(request.map(|request| request.done));
        }
    });
}

impl Keeper {
    /// Bytes by which more than that share of the limit is used, in percent.
    fn over(&self, share: u64) -> u64 {
        let (used, limit) = (self.store.usage().total(), self.store.limits().max_size);
        used.saturating_sub(limit / 100 * share)
    }

    /// Takes away what has to go for `bytes` to be free, if it can be done, and says how much that was.
    async fn free(&self, bytes: u64, reason: &'static str, waiting: &mpsc::Receiver<Request>) -> u64 {
        let mut freed = 0;
        if let Err(error) = self.try_to_free(bytes, reason, waiting, &mut freed).await {
            tracing::error!(%error, "room could not be made");
        }
        freed
    }

    async fn try_to_free(
        &self,
        bytes: u64,
        reason: &'static str,
        waiting: &mpsc::Receiver<Request>,
        freed: &mut u64,
    ) -> Result<(), StorageError> {
        *freed = self.remove_parts(bytes).await?;
        if *freed >= bytes {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let (keeper, wanted) = (self.clone(), bytes - *freed);
        let surveyed = self.looks.run(move |named| {
            let planned = |survey: Survey| {
                let plan = plan::plan(&survey.images, &survey.pieces, wanted);
                let needs = Needs::new(&survey, &plan.images);
                (survey, plan, needs)
            };
            keeper.look(named).map(|survey| survey.map(planned))
        });
        let Some((survey, plan, mut needs)) = surveyed.await? else {
            tracing::info!("no room is made while the index is being made again");
            return Ok(());
        };
        for which in plan.images {
            // It may have been pinned since we looked.
            if self.is_pinned(&survey, &survey.subjects[which]) {
                continue;
            }
            let removed = self.evict(&survey, which, &mut needs, reason).await?;
            *freed += removed.bytes;
            if reason == "watermark" && waiting.is_empty() {
                self.clock.sleep(PACE).await;
            }
        }
        if *freed < bytes {
            tracing::warn!(bytes, freed = *freed, "there is not enough that may be evicted");
        }
        Ok(())
    }

    /// Looks at everything, as [`survey::survey`]. Blocks.
    pub fn look(&self, named: &mut Named) -> Result<Option<Survey>, StorageError> {
        // Uses and links that were just recorded count.
        self.store.index().settle(CATCH_UP);
        survey::survey(&self.store, named, self, self.clock.unix_seconds())
    }

    /// What is half-way in and nobody goes on with goes before any image.
    async fn remove_parts(&self, bytes: u64) -> Result<u64, StorageError> {
        let keeper = self.clone();
        task::blocking(move || {
            let before = keeper.store.usage().parts;
            for part in keeper.store.parts() {
                let freed = before.saturating_sub(keeper.store.usage().parts);
                if freed >= bytes {
                    break;
                }
                if !keeper.blobs.is_flying(&part) {
                    keeper.store.remove_part(&part)?;
                }
            }
            Ok(before.saturating_sub(keeper.store.usage().parts))
        })
        .await
    }

    async fn evict(
        &self,
        survey: &Survey,
        which: usize,
        needs: &mut Needs,
        reason: &'static str,
    ) -> Result<Removed, StorageError> {
        let (image, subject) = (&survey.images[which], &survey.subjects[which]);
        let repository = subject.repository.map(|number| survey.repositories[number as usize].clone());
        let (condemned, unneeded) = condemn(survey, which, needs);
        let removed = self.take_away(repository.as_ref(), condemned, unneeded).await?;
        let reason = if image.standing == Standing::Leftover { "leftover" } else { reason };
        self.metrics.evicted(reason);
        let repository = repository.as_ref().map(Repository::to_string).unwrap_or_default();
        let tags = subject.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(",");
        tracing::info!(
            repository, tags, digest = %subject.root, reason, blobs = removed.blobs, bytes = removed.bytes,
            last_used = image.last_used, upstream_is_down = image.standing == Standing::Irreplaceable, "evicted"
        );
        Ok(removed)
    }

    /// Whether the operator wants it to stay.
    pub fn is_pinned(&self, survey: &Survey, subject: &Subject) -> bool {
        let repository = subject.repository.map(|number| &survey.repositories[number as usize]);
        repository.is_some_and(|repository| self.pins.cover(repository, &subject.tags, &subject.root))
    }

    /// Takes tags and links away, then what nobody needs any more, and tells whoever remembers. Whoever calls has the turn.
    pub async fn take_away(
        &self,
        repository: Option<&Repository>,
        condemned: Condemned,
        unneeded: Vec<Digest>,
    ) -> Result<Removed, StorageError> {
        let (keeper, at) = (self.clone(), repository.cloned());
        let (removed, condemned) = task::blocking(move || {
            if let Some(repository) = &at {
                keeper.store.forget(repository, &condemned)?;
            }
            let is_needed = |digest: &Digest| keeper.blobs.is_flying(digest);
            keeper.store.remove(&unneeded, is_needed).map(|removed| (removed, condemned))
        })
        .await?;
        if let Some(repository) = repository {
            self.manifests.forget(repository, &condemned.links);
            if let Some(memory) = self.tags.upgrade() {
                condemned.tags.iter().for_each(|tag| memory.forget(repository, tag));
            }
        }
        Ok(removed)
    }
}

/// Who needs what is about to go: how many images each piece, and how many of each repository.
pub struct Needs {
    // As many as there are pieces.
    images: Vec<u32>,
    // As many as there are pieces of what goes, for each repository that needs them.
    within: HashMap<(u32, u32), u32>,
}

impl Needs {
    /// Before any of `going` is gone.
    pub fn new(survey: &Survey, going: &[usize]) -> Needs {
        let mut needs = Needs { images: vec![0; survey.pieces.len()], within: HashMap::new() };
        let goes: HashSet<u32> = going.iter().flat_map(|which| survey.images[*which].pieces.iter().copied()).collect();
        for (image, subject) in survey.images.iter().zip(&survey.subjects) {
            for piece in &image.pieces {
                needs.images[*piece as usize] += 1;
                if let Some(repository) = subject.repository.filter(|_| goes.contains(piece)) {
                    *needs.within.entry((repository, *piece)).or_default() += 1;
                }
            }
        }
        needs
    }
}

/// What of an image's repository goes with it, and which content nobody needs then.
pub fn condemn(survey: &Survey, which: usize, needs: &mut Needs) -> (Condemned, Vec<Digest>) {
    let (image, subject) = (&survey.images[which], &survey.subjects[which]);
    let mut condemned = Condemned { tags: subject.tags.clone(), links: Vec::new() };
    let mut unneeded = Vec::new();
    for piece in &image.pieces {
        let (at, digest) = (*piece as usize, survey.digests[*piece as usize]);
        needs.images[at] -= 1;
        if needs.images[at] == 0 && !survey.pieces[at].stays {
            unneeded.push(digest);
        }
        let Some(repository) = subject.repository else { continue };
        if let Some(left) = needs.within.get_mut(&(repository, *piece)) {
            *left -= 1;
            if *left == 0 {
                condemned.links.push(digest);
            }
        }
    }
    // One whose content is gone already is still to be forgotten.
    if subject.repository.is_some() && image.pieces.is_empty() {
        condemned.links.push(subject.root);
    }
    (condemned, unneeded)
}

impl Judge for Keeper {
    fn standing(&self, repository: &Repository, tags: &[Tag], root: &Digest) -> Standing {
        if self.pins.cover(repository, tags, root) {
            return Standing::Pinned;
        }
        match self.origins.of(repository) {
            Ok(upstream) if upstream.is_down() => Standing::Irreplaceable,
            // Of a registry that is not mirrored any more nobody can ask for anything.
            Ok(_) | Err(_) => Standing::Ordinary,
        }
    }

    fn flying(&self) -> HashSet<Print> {
        self.blobs.fills().iter().map(|fill| Print::of(&fill.digest)).collect()
    }
}
