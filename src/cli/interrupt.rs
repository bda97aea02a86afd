//! The wish to stop, from the keyboard or from a supervisor.

use tokio::signal;

/// Completes when the process is asked to stop, by SIGINT or SIGTERM.
pub(super) async fn interrupted() {
    let keyboard = async {
        // Without a signal to wait for, one that comes ends the process at once.
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let supervisor = received(signal::unix::SignalKind::terminate());
    #[cfg(not(unix))]
    let supervisor = std::future::pending::<()>();
    tokio::select! {
        () = keyboard => {}
        () = supervisor => {}
    }
}

/// The same, or that its terminal is closed: SIGHUP.
pub(super) async fn interrupted_or_left() {
    #[cfg(unix)]
    let left = received(signal::unix::SignalKind::hangup());
    #[cfg(not(unix))]
    let left = std::future::pending::<()>();
    tokio::select! {
        () = interrupted() => {}
        () = left => {}
    }
}

#[cfg(unix)]
async fn received(kind: signal::unix::SignalKind) {
    match signal::unix::signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}
