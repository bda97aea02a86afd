//! What a measurement was made on: without it, a number says nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::report::Settings;

/// What tmpfs calls itself, of `linux/magic.h`.
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: u64 = 0x0102_1994;

#[derive(Debug)]
pub(super) struct Facts {
    pub(super) settings: Settings,
    cores: usize,
    build: &'static str,
    /// The folder of the gateway's data; `None` when the gateway is not this measurement's own.
    data: Option<String>,
    /// The data is in memory, where a sync costs nothing and means nothing.
    pub(super) in_memory: bool,
}

impl Facts {
    pub(super) fn gather(settings: impl Into<Settings>, data: Option<&Path>) -> Self {
        Self {
            settings: settings.into(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            data: data.map(|data| data.display().to_string()),
            in_memory: data.is_some_and(is_in_memory),
        }
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let gateway = match &self.data {
            Some(data) => format!("gateway on the same machine, data in {data}"),
            None => "gateway elsewhere".to_owned(),
        };
        let settings = &self.settings;
        format!(
            "{} cores, {} {}, {} build, turnwire {}; {gateway}; {} bytes, {} s after {} s, {} \
             streams, {} threads",
            self.cores,
            std::env::consts::OS,
            std::env::consts::ARCH,
            self.build,
            env!("CARGO_PKG_VERSION"),
            settings.size,
            settings.seconds,
            settings.warmup,
            settings.streams,
            settings.threads,
        )
    }

    pub(super) fn is_debug(&self) -> bool {
        self.build == "debug"
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cores": self.cores,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "build": self.build,
            "version": env!("CARGO_PKG_VERSION"),
            "data": self.data,
            "dataInMemory": self.in_memory,
            "bytes": self.settings.size,
            "seconds": self.settings.seconds,
            "warmupSeconds": self.settings.warmup,
            "streams": self.settings.streams,
            "threads": self.settings.threads,
        })
    }
}

#[cfg(target_os = "linux")]
fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_path: &Path) -> bool {
    false
}
