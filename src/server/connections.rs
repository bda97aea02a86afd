//! Connections: accepting, speaking HTTP/1.1 and HTTP/2 on one port, and closing.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::capacity::Capacity;

/// Flow-control window of a stream and of a connection, in bytes: what a client may send ahead. Large
/// enough that a bot's frames do not wait for window updates, small enough that one stream cannot
/// hold much memory.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Streams of one connection.
const STREAMS_PER_CONNECTION: u32 = 10_000;
/// Largest HTTP/2 header list, in bytes.
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// How long a client may take for an HTTP/1.1 request's headers.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 connection is pinged, and how long the answer may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait before accepting again when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener.
pub(super) struct Connections {
    builder: Builder<TokioExecutor>,
    router: axum::Router,
    open: GracefulShutdown,
    /// Places for connections; who finds none is sent away.
    places: Capacity,
}

impl Connections {
    pub(super) fn new(router: axum::Router, places: Capacity) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(HEADER_LIST_BYTES)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        Self {
            builder,
            router,
            open: GracefulShutdown::new(),
            places,
        }
    }

    /// Accepts until `stop` completes.
    pub(super) async fn accept(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Self {
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return self,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => self.serve(socket),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, socket: TcpStream) {
        let Some(place) = self.places.try_take(1) else {
            return debug!("a connection was closed: there are as many as `connections` allows");
        };
        // Frames are small and wait for nobody.
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        let service = TowerToHyperService::new(self.router.clone());
        let (builder, watcher) = (self.builder.clone(), self.open.watcher());
        tokio::spawn(async move {
            let _place = place;
            // The HTTP library waits for ever for the very first bytes.
            let speaks = tokio::time::timeout(HEADER_READ_TIMEOUT, socket.readable()).await;
            if !matches!(speaks, Ok(Ok(()))) {
                return;
            }
            let socket = TokioIo::new(socket);
            let connection = builder.serve_connection_with_upgrades(socket, service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                debug!(%error, "a connection ended");
            }
        });
    }

    /// Lets the connections finish what they are answering, for the grace at most.
    pub(super) async fn close(self, grace: Duration) {
        if tokio::time::timeout(grace, self.open.shutdown())
            .await
            .is_err()
        {
            warn!("some connections did not end in time");
        }
    }
}
