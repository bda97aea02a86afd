//! What a measurement was made on: without it, a number says nothing.

use std::path::Path;

use serde_json::{Map, Value, json};

/// File systems in memory, where a sync costs nothing and means nothing.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// The machine, the build, and the settings that a benchmark adds.
#[derive(Debug)]
pub(super) struct Facts {
    cores: usize,
    /// Of the machine: `None` where it does not say.
    cpu: Option<String>,
    kernel: Option<String>,
    memory_bytes: Option<u64>,
    /// The folder of the gateway's data; `None` when the gateway is not this measurement's own.
    data: Option<String>,
    filesystem: Option<String>,
    /// What was measured of the machine: its key, what people read, and what JSON has.
    measured: Vec<(&'static str, String, Value)>,
    settings: Vec<(&'static str, Value)>,
}

impl Facts {
    /// Looks at the machine, and at where the data is of a gateway that is the benchmark's own.
    pub(super) fn gather(data: Option<&Path>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: member(&read("/proc/cpuinfo"), "model name").map(str::to_owned),
            kernel: first_line(&read("/proc/sys/kernel/osrelease")),
            memory_bytes: member(&read("/proc/meminfo"), "MemTotal").and_then(kilobytes),
            data: data.map(|data| data.display().to_string()),
            filesystem: data
                .and_then(|data| data.canonicalize().ok())
                .and_then(|data| filesystem(&read("/proc/self/mounts"), &data)),
            measured: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Adds what was measured of the machine, with a line of its own for people.
    pub(super) fn measured(mut self, key: &'static str, line: String, value: Value) -> Self {
        self.measured.push((key, line, value));
        self
    }

    /// Adds a setting of the benchmark; the key is the one in JSON, and people read it as it is.
    pub(super) fn setting(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.settings.push((key, value.into()));
        self
    }

    /// For people: the machine, the gateway, the settings.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut machine = format!("{} cores", self.cores);
        if let Some(cpu) = &self.cpu {
            machine.push_str(&format!(" of {cpu}"));
        }
        if let Some(bytes) = self.memory_bytes {
            machine.push_str(&format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        }
        machine.push_str(&format!(
            ", {} {}",
            std::env::consts::OS,
            std::env::consts::ARCH
        ));
        if let Some(kernel) = &self.kernel {
            machine.push_str(&format!(" {kernel}"));
        }
        let gateway = match (&self.data, &self.filesystem) {
            (Some(data), Some(filesystem)) => {
                format!("gateway on the same machine, data in {data} ({filesystem})")
            }
            (Some(data), None) => format!("gateway on the same machine, data in {data}"),
            (None, _) => "gateway elsewhere".to_owned(),
        };
        let build = format!(
            "turnwire {}, {} build, {}; {gateway}",
            env!("CARGO_PKG_VERSION"),
            profile(),
            env!("TURNWIRE_RUSTC")
        );
        let settings = self.settings.iter().map(|(key, value)| match value {
            Value::String(text) => format!("{key} {text}"),
            value => format!("{key} {value}"),
        });
        let mut lines = vec![machine, build];
        lines.extend(self.measured.iter().map(|(_, line, _)| line.clone()));
        lines.push(settings.collect::<Vec<_>>().join(", "));
        lines
    }

    /// Why the numbers will mean little.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if cfg!(debug_assertions) {
            warnings.push("this is a debug build, many times slower than a release build");
        }
        if self.is_in_memory() {
            warnings.push(
                "the data is in memory, where a sync costs nothing; give a disk with `--data`",
            );
        }
        warnings
    }

    fn is_in_memory(&self) -> bool {
        let filesystem = self.filesystem.as_deref();
        filesystem.is_some_and(|filesystem| IN_MEMORY.contains(&filesystem))
    }

    pub(super) fn machine_json(&self) -> Value {
        let mut facts = json!({
            "cores": self.cores,
            "cpu": self.cpu,
            "memoryBytes": self.memory_bytes,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "kernel": self.kernel,
            "version": env!("CARGO_PKG_VERSION"),
            "build": profile(),
            "rustc": env!("TURNWIRE_RUSTC"),
            "data": self.data,
            "filesystem": self.filesystem,
            "dataInMemory": self.is_in_memory(),
        });
        for (key, _, value) in &self.measured {
            facts[*key] = value.clone();
        }
        facts
    }

    pub(super) fn settings_json(&self) -> Value {
        let settings = self.settings.iter();
        let settings = settings.map(|(key, value)| ((*key).to_owned(), value.clone()));
        Value::Object(settings.collect::<Map<_, _>>())
    }
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().map(|line| line.trim().to_owned())
}

/// What follows a name and its colon, in the way of `/proc`.
pub(super) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Bytes of what `/proc` says in `kB`, by which it means 1,024 bytes.
pub(super) fn kilobytes(value: &str) -> Option<u64> {
    let kilobytes: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1_024)
}

/// The file system that a folder is on: that of the longest mount point above it, and of equal ones
/// the last, which hides the others. A line has the device, the mount point and the type.
fn filesystem(mounts: &str, folder: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let point = words.nth(1)?;
        let kind = words.next()?;
        folder.starts_with(point).then_some((point.len(), kind))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_what_is_mounted_closest_above_it() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tm xfs rw 0 0\n";
        let on = |folder: &str| filesystem(mounts, Path::new(folder));
        assert_eq!(on("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(on("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(on("/tm").as_deref(), Some("xfs"));
        assert_eq!(filesystem("", Path::new("/")), None);
    }

    #[test]
    fn what_proc_says_is_read() {
        let text = "MemTotal:       16384 kB\nmodel name\t: Some CPU @ 2.1GHz\n";
        assert_eq!(member(text, "model name"), Some("Some CPU @ 2.1GHz"));
        assert_eq!(
            member(text, "MemTotal").and_then(kilobytes),
            Some(16 * 1024 * 1024)
        );
        assert_eq!(member(text, "SwapTotal"), None);
    }
}
