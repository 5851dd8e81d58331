//! Takes log lines from whoever logs and writes them to standard error from a thread of its own, many at a time.
//!
//! A worker that serves never waits for whoever reads the log: when that one is [`MAX_WAITING`] bytes behind, lines are lost,
//! counted, and that is said. What is logged within [`PAUSE`] of a `kill -9` may be lost, too; an orderly end and a panic
//! write it first.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written.
const MAX_WAITING: usize = 4 << 20;
/// Between two writes, so that a busy server writes many lines at once. The first line after a silence does not wait.
const PAUSE: Duration = Duration::from_millis(5);
/// How long an end waits for a log that nobody reads.
const PATIENCE: Duration = Duration::from_secs(2);
/// Memory that is kept between two writes.
const KEPT: usize = 256 << 10;

/// Where lines go. Clones are the same log.
#[derive(Clone)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    // The thread waits here for lines.
    wake: Condvar,
    // Whoever flushes waits here for the thread.
    written: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    lost: u64,
    is_idle: bool,
    is_writing: bool,
    is_urgent: bool,
}

/// Writes what is left when it is dropped.
pub(super) struct Flush {
    writer: LogWriter,
}

impl LogWriter {
    /// Starts the thread, which writes to `target` and ends with the process.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(target: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let shared = Shared { state: Mutex::default(), wake: Condvar::new(), written: Condvar::new() };
        let writer = LogWriter { shared: Arc::new(shared) };
        let thread = writer.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || thread.run(target))?;
        Ok(writer)
    }

    /// Sees to it that nothing is lost at an end: at the returned value's, and before a panic is told.
    pub(super) fn flush_at_the_end(&self) -> Flush {
        let (writer, tell) = (self.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            writer.flush();
            tell(panic);
        }));
        Flush { writer: self.clone() }
    }

    /// Returns when everything that was logged before is written, or nobody takes it.
    fn flush(&self) {
        let mut state = self.state();
        state.is_urgent = true;
        self.shared.wake.notify_one();
        let is_left = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.shared.written.wait_timeout_while(state, PATIENCE, is_left));
    }

    fn run(&self, mut target: impl Write) {
        let mut batch = Vec::new();
        loop {
            let lost = {
                let mut state = self.state();
                while state.lines.is_empty() {
                    (state.is_idle, state.is_writing, state.is_urgent) = (true, false, false);
                    self.shared.written.notify_all();
                    state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                (state.is_idle, state.is_writing) = (false, true);
                std::mem::swap(&mut state.lines, &mut batch);
                std::mem::take(&mut state.lost)
            };
            // Where nobody reads there is nobody to be told.
            let _ = target.write_all(&batch).and_then(|()| target.flush());
            batch.clear();
            batch.shrink_to(KEPT);
            if lost > 0 {
                tracing::warn!(lines = lost, "log lines were lost: whatever reads standard error is too slow");
            }
            let state = self.state();
            drop(self.shared.wake.wait_timeout_while(state, PAUSE, |state| !state.is_urgent));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.writer.flush();
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.lines.len() + line.len() > MAX_WAITING {
            state.lost += 1;
        } else {
            state.lines.extend_from_slice(line);
        }
        if std::mem::take(&mut state.is_idle) {
            self.shared.wake.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a batch whenever the test lets it.
    struct Reader {
        taken: Arc<Mutex<Vec<u8>>>,
        turns: mpsc::Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once nobody gives turns any more, all is taken.
            let _ = self.turns.recv();
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (LogWriter, Arc<Mutex<Vec<u8>>>, mpsc::Sender<()>) {
        let ((give, turns), taken) = (mpsc::channel(), Arc::new(Mutex::new(Vec::new())));
        (LogWriter::start(Reader { taken: taken.clone(), turns }).unwrap(), taken, give)
    }

    #[test]
    fn a_flush_writes_all_lines_in_order() {
        let (mut writer, taken, give) = log();
        drop(give);
        let lines: Vec<String> = (0..1000).map(|number| format!("line {number}\n")).collect();
        let flush = Flush { writer: writer.clone() };
        lines.iter().for_each(|line| writer.write_all(line.as_bytes()).unwrap());
        drop(flush);
        assert_eq!(*taken.lock().unwrap(), lines.concat().as_bytes());
    }

    #[test]
    fn a_reader_that_sleeps_holds_up_nobody_and_what_it_misses_is_counted() {
        let (mut writer, taken, give) = log();
        let line = [b'x'; 1 << 10];
        // Twice as much as may wait: every write returns although nobody reads.
        for _ in 0..2 * MAX_WAITING / line.len() {
            writer.write_all(&line).unwrap();
        }
        let (lost, waiting) = {
            let state = writer.state();
            (state.lost, state.lines.len())
        };
        assert!(waiting <= MAX_WAITING && lost > 0);
        drop(give);
        LogWriter::flush(&writer);
        let taken = taken.lock().unwrap().len();
        assert_eq!(taken + lost as usize * line.len(), 2 * MAX_WAITING);
    }
}
