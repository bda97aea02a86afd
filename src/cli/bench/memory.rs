//! What the gateway of a benchmark's own has in memory.

use std::time::Duration;

use anyhow::Context;

use super::target::Target;

/// How long the gateway is left alone before its memory is read: an allocator gives back what it has
/// no use for only after a while.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// What a process has in memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    resident: u64,
    /// The same, with what other processes have as well counted in part: such as the program, which
    /// is this one.
    proportional: u64,
}

/// By how much it has grown for each of something, in KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grown {
    pub(super) resident: f64,
    pub(super) proportional: f64,
}

impl Memory {
    /// # Errors
    ///
    /// The system does not say it, or the gateway is not the benchmark's own.
    pub(super) fn of(target: &Target) -> anyhow::Result<Self> {
        let child = target.child.as_ref();
        let read = || {
            let child = child?;
            Some(Self {
                resident: child.resident_bytes()?,
                proportional: child.proportional_bytes()?,
            })
        };
        read().context("this system does not say how much memory a process has")
    }

    pub(super) fn resident_mib(&self) -> f64 {
        kib(self.resident) / 1_024.0
    }

    /// What was added since, divided by `count`.
    pub(super) fn grown_kib(&self, before: &Self, count: usize) -> Grown {
        let each = |before: u64, after: u64| kib(after.saturating_sub(before)) / count as f64;
        Grown {
            resident: each(before.resident, self.resident),
            proportional: each(before.proportional, self.proportional),
        }
    }
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1_024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_divided_and_what_was_given_back_is_nothing() {
        let memory = |resident, proportional| Memory {
            resident,
            proportional,
        };
        let grown = memory(5 << 10, 1 << 10).grown_kib(&memory(1 << 10, 3 << 10), 2);
        assert!((grown.resident - 2.0).abs() < f64::EPSILON);
        assert!(grown.proportional.abs() < f64::EPSILON);
    }
}
