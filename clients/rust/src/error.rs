//! What can go wrong, and whether it helps to try again.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt;

use crate::proto;

/// A call or a stream that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint is not one: nothing was tried.
    #[error("`{endpoint}` is not an endpoint: {detail}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The token cannot be sent in a header: nothing was tried.
    #[error("the token holds characters that a header cannot carry")]
    Token,
    /// The gateway could not be reached, or the connection broke. A call may have happened.
    #[error("cannot reach `{endpoint}`")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// Why it was not found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The gateway refused.
    #[error("{0}")]
    Refused(#[source] Box<Refusal>),
    /// The stream is over, without a reason given.
    #[error("the stream has ended")]
    Ended,
    /// The gateway was not heard for two heartbeats, although the connection is up.
    #[error("the gateway has been silent for {0:?}")]
    Silent(Duration),
    /// The gateway said something that the protocol does not allow.
    #[error("the gateway broke the protocol: {0}")]
    Protocol(&'static str),
    /// The delivery that was cited is no longer this session's: nothing was written.
    #[error("the delivery is no longer held by this session")]
    Stale,
}

/// Why the gateway refused, the same for calls, ended streams and refused frames.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason in capitals, as in `google.rpc.ErrorInfo`. Empty when none was given.
    pub reason: String,
    /// What went wrong and what to do, for people. May change.
    pub message: String,
    /// Facts for programs, such as `field`, `limit` and `value`.
    pub metadata: HashMap<String, String>,
    /// How long to wait before trying again, when the gateway said so.
    pub retry_delay: Option<Duration>,
    /// Whether the same again may succeed later.
    pub retryable: bool,
}

impl Error {
    /// The gRPC code, when the gateway gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// The stable reason, for example `CONVERSATION_UNKNOWN`, when the gateway gave one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.refusal()
            .map(|refusal| refusal.reason.as_str())
            .filter(|reason| !reason.is_empty())
    }

    /// A fact of the refusal, for example `field`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.refusal()?.metadata.get(key).map(String::as_str)
    }

    /// All of the refusal, when the gateway refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same again may succeed later.
    ///
    /// It does not say that nothing happened: what must not happen twice needs a request id, a
    /// client id or an activity id.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Ended | Self::Silent(_) => true,
            Self::Refused(refusal) => refusal.retryable,
            Self::Endpoint { .. } | Self::Token | Self::Protocol(_) | Self::Stale => false,
        }
    }

    /// Whether a state write came too late or at the same time as another: nothing was written, and what
    /// was read before it should be read again.
    #[must_use]
    pub fn is_state_conflict(&self) -> bool {
        matches!(self.reason(), Some("STATE_STALE" | "STATE_BUSY"))
    }

    /// Whether the gateway could not be reached at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Tells what the gateway answered from what the transport made of a broken connection.
    pub(crate) fn from_status(endpoint: &str, status: tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        // Only the transport attaches a cause; the gateway's own refusals carry an ErrorInfo.
        if info.is_none() && std::error::Error::source(&status).is_some() {
            return Self::Unreachable {
                endpoint: endpoint.to_owned(),
                source: Box::new(status),
            };
        }
        let (reason, metadata) = info
            .map(|info| (info.reason.clone(), info.metadata.clone()))
            .unwrap_or_default();
        Self::Refused(Box::new(Refusal {
            code: status.code(),
            retryable: is_retryable(status.code(), &reason),
            message: if status.message().is_empty() {
                status.code().description().to_owned()
            } else {
                status.message().to_owned()
            },
            reason,
            metadata,
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
        }))
    }
}

impl From<proto::Error> for Error {
    /// A refused frame.
    fn from(frame: proto::Error) -> Self {
        let code = Code::from_i32(frame.code);
        let retryable = match frame.retry() {
            proto::Retry::Later | proto::Retry::Uncertain => true,
            proto::Retry::Never => false,
            proto::Retry::Unspecified => is_retryable(code, &frame.reason),
        };
        Self::Refused(Box::new(Refusal {
            code,
            reason: frame.reason,
            message: frame.message,
            metadata: frame.metadata,
            retry_delay: None,
            retryable,
        }))
    }
}

/// Whether an ended call or stream may succeed later.
fn is_retryable(code: Code, reason: &str) -> bool {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => true,
        // The newer session of the same instance won; coming back would take it away again, and
        // the two would go on for ever. A condition that did not hold never will again.
        Code::Aborted => !matches!(reason, "SESSION_REPLACED" | "STATE_STALE"),
        // What a proxy in between makes of a gateway that went away.
        Code::Unknown | Code::Internal | Code::Cancelled => reason.is_empty(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn refused(code: Code, reason: &str) -> Error {
        let metadata = HashMap::from([("field".to_owned(), "activity.type".to_owned())]);
        let details = ErrorDetails::with_error_info(reason, "turnwire", metadata);
        let status = tonic::Status::with_error_details(code, "no", details);
        Error::from_status("http://gateway", status)
    }

    #[test]
    fn a_refusal_exposes_code_reason_and_metadata() {
        let error = refused(Code::InvalidArgument, "ACTIVITY_INVALID");
        assert_eq!(error.code(), Some(Code::InvalidArgument));
        assert_eq!(error.reason(), Some("ACTIVITY_INVALID"));
        assert_eq!(error.metadata("field"), Some("activity.type"));
        assert!(!error.is_retryable());
        assert!(!error.is_unreachable());
    }

    #[test]
    fn a_replaced_session_must_not_come_back_but_other_aborted_ones_may() {
        assert!(!refused(Code::Aborted, "SESSION_REPLACED").is_retryable());
        assert!(refused(Code::Aborted, "OTHER").is_retryable());
    }

    #[test]
    fn a_state_conflict_is_told_from_other_refusals_and_only_a_busy_document_takes_the_same_again()
    {
        let (stale, busy) = ("STATE_STALE", "STATE_BUSY");
        assert!(refused(Code::Aborted, stale).is_state_conflict());
        assert!(!refused(Code::Aborted, stale).is_retryable());
        assert!(refused(Code::Aborted, busy).is_state_conflict());
        assert!(refused(Code::Aborted, busy).is_retryable());
        assert!(!refused(Code::Aborted, "OTHER").is_state_conflict());
    }

    #[test]
    fn outages_and_overload_are_retryable_and_rules_are_not() {
        assert!(refused(Code::Unavailable, "SHUTTING_DOWN").is_retryable());
        assert!(refused(Code::ResourceExhausted, "TOO_MANY_SESSIONS").is_retryable());
        assert!(refused(Code::DeadlineExceeded, "HEARTBEAT_MISSED").is_retryable());
        assert!(!refused(Code::PermissionDenied, "ROLE_MISSING").is_retryable());
        assert!(!refused(Code::NotFound, "BOT_UNKNOWN").is_retryable());
    }

    #[test]
    fn a_status_with_a_cause_is_the_transports() {
        let mut status = tonic::Status::unknown("broken");
        status.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        let error = Error::from_status("http://gateway", status);
        assert!(error.is_unreachable());
        assert!(error.is_retryable());
    }

    #[test]
    fn a_refused_frame_says_itself_whether_to_retry() {
        let frame = proto::Error {
            reason: "ACTIVITY_INVALID".into(),
            code: Code::Unavailable as i32,
            retry: proto::Retry::Never as i32,
            ..Default::default()
        };
        assert!(!Error::from(frame).is_retryable());
    }
}
