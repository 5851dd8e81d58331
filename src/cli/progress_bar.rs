//! A bar on standard error while a command moves bytes; nothing where that is no terminal.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use crate::backup::Progress;

/// How often it moves.
const LOOK: Duration = Duration::from_millis(200);

/// Runs `work` to its end, and shows how far it is.
///
/// # Errors
/// The system refuses threads.
pub(super) fn watched<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let done = runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(LOOK) => {
                    let (bytes, of_bytes) = progress.figures();
                    bar.set_length(of_bytes.max(bytes));
                    bar.set_position(bytes);
                }
            }
        }
    });
    bar.finish_and_clear();
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(done)
}
