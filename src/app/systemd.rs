//! Telling systemd how the server stands, when systemd started it. Clients never wait for that.

use sd_notify::NotifyState;

use crate::task;

/// Says how it stands to a systemd that started us with `Type=notify`; to nobody otherwise. Waits while systemd does not
/// listen, so nothing that clients wait for may stand behind it.
pub async fn tell(state: NotifyState<'static>) {
    task::blocking(move || {
        if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
            tracing::warn!(%error, ?state, "systemd cannot be told");
        }
    })
    .await;
}

/// With `WatchdogSec=`: while tasks get their turn, the process is alive. Systemd restarts it when it hears nothing.
pub async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        tell(NotifyState::Watchdog).await;
        tokio::time::sleep(limit / 2).await;
    }
}
