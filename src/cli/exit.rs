//! How the program ends: the exit codes, and the one line that says what went wrong.

use std::io::ErrorKind;
use std::process::ExitCode;

use turnwire_client::Code;

use super::escape;
use super::output::OutputClosed;
use crate::config;
use crate::store::embedded;

/// The gateway refused, or something else failed.
const FAILED: u8 = 1;
/// The arguments make no sense. clap's own code as well.
const USAGE: u8 = 2;
/// No gateway answers.
const UNREACHABLE: u8 = 3;
/// Interrupted by a signal: 128 and SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// Arguments that make no sense, found only after they were parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// The user has had enough.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// The code for what clap says: 0 for help, 2 for mistakes.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

/// Lets a store that cannot be opened for its damage end the program with a line in place of a
/// panic's trace, and every other panic as it is.
pub(super) fn say_damage() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !embedded::is_opening() {
            return others(panic);
        }
        let what = panic
            .payload_as_str()
            .unwrap_or("its files contradict each other");
        let what = escape::line(what);
        eprintln!("error: cannot open the store: it is damaged ({what}); restore it from a backup");
        // Not by unwinding: the database may panic again on the way.
        std::process::exit(i32::from(FAILED));
    }));
}

/// Says what went wrong, if it is worth a word, and returns the exit code.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<OutputClosed>()) {
        // Whoever read has seen enough: `turnwire tail | head`.
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    for line in lines(error) {
        eprintln!("error: {}", escape::line(&line));
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() || client_error(error).is_some_and(is_no_endpoint) {
        USAGE
    } else if client_error(error).is_some_and(turnwire_client::Error::is_unreachable) {
        UNREACHABLE
    } else {
        FAILED
    }
}

/// Whether the gateway's address is none: a flag or a variable is wrong.
fn is_no_endpoint(error: &turnwire_client::Error) -> bool {
    matches!(error, turnwire_client::Error::Endpoint { .. })
}

/// One line, except for a configuration: everything that is wrong with it has a line of its own.
fn lines(error: &anyhow::Error) -> Vec<String> {
    let config = error.downcast_ref::<config::Error>();
    let problems = config.map(config::Error::problems).unwrap_or_default();
    if problems.is_empty() {
        vec![describe(error)]
    } else {
        problems.iter().map(ToString::to_string).collect()
    }
}

/// The causes on one line, each once, and a hint.
fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let unreachable = client_error(error).is_some_and(turnwire_client::Error::is_unreachable);
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    for (index, cause) in causes.iter().enumerate() {
        // Between "cannot reach" and the operating system's word, the transport's layers only
        // say that something is wrong.
        let is_layer = unreachable
            && index + 1 < causes.len()
            && error
                .chain()
                .take(index)
                .any(|earlier| earlier.is::<turnwire_client::Error>());
        if !is_layer && !parts.iter().any(|part| part.contains(cause.as_str())) {
            parts.push(cause.clone());
        }
    }
    let line = parts.join(": ");
    match hint(error) {
        Some(hint) => format!("{line}; {hint}"),
        None => line,
    }
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let address_taken = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::AddrInUse)
    });
    if address_taken {
        return Some("stop what listens there, or choose another address with `--listen`");
    }
    let error = client_error(error)?;
    if error.is_unreachable() {
        return Some("is the gateway running? start one with `turnwire dev`");
    }
    match error.code()? {
        Code::Unauthenticated => Some("give a token with `--token` or `TURNWIRE_TOKEN`"),
        Code::PermissionDenied => Some("the token's principal needs another role"),
        Code::NotFound => match error.reason()? {
            "CONVERSATION_UNKNOWN" => Some("`turnwire conversations` lists those there are"),
            "USER_UNREACHABLE" => {
                Some("`turnwire conversations --channel CHANNEL --user USER` lists the user's")
            }
            "SCHEDULE_UNKNOWN" => Some("`turnwire scheduled list` lists those that wait"),
            "CHANNEL_UNKNOWN" => Some("the gateway's configuration names its channels"),
            _ => None,
        },
        _ => None,
    }
}

fn client_error(error: &anyhow::Error) -> Option<&turnwire_client::Error> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<turnwire_client::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn unreachable() -> anyhow::Error {
        turnwire_client::Error::Unreachable {
            endpoint: "http://h:1".into(),
            source: "connection refused".into(),
        }
        .into()
    }

    #[test]
    fn an_unreachable_gateway_is_3_and_the_hint_says_how_to_start_one() {
        assert_eq!(code(&unreachable()), UNREACHABLE);
        assert_eq!(
            describe(&unreachable()),
            "cannot reach `http://h:1`: connection refused; is the gateway running? start one \
             with `turnwire dev`"
        );
    }

    #[test]
    fn wrong_usage_is_2_and_everything_else_1() {
        assert_eq!(code(&Usage("no".into()).into()), USAGE);
        assert_eq!(code(&anyhow::anyhow!("broken")), FAILED);
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let inner = anyhow::anyhow!("disk full");
        let error = Err::<(), _>(inner).context("cannot write: disk full");
        assert_eq!(
            error.err().map(|e| describe(&e)).as_deref(),
            Some("cannot write: disk full")
        );
    }

    #[test]
    fn a_port_that_is_taken_has_a_hint() {
        let taken = std::io::Error::from(ErrorKind::AddrInUse);
        let error = anyhow::Error::from(taken).context("cannot listen on `127.0.0.1:7878`");
        assert!(describe(&error).contains("--listen"));
    }
}
