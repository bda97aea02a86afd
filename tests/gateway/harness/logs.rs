//! What a gateway logs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Everything that was logged, with every detail that the gateway itself has to tell.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn dispatch(&self) -> Dispatch {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info,turnwire=trace"))
            .with_ansi(false)
            .with_writer(self.clone());
        Dispatch::new(subscriber.finish())
    }
}

/// What each thread of a gateway's runtime begins with.
pub(super) fn capture(logs: Option<&Logs>) -> impl Fn() + Send + Sync + 'static {
    let dispatch = logs.map(Logs::dispatch);
    // A lone subscriber is taken for everyone's: what threads of other tests, which have none, come by
    // first would be logged nowhere.
    let second = logs.map(|_| Dispatch::new(NoSubscriber::new()));
    move || {
        let _ = &second;
        if let Some(dispatch) = &dispatch {
            // For as long as the thread lives.
            std::mem::forget(tracing::dispatcher::set_default(dispatch));
        }
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
