//! Threads of the index's own. sled blocks, can hang and can panic: none of it may happen on a thread of the runtime, and
//! the runtime's blocking threads are waited for at its end.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;

/// Runs `work` on a thread of its own. Its result comes through the channel; if it panics, nothing does.
pub(super) fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (done, result) = channel();
    Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody waits for it any more: fine.
        let _unwanted = done.send(work());
    })?;
    Ok(result)
}
