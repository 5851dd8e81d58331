//! Keeps what is pinned fresh and whole without anyone asking for it: a tag is asked about when its `tag_ttl` is over, an
//! image that lacks something is completed, one that is named and not here is fetched.
//!
//! A tag moves only when the new image is here whole, for the platforms that were here of the old. Nothing is asked of an
//! upstream that is out of order, or whose budget is down to what is kept for clients.

mod images;
mod leave;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use self::images::Halt;
pub use self::images::Images;
use self::leave::Leave;
use super::gate::Gate;
use super::ledger::OnBehalfOf;
use super::origin::Origins;
use super::pins::Pins;
use super::tag::Tags;
use crate::clock::Clock;
use crate::oci::{Digest, Platform, Reference, Repository, Tag};
use crate::storage::Store;
use crate::storage::index::State;
use crate::task;

/// Images that are looked after at one time.
const AT_ONCE: usize = 4;
/// The pause before the next one is between this and twice as long: ten thousand take minutes, and no second has a peak.
const PAUSE: Duration = Duration::from_millis(10);
/// Images that are looked after; the others are pinned all the same.
const MAX_KEPT: usize = 10_000;
/// Between two looks at everything lies half a tag's lifetime, but no less and no more than this.
const LOOKS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// After a start, nothing is looked at for so long: others need the line and the disk more then.
const FIRST: Duration = Duration::from_secs(60);
/// When something could not be asked, the next look comes this soon.
const NOT_NOW: Duration = Duration::from_secs(30);
/// What fails again and again is tried less and less often, down to once in so many looks.
const MOST_LOOKS: u32 = 64;
/// Rows that are read from the index in one go.
const PAGE: usize = 1000;

type Key = (Repository, Reference);

/// What the work needs.
#[derive(Clone)]
pub struct Keeping {
    /// What is here.
    pub store: Store,
    /// Who may be asked now.
    pub origins: Origins,
    /// What tags mean.
    pub tags: Tags,
    /// Which repositories are for everyone.
    pub gate: Gate,
    /// What is pinned.
    pub pins: Pins,
    /// The time.
    pub clock: Clock,
    /// Brings what is missing.
    pub images: Images,
    /// How long a tag is believed.
    pub tag_ttl: Duration,
}

/// What is remembered of an image that is looked after.
#[derive(Default)]
struct Kept {
    is_at_work: bool,
    // What it was fetched for: an index that a client moved a tag to does not tell.
    platforms: Vec<Platform>,
    failures: u32,
    not_before: Option<Instant>,
}

struct Round {
    keeping: Keeping,
    leave: Leave,
    every: Duration,
    kept: Mutex<HashMap<Key, Kept>>,
    places: Arc<Semaphore>,
}

impl Keeping {
    /// Works for as long as it is polled. Only for repositories that `is_mirrored` lets clients pull from upstream is
    /// anything asked.
    pub async fn work(self, is_mirrored: impl Fn(&Repository) -> bool + Send + Sync + 'static) {
        let (origins, pins, clock) = (self.origins.clone(), self.pins.clone(), self.clock.clone());
        let leave = Leave { origins, pins: pins.clone(), is_mirrored: Arc::new(is_mirrored) };
        let (places, every) = (Arc::new(Semaphore::new(AT_ONCE)), (self.tag_ttl / 2).clamp(LOOKS.0, LOOKS.1));
        let round = Round { keeping: self, leave, every, kept: Mutex::default(), places };
        let round = Arc::new(round);
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = clock.sleep(pause) => {}
                () = pins.changed() => {}
            }
            let is_done = round.clone().look_at_all().await;
            pause = if is_done { jittered(every) } else { NOT_NOW };
        }
    }

    /// All that is pinned and cached, and all that is named; and whether that is all of it.
    fn list(&self, is_mirrored: impl Fn(&Repository) -> bool) -> (Vec<Key>, bool) {
        if self.pins.is_empty() {
            return (Vec::new(), true);
        }
        let mut found: HashSet<Key> = self.pins.named().into_iter().filter(|(at, _)| is_mirrored(at)).collect();
        let (index, mut after) = (self.store.index(), None);
        loop {
            let page = index.repositories(after.as_ref(), PAGE);
            for repository in page.iter().filter(|at| is_mirrored(at)) {
                // A directory that cannot be listed is the disk's trouble, which others tell of.
                let tags = self.store.tags(repository).unwrap_or_default().into_iter().map(Reference::Tag);
                let pinned = tags.filter(|tag| self.pins.cover_reference(repository, tag));
                found.extend(pinned.map(|tag| (repository.clone(), tag)));
            }
            after = page.last().cloned();
            if page.len() < PAGE || found.len() > MAX_KEPT {
                break;
            }
        }
        let mut found: Vec<Key> = found.into_iter().collect();
        if found.len() > MAX_KEPT {
            tracing::warn!(
                images = MAX_KEPT,
                "more is pinned than can be kept fresh: the rest is only not thrown away"
            );
            found.truncate(MAX_KEPT);
        }
        (found, index.state() == State::Ready)
    }
}

