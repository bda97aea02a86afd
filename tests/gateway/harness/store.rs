//! Stores that outlive a gateway, and can be cut off from it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::oneshot;
use turnwire::store::embedded::{Embedded, Options};
use turnwire::store::{self, Batch, Durability, Error, Key, KeyRange, Memory, Store};

/// Where things are kept while gateways come and go.
pub(crate) enum Kept {
    Memory {
        store: Memory,
        epoch: AtomicU32,
    },
    Folder {
        path: PathBuf,
        /// Removes it, unless that is the test's.
        _owner: Option<TempDir>,
    },
}

impl Kept {
    pub(super) fn memory() -> Self {
        Self::Memory {
            store: Memory::new(),
            epoch: AtomicU32::new(0),
        }
    }

    pub(super) fn folder() -> Self {
        let folder = TempDir::new().expect("a folder");
        Self::Folder {
            path: folder.path().to_owned(),
            _owner: Some(folder),
        }
    }

    pub(super) fn at(path: &Path) -> Self {
        Self::Folder {
            path: path.to_owned(),
            _owner: None,
        }
    }

    pub(super) fn in_memory(&self) -> &Memory {
        match self {
            Self::Memory { store, .. } => store,
            Self::Folder { .. } => panic!("the store is on disk"),
        }
    }

    /// The folder, when there is one.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Memory { .. } => panic!("the store is in memory"),
            Self::Folder { path, .. } => path,
        }
    }

    pub(super) fn open(&self) -> Result<(Arc<dyn Store>, u32, Handle), Error> {
        let (inner, epoch): (Arc<dyn Store>, u32) = match self {
            Self::Memory { store, epoch } => {
                let epoch = epoch.fetch_add(1, Ordering::Relaxed) + 1;
                (Arc::new(store.clone()), epoch)
            }
            Self::Folder { path, .. } => {
                let store = Embedded::open(path, &Options::default())?;
                let epoch = store.epoch();
                (Arc::new(store), epoch)
            }
        };
        let pulled = Arc::new(AtomicBool::new(false));
        let (last, gone) = oneshot::channel();
        let plug = Plug {
            inner,
            pulled: Arc::clone(&pulled),
            _last: last,
        };
        Ok((Arc::new(plug), epoch, Handle { pulled, gone }))
    }

    /// Loses what a machine may lose that goes down.
    pub(super) fn crash(&self) {
        if let Self::Memory { store, .. } = self {
            store.crash(0);
        }
    }
}

/// What a test holds of a store that a gateway has.
pub(super) struct Handle {
    pulled: Arc<AtomicBool>,
    gone: oneshot::Receiver<()>,
}

impl Handle {
    /// Nothing is written from now on.
    pub(super) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
    }

    /// Completes when no part of the gateway has the store any more.
    pub(super) async fn gone(&mut self) {
        // It is dropped, never sent.
        let _ = (&mut self.gone).await;
    }
}

/// A store that can be cut off.
struct Plug {
    inner: Arc<dyn Store>,
    pulled: Arc<AtomicBool>,
    /// Dropped after the store.
    _last: oneshot::Sender<()>,
}

impl Store for Plug {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        if self.pulled.load(Ordering::SeqCst) {
            return Err(Error::Stopped {
                place: "a machine that is down".to_owned(),
            });
        }
        self.inner.commit(batch, durability)
    }

    fn get(&self, key: &Key<'_>) -> Result<Option<Bytes>, Error> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        order: store::Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.inner.scan(range, order, visit)
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        self.inner.free_bytes()
    }
}
