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
    let supervisor = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let supervisor = std::future::pending::<()>();
    tokio::select! {
        () = keyboard => {}
        () = supervisor => {}
    }
}