impl Round {
    /// Begins whatever is to be done. Says whether all could be asked that there is.
    async fn look_at_all(self: Arc<Self>) -> bool {
        let this = self.clone();
        let (keys, mut is_done) =
            task::blocking(move || this.keeping.list(|repository| (this.leave.is_mirrored)(repository))).await;
        let listed: HashSet<&Key> = keys.iter().collect();
        self.kept().retain(|key, kept| kept.is_at_work || listed.contains(key));
        for key in keys {
            if !self.is_due(&key) {
                continue;
            }
            if !self.leave.is_given(&key.0, &key.1).await {
                is_done = false;
                continue;
            }
            self.keeping.clock.sleep(jittered(PAUSE)).await;
            // Never closed: the semaphore lives as long as this.
            let Ok(place) = self.places.clone().acquire_owned().await else { return is_done };
            self.kept().entry(key.clone()).or_default().is_at_work = true;
            let at_work = AtWork { round: self.clone(), key };
            task::spawn("keeping", async move {
                at_work.round.keep(&at_work.key).await;
                drop(place);
            });
        }
        is_done
    }

    fn is_due(&self, key: &Key) -> bool {
        let now = self.keeping.clock.tick();
        let is_held = |kept: &Kept| kept.is_at_work || kept.not_before.is_some_and(|then| now < then);
        !self.kept().get(key).is_some_and(is_held)
    }

    async fn keep(&self, key: &Key) {
        let ended = self.bring_up_to_date(key).await;
        let now = self.keeping.clock.tick();
        let mut kept = self.kept();
        let Some(kept) = kept.get_mut(key) else { return };
        match ended {
            Ok(()) => (kept.failures, kept.not_before) = (0, None),
            Err(Halt::NotNow) => {}
            Err(Halt::Failed(error)) => {
                if kept.failures == 0 {
                    let (repository, reference) = key;
                    tracing::warn!(%repository, %reference, %error, "what is pinned could not be brought up to date");
                }
                // The first failure is made good at the next look.
                let looks = (1u32 << kept.failures.min(31)).min(MOST_LOOKS) - 1;
                (kept.failures, kept.not_before) = (kept.failures.saturating_add(1), Some(now + self.every * looks));
            }
        }
    }

    async fn bring_up_to_date(&self, key: &Key) -> Result<(), Halt> {
        let (repository, reference) = key;
        self.keeping.gate.admit(repository).await?;
        let (root, followed) = match reference {
            Reference::Digest(digest) => (*digest, Ok(())),
            Reference::Tag(tag) => {
                let at = (repository.clone(), tag.clone());
                let followed = self.follow(key, &at).await;
                // What is here of it may lack something although upstream does not confirm it.
                match self.keeping.tags.known(&at).await? {
                    Some((digest, _)) => (digest, followed),
                    None => return followed,
                }
            }
        };
        self.bring(key, &root, &self.wanted(key, &root).await).await?;
        followed
    }

    /// Asks what a tag means now. It moves when what it moves to is whole.
    async fn follow(&self, key: &Key, at: &(Repository, Tag)) -> Result<(), Halt> {
        let ((repository, tag), tags) = (at, &self.keeping.tags);
        let old = match tags.known(at).await? {
            Some((_, false)) => return Ok(()),
            Some((old, true)) => old,
            None => {
                let digest = tags.fetch(at, OnBehalfOf::Pin).await?;
                tracing::info!(%repository, %tag, %digest, "a pinned tag that was not here is fetched");
                return Ok(());
            }
        };
        // Known before upstream is asked: a client may move the tag meanwhile, to an image of which it pulls one platform.
        let wanted = self.wanted(key, &old).await;
        if let Some(new) = tags.look(at, OnBehalfOf::Pin).await? {
            self.bring(key, &new, &wanted).await?;
            tags.refresh(at, OnBehalfOf::Pin).await?;
            tracing::info!(%repository, %tag, from = %old, to = %new, "a pinned tag moved, and the new image is here");
        }
        Ok(())
    }

    async fn bring(&self, (repository, reference): &Key, root: &Digest, wanted: &[Platform]) -> Result<(), Halt> {
        let images = &self.keeping.images;
        if images.bring(repository, root, wanted, &self.leave, reference).await? {
            self.keeping.gate.given(repository).await;
        }
        Ok(())
    }

    /// The platforms for which an image is to be whole: those that are or were here of it, else those that are pulled here.
    async fn wanted(&self, key: &Key, root: &Digest) -> Vec<Platform> {
        let images = &self.keeping.images;
        let mut wanted = self.kept().get(key).map(|kept| kept.platforms.clone()).unwrap_or_default();
        let here = images.platforms(&key.0, root).await;
        wanted.extend(here.into_iter().filter(|platform| !wanted.contains(platform)).collect::<Vec<_>>());
        if wanted.is_empty() {
            wanted = images.usual_platforms(&key.0).await;
        }
        if let Some(kept) = self.kept().get_mut(key) {
            kept.platforms.clone_from(&wanted);
        }
        wanted
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between the pause and twice as long.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64())
}

/// However the work ends, it can be taken up again.
struct AtWork {
    round: Arc<Round>,
    key: Key,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(kept) = self.round.kept().get_mut(&self.key) {
            kept.is_at_work = false;
        }
    }
}
