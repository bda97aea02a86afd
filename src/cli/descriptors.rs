//! File descriptors: each connection is one, and the shell's soft limit is made for other programs.

use anyhow::ensure;

/// File descriptors of a benchmark and of its gateway that are not connections: the terminal, the
/// store's files, and a few more.
const OTHERS: u64 = 256;

/// How many file descriptors this process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    /// What the process was started with.
    pub(super) from: Option<u64>,
    /// What it has now; `None` is as many as it likes.
    pub(super) to: Option<u64>,
}

/// Raises the soft limit to the hard one, which a process may do for itself.
///
/// The soft limit is commonly 1,024 because of programs that call `select`, which this one never
/// does. A limit that cannot be raised stays as it is.
#[cfg(unix)]
pub(super) fn raise() -> Raised {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    let to = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        // Some systems say that there is no limit and take no such number.
        Err(_) => before.current,
    };
    Raised {
        from: before.current,
        to,
    }
}

#[cfg(not(unix))]
pub(super) fn raise() -> Raised {
    Raised {
        from: None,
        to: None,
    }
}

/// Refuses a benchmark with more connections than there may be file descriptors: each is one here, and
/// one in its gateway, which has the same limit. `instead` is what helps besides a higher limit.
pub(super) fn check(connections: u64, instead: &str) -> anyhow::Result<()> {
    let needed = connections.saturating_add(OTHERS);
    let limit = raise().to;
    ensure!(
        limit.is_none_or(|limit| limit >= needed),
        "{connections} connections need {needed} file descriptors, and this process may have {}: \
         raise the hard limit (`ulimit -Hn`), or {instead}",
        limit.unwrap_or_default()
    );
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn raising_again_changes_nothing() {
        let first = raise();
        let second = raise();
        assert_eq!(second.from, first.to);
        assert_eq!(second.to, first.to);
    }
}
