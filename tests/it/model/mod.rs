//! The store against a model of it: pulls, pushes, deletions, pins, damage, collections, restarts and outages in any order,
//! under a limit that holds a third of what is pulled. After each step nothing is over the limit and what is counted is what
//! is there, all that was pushed can be pulled, what is pinned stays, and what is offered while upstream is gone can be had
//! whole; after the last one, an index that is made anew from the files tells the same.
//!
//! `LARDER_MODEL_CASES` is how many histories are tried, 2 unless said otherwise; `LARDER_MODEL_SEED` chooses them, and
//! `LARDER_MODEL_STEPS=1` prints each step before it is done. `LARDER_MODEL_SKIP` leaves out so many histories at the
//! beginning, for one that failed among many.

mod world;

use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::world::{IMAGES, OURS, PINNABLE, World};
use crate::support::larder::assert_sound;

/// No step takes so long on any machine: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the program comes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Restart {
    InOrder,
    /// With the index of a process that was killed.
    Unflushed,
    WithoutIndex,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Pull(usize),
    Herd(Vec<usize>),
    Range(usize),
    Digest(usize),
    Move(usize, usize),
    Remove(usize),
    Pin(usize),
    Unpin(usize),
    Push(usize),
    Delete(usize),
    Collect,
    Rot(usize),
    Wait(u64),
    Restart(Restart),
    Outage,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..IMAGES).prop_map(Step::Pull),
        2 => prop::collection::vec(0..IMAGES, 2..5).prop_map(Step::Herd),
        3 => (0..IMAGES).prop_map(Step::Range),
        1 => (0..IMAGES).prop_map(Step::Digest),
        1 => (0..IMAGES, 0..IMAGES).prop_map(|(at, image)| Step::Move(at, image)),
        1 => (0..IMAGES).prop_map(Step::Remove),
        1 => (1..=PINNABLE).prop_map(Step::Pin),
        2 => (1..=PINNABLE).prop_map(Step::Unpin),
        3 => (0..OURS).prop_map(Step::Push),
        1 => (0..OURS).prop_map(Step::Delete),
        1 => Just(Step::Collect),
        1 => (0..IMAGES).prop_map(Step::Rot),
        3 => (1u64..900).prop_map(Step::Wait),
        1 => prop::sample::select(vec![Restart::InOrder, Restart::Unflushed, Restart::WithoutIndex])
            .prop_map(Step::Restart),
        1 => Just(Step::Outage),
    ]
}

/// Past the test harness, which keeps what is printed until the end: of what hangs there is none.
fn say(what: &str) {
    if std::env::var_os("LARDER_MODEL_STEPS").is_some() {
        let _ = writeln!(std::io::stderr(), "{what}");
    }
}

async fn live(history: &[Step]) {
    let mut world = World::new().await;
    say("a history");
    for (at, step) in history.iter().enumerate() {
        say(&format!("{at:3} {step:?}"));
        let done = tokio::time::timeout(PATIENCE, async {
            world.take(step).await;
            world.check().await;
        });
        assert!(done.await.is_ok(), "step {at}, {step:?}, does not end");
    }
    world.assert_index_is_right().await;
    world.larder.stop().await;
    assert_sound(&world.larder.data());
}

#[test]
fn whatever_happens_the_limit_holds_and_nothing_that_must_stay_goes() {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let cases = number("LARDER_MODEL_CASES", 2) as u32;
    let seed = number("LARDER_MODEL_SEED", 6);
    let config = Config { cases, max_shrink_iters: 12, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[&seed.to_le_bytes()[..], &[0; 24]].concat());
    let mut runner = TestRunner::new_with_rng(config, random);
    let history = prop::collection::vec(step(), 40..70);
    let skipped = Cell::new(number("LARDER_MODEL_SKIP", 0));
    let result = runner.run(&history, |steps| {
        if let Some(left) = skipped.get().checked_sub(1) {
            skipped.set(left);
            return Ok(());
        }
        runtime.block_on(Box::pin(live(&steps)));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("LARDER_MODEL_SEED={seed}: {failure}");
    }
}
