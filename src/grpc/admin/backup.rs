//! A backup on its way out: a thread reads the store, a stream hands on what it has read, and between
//! them is a short queue, so that neither runs ahead.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::Service;
use crate::backup::{self, Summary};
use crate::engine::{Engine, Error};
use crate::files::Files;
use crate::grpc::convert;
use crate::proto::v1;
use crate::proto::v1::backup_response::Part;
use crate::status::Failure;
use crate::store;

/// Chunks that may wait for the stream: half a mebibyte, so that reading and sending go together.
const CHUNKS_AHEAD: usize = 2;

/// The parts of a backup.
pub(super) type Parts = Pin<Box<dyn Stream<Item = Result<v1::BackupResponse, Status>> + Send>>;

impl Service {
    /// Begins to read everything, as of now.
    pub(super) fn begin_backup(&self) -> Result<Parts, Failure> {
        if self.engine.is_draining() {
            return Err(Error::ShuttingDown.into());
        }
        let limit = self.engine.limits().backups;
        let place = Arc::clone(&self.backups).try_acquire_owned();
        let place = place.map_err(|_| Failure::TooManyBackups { limit })?;
        let (parts, stream) = mpsc::channel(CHUNKS_AHEAD);
        let (failed, failure) = oneshot::channel();
        let sender = Sender {
            engine: self.engine.clone(),
            parts,
            runtime: Handle::current(),
            _place: place,
        };
        let files = self.files.clone();
        // Nobody waits for it: who reads the stream is told how it ended.
        tokio::task::spawn_blocking(move || sender.run(&files, failed));
        // After the queue, which has no room when the reader is the one who failed.
        let failure = stream::once(failure).filter_map(async |failed| failed.ok().map(Err));
        Ok(Box::pin(ReceiverStream::new(stream).map(Ok).chain(failure)))
    }
}

/// The reading end, on a thread that may block.
struct Sender {
    engine: Engine,
    parts: mpsc::Sender<v1::BackupResponse>,
    runtime: Handle,
    _place: OwnedSemaphorePermit,
}

impl Sender {
    fn run(self, files: &Files, failed: oneshot::Sender<Status>) {
        let now = self.engine.clock().now();
        let mut take = |chunk: Bytes| self.send(Part::Chunk(chunk));
        let written = backup::write(self.engine.store(), files, now, &mut take);
        let written = written.and_then(|summary| {
            self.send(Part::Summary(converted(&summary)))
                .map_err(backup::Error::Written)?;
            Ok(summary)
        });
        match written {
            Ok(summary) => info!(
                backup.records = summary.records,
                backup.files = summary.files,
                backup.bytes = summary.bytes,
                "a backup was read to its end"
            ),
            Err(error) => self.fail(error, failed),
        }
    }

    /// Waits until there is room for it, but not for ever: a snapshot that is not read keeps the store
    /// from dropping what is no longer of use.
    fn send(&self, part: Part) -> io::Result<()> {
        let clock = self.engine.clock();
        let response = v1::BackupResponse { part: Some(part) };
        self.runtime.block_on(async {
            let stalled = clock.sleep_until(clock.now().after(self.engine.limits().backup_stall));
            tokio::select! {
                biased;
                sent = self.parts.send(response) => {
                    sent.map_err(|_| io::Error::from(ErrorKind::BrokenPipe))
                }
                () = stalled => Err(ErrorKind::TimedOut.into()),
            }
        })
    }

    /// Says why it ends, if anyone is there to hear it.
    fn fail(&self, error: backup::Error, failed: oneshot::Sender<Status>) {
        let failure = match error {
            backup::Error::Written(error) if error.kind() == ErrorKind::BrokenPipe => {
                return info!("a backup was broken off by its reader");
            }
            backup::Error::Written(_) => Failure::BackupStalled(self.engine.limits().backup_stall),
            backup::Error::Store(error) => Error::from(error).into(),
            error => {
                let error = store::Error::Failed {
                    place: "the uploaded files".to_owned(),
                    source: Arc::new(error),
                };
                Error::from(error).into()
            }
        };
        warn!(
            reason = failure.row().reason,
            "a backup was not read to its end"
        );
        self.engine.metrics().rpc_error(failure.row().reason);
        let _ = failed.send(failure.into());
    }
}

fn converted(summary: &Summary) -> v1::BackupSummary {
    v1::BackupSummary {
        time: Some(convert::timestamp(summary.time)),
        records: summary.records,
        files: summary.files,
        bytes: summary.bytes,
        sha256: Bytes::copy_from_slice(&summary.sha256),
    }
}
