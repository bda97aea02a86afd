//! One table: failure -> stable reason, gRPC code, HTTP status, and whether to retry.
//!
//! gRPC errors carry `google.rpc.ErrorInfo` with the reason, `BadRequest` where a field is at fault
//! and `RetryInfo` where waiting helps. The HTTP column is for the channels that speak HTTP.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::{debug, warn};

use crate::channel::direct_line;
use crate::engine::{Error, FrameError, state};
use crate::proto::v1;
use crate::{activity, auth};

/// Longest message, in bytes: it may quote what the caller sent, and in a status travels in a header.
const MESSAGE_BYTES: usize = 1_024;

/// The domain of every reason.
pub const DOMAIN: &str = "turnwire";

/// Everything that a caller can be refused with.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The caller is not known.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// The caller is known, and may not do this.
    #[error("`{principal}` may not do this; it needs the role {needs}")]
    RoleMissing {
        /// The caller.
        principal: String,
        /// The role that would allow it, or the roles one of which would.
        needs: String,
    },
    /// Direct Line refused or failed.
    #[error(transparent)]
    DirectLine(#[from] direct_line::Error),
    /// A field of a request is wrong.
    #[error("`{field}` {problem}")]
    RequestInvalid {
        /// The field's path in the request.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There are as many watchers as the gateway takes.
    #[error("the gateway has its most watchers, `{limit}`")]
    TooManyWatchers {
        /// Limit `watchers`.
        limit: usize,
    },
    /// There are as many backups under way as the gateway makes at one time.
    #[error("the gateway makes its most backups, `{limit}`; try again when one is finished")]
    TooManyBackups {
        /// Limit `backups`.
        limit: usize,
    },
    /// Whoever asked for a backup did not read it.
    #[error("the backup was not read for `{0:?}`, limit `backup_stall`; begin another")]
    BackupStalled(Duration),
    /// There are as many sends that wait for a receipt as the gateway takes.
    #[error("the gateway has its most waiting sends, `{limit}`; nothing was sent")]
    TooManyWaiters {
        /// Limit `delivery_waiters`.
        limit: usize,
    },
    /// The first frame of a stream was not a Hello.
    #[error("the first frame of a stream must be a Hello")]
    HelloExpected,
    /// No first frame came in time.
    #[error("no Hello came within `{0:?}`")]
    HelloTimeout(Duration),
    /// The Hello cannot be honoured.
    #[error("`{field}` {problem}")]
    HelloInvalid {
        /// The field's path in the Hello.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The client speaks no version that the gateway does.
    #[error("the client speaks protocol versions {min} to {max}, and the gateway speaks 1")]
    ProtocolUnsupported {
        /// The client's lowest.
        min: u32,
        /// The client's highest.
        max: u32,
    },
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable name, for programs.
    pub reason: &'static str,
    /// gRPC code.
    pub code: Code,
    /// HTTP status.
    pub http: u16,
    /// Whether to send the same again.
    pub retry: v1::Retry,
}

impl Failure {
    /// The failure's row.
    #[must_use]
    pub fn row(&self) -> Row {
        use v1::Retry::{Later, Never};
        let (reason, code, http, retry) = match self {
            Self::Engine(error) => return row(error),
            Self::DirectLine(error) => return direct_line_row(error),
            Self::Auth(auth::Error::TokenMissing) => {
                ("TOKEN_MISSING", Code::Unauthenticated, 401, Never)
            }
            Self::Auth(auth::Error::TokenUnknown) => {
                ("TOKEN_UNKNOWN", Code::Unauthenticated, 403, Never)
            }
            Self::RoleMissing { .. } => ("ROLE_MISSING", Code::PermissionDenied, 403, Never),
            Self::RequestInvalid { .. } => ("REQUEST_INVALID", Code::InvalidArgument, 400, Never),
            Self::TooManyWatchers { .. } => {
                ("TOO_MANY_WATCHERS", Code::ResourceExhausted, 503, Later)
            }
            Self::TooManyBackups { .. } => {
                ("TOO_MANY_BACKUPS", Code::ResourceExhausted, 503, Later)
            }
            Self::BackupStalled(_) => ("BACKUP_STALLED", Code::DeadlineExceeded, 408, Later),
            Self::TooManyWaiters { .. } => {
                ("TOO_MANY_WAITERS", Code::ResourceExhausted, 503, Later)
            }
            Self::HelloExpected => ("HELLO_EXPECTED", Code::FailedPrecondition, 400, Never),
            Self::HelloTimeout(_) => ("HELLO_TIMEOUT", Code::DeadlineExceeded, 408, Later),
            Self::HelloInvalid { .. } => ("HELLO_INVALID", Code::InvalidArgument, 400, Never),
            Self::ProtocolUnsupported { .. } => {
                ("PROTOCOL_UNSUPPORTED", Code::InvalidArgument, 400, Never)
            }
        };
        Row {
            reason,
            code,
            http,
            retry,
        }
    }

    /// The path of the field that is at fault.
    fn field(&self) -> Option<String> {
        match self {
            Self::Engine(Error::Activity(activity::Error::Invalid(invalid))) => {
                Some(format!("activity.{}", invalid.path))
            }
            Self::Engine(Error::Activity(activity::Error::TooLarge { limit, .. })) => {
                let field = if *limit == "channel_data_bytes" {
                    "activity.channelData"
                } else {
                    "activity"
                };
                Some(field.to_owned())
            }
            Self::Engine(Error::SameBot(_)) => Some("to_bot_id".to_owned()),
            Self::Engine(Error::ScheduleTooFar(_)) => Some("deliver_at".to_owned()),
            Self::Engine(Error::CreditOutOfRange { field, .. })
            | Self::Engine(Error::Frame(FrameError::Invalid { field, .. }))
            | Self::RequestInvalid { field, .. }
            | Self::HelloInvalid { field, .. } => Some((*field).to_owned()),
            Self::Engine(_)
            | Self::DirectLine(_)
            | Self::Auth(_)
            | Self::RoleMissing { .. }
            | Self::TooManyWatchers { .. }
            | Self::TooManyBackups { .. }
            | Self::BackupStalled(_)
            | Self::TooManyWaiters { .. }
            | Self::HelloExpected
            | Self::HelloTimeout(_)
            | Self::ProtocolUnsupported { .. } => None,
        }
    }

    /// Facts for programs.
    fn metadata(&self) -> HashMap<String, String> {
        let mut facts = HashMap::new();
        let mut fact = |name: &str, value: String| {
            facts.insert(name.to_owned(), value);
        };
        if let Some(field) = self.field() {
            fact("field", field);
        }
        match self {
            Self::Engine(Error::Activity(activity::Error::TooLarge {
                limit,
                allowed,
                actual,
            })) => {
                fact("limit", format!("{limit}={allowed}"));
                fact("value", actual.to_string());
            }
            Self::Engine(Error::CreditOutOfRange { grant, limit, .. }) => {
                fact("limit", limit.to_string());
                fact("value", grant.to_string());
            }
            Self::Engine(Error::Frame(FrameError::TooManyIds { count, limit })) => {
                fact("limit", format!("ack_ids={limit}"));
                fact("value", count.to_string());
            }
            Self::Engine(Error::Frame(FrameError::TooManySends { count, limit })) => {
                fact("limit", format!("commit_sends={limit}"));
                fact("value", count.to_string());
            }
            Self::Engine(Error::Frame(FrameError::TooManyStateWrites { count, limit })) => {
                fact("limit", format!("commit_state_writes={limit}"));
                fact("value", count.to_string());
            }
            Self::Engine(Error::State(state::Error::TooLarge { allowed, actual })) => {
                fact("limit", format!("state_document_bytes={allowed}"));
                fact("value", actual.to_string());
            }
            Self::Engine(Error::State(
                state::Error::Stale { name }
                | state::Error::Busy { name }
                | state::Error::Unknown(name),
            )) => fact("document", name.clone()),
            Self::Engine(Error::StreamsFull { limit, allowed }) => {
                fact("limit", format!("{limit}={allowed}"));
            }
            Self::Engine(Error::ScheduleTooFar(limit)) => {
                fact("limit", format!("schedule_horizon={}s", limit.as_secs()));
            }
            Self::Engine(Error::TooManyScheduled { limit }) => {
                fact("limit", format!("scheduled_sends={limit}"));
            }
            Self::Engine(Error::ScheduleSent {
                activity_id,
                sequence,
                ..
            }) => {
                fact("activity_id", activity_id.clone());
                fact("sequence", sequence.to_string());
            }
            Self::Engine(Error::TooManySessions { limit }) => {
                fact("limit", format!("sessions={limit}"));
            }
            Self::Engine(Error::TooManyBots { limit }) => {
                fact("limit", format!("conversation_bots={limit}"));
            }
            Self::Engine(Error::BotsLoop { limit }) => {
                fact("limit", format!("bot_handovers={limit}"));
            }
            Self::Engine(Error::TooManyCreations { limit }) => {
                fact("limit", format!("creations={limit}"));
            }
            Self::Engine(Error::CreationTimeout { timeout, .. }) => {
                fact("limit", format!("creation_timeout={timeout:?}"));
            }
            Self::TooManyWatchers { limit } => fact("limit", format!("watchers={limit}")),
            Self::TooManyBackups { limit } => fact("limit", format!("backups={limit}")),
            Self::TooManyWaiters { limit } => {
                fact("limit", format!("delivery_waiters={limit}"));
            }
            Self::Engine(Error::SequenceGone { first }) => {
                fact("first_sequence", first.to_string());
            }
            _ => {}
        }
        facts
    }

    /// The frame that refuses a frame.
    #[must_use]
    pub fn to_frame(&self, frame: u64, client_id: String, delivery_id: u64) -> v1::Error {
        self.note();
        let row = self.row();
        v1::Error {
            frame,
            reason: row.reason.to_owned(),
            code: row.code as i32,
            message: self.to_string(),
            metadata: self.metadata(),
            retry: row.retry as i32,
            client_id,
            delivery_id,
        }
    }

    /// What it says to its caller, bounded in length.
    #[must_use]
    pub fn message(&self) -> String {
        let mut message = self.to_string();
        let cut = (0..=MESSAGE_BYTES.min(message.len())).rev();
        let cut = { cut }.find(|end| message.is_char_boundary(*end));
        message.truncate(cut.unwrap_or_default());
        message
    }

    /// Says in the log what its reader can do something about; callers are told the rest.
    pub fn note(&self) {
        match self {
            Self::Engine(Error::StoreFailed(cause))
            | Self::DirectLine(direct_line::Error::Engine(Error::StoreFailed(cause))) => {
                warn!(%cause, "a request failed")
            }
            Self::DirectLine(direct_line::Error::AttachmentsFailed(cause)) => {
                warn!(%cause, "an attachment could not be stored or read");
            }
            refused => debug!(reason = refused.row().reason, "refused"),
        }
    }
}

/// The row of what the engine refused or failed at.
#[must_use]
pub fn row(error: &Error) -> Row {
    use v1::Retry::{Later, Never, Uncertain};
    let (reason, code, http, retry) = match error {
        Error::Activity(activity::Error::Invalid(_)) => {
            ("ACTIVITY_INVALID", Code::InvalidArgument, 400, Never)
        }
        Error::Activity(activity::Error::TooLarge { limit, .. }) => match *limit {
            "channel_data_bytes" => ("CHANNEL_DATA_TOO_LARGE", Code::InvalidArgument, 413, Never),
            _ => ("ACTIVITY_TOO_LARGE", Code::InvalidArgument, 413, Never),
        },
        Error::ChannelUnknown(_) => ("CHANNEL_UNKNOWN", Code::NotFound, 404, Never),
        Error::BotUnknown(_) => ("BOT_UNKNOWN", Code::NotFound, 404, Never),
        Error::ConversationUnknown(_) => ("CONVERSATION_UNKNOWN", Code::NotFound, 404, Never),
        Error::UserUnreachable { .. } => ("USER_UNREACHABLE", Code::NotFound, 404, Never),
        Error::ConversationEnded(_) => ("CONVERSATION_ENDED", Code::FailedPrecondition, 409, Never),
        Error::BotAbsent { .. } => ("BOT_ABSENT", Code::FailedPrecondition, 409, Never),
        Error::EgressAbsent(_) => ("BOT_ABSENT", Code::FailedPrecondition, 409, Never),
        Error::BotAmbiguous(_) => ("BOT_AMBIGUOUS", Code::FailedPrecondition, 409, Never),
        Error::NoBot(_) => ("BOT_ABSENT", Code::FailedPrecondition, 409, Never),
        Error::SameBot(_) => ("REQUEST_INVALID", Code::InvalidArgument, 400, Never),
        Error::TooManyBots { .. } => ("TOO_MANY_BOTS", Code::FailedPrecondition, 409, Never),
        Error::BotsLoop { .. } => ("BOTS_LOOP", Code::FailedPrecondition, 409, Never),
        Error::GroupsUnsupported(_) => ("GROUPS_UNSUPPORTED", Code::FailedPrecondition, 409, Never),
        Error::CapabilityMissing { .. } => {
            ("CAPABILITY_MISSING", Code::FailedPrecondition, 409, Never)
        }
        Error::ActivityUnknown { .. } => ("ACTIVITY_UNKNOWN", Code::NotFound, 404, Never),
        Error::IdempotencyMismatch { .. } => {
            ("IDEMPOTENCY_MISMATCH", Code::FailedPrecondition, 409, Never)
        }
        Error::SendExpired => ("SEND_EXPIRED", Code::FailedPrecondition, 409, Never),
        Error::ScheduleTooFar(_) => ("SCHEDULE_TOO_FAR", Code::InvalidArgument, 400, Never),
        Error::TooManyScheduled { .. } => {
            ("TOO_MANY_SCHEDULED", Code::ResourceExhausted, 503, Later)
        }
        Error::ScheduleUnknown(_) => ("SCHEDULE_UNKNOWN", Code::NotFound, 404, Never),
        Error::ScheduleSent { .. } => ("SCHEDULE_SENT", Code::FailedPrecondition, 409, Never),
        Error::CreationMismatch { .. } => {
            ("IDEMPOTENCY_MISMATCH", Code::FailedPrecondition, 409, Never)
        }
        Error::AdapterAbsent(_) => ("ADAPTER_ABSENT", Code::Unavailable, 503, Later),
        Error::AdapterLost(_) => ("ADAPTER_LOST", Code::Unavailable, 503, Uncertain),
        Error::CreationTimeout { .. } => {
            ("CREATION_TIMEOUT", Code::DeadlineExceeded, 504, Uncertain)
        }
        Error::CreationRefused { .. } => ("CREATION_REFUSED", Code::FailedPrecondition, 409, Never),
        Error::CreationDeferred { .. } => ("CREATION_DEFERRED", Code::Unavailable, 503, Later),
        Error::CreationUnknown => ("CREATION_UNKNOWN", Code::NotFound, 404, Never),
        Error::TooManyCreations { .. } => {
            ("TOO_MANY_CREATIONS", Code::ResourceExhausted, 503, Later)
        }
        Error::CreditOutOfRange { .. } => {
            ("CREDIT_OUT_OF_RANGE", Code::InvalidArgument, 400, Never)
        }
        Error::DeliveryStale(_) => ("DELIVERY_STALE", Code::FailedPrecondition, 409, Never),
        Error::DeliveryUnknown(_) => ("DELIVERY_UNKNOWN", Code::NotFound, 404, Never),
        Error::DeliveryElsewhere { .. } => {
            ("DELIVERY_ELSEWHERE", Code::InvalidArgument, 400, Never)
        }
        Error::StreamsFull { .. } => ("STREAMS_FULL", Code::ResourceExhausted, 503, Later),
        Error::SequenceGone { .. } => ("SEQUENCE_GONE", Code::OutOfRange, 410, Never),
        Error::SessionReplaced(_) => ("SESSION_REPLACED", Code::Aborted, 409, Never),
        Error::TooManySessions { .. } => ("TOO_MANY_SESSIONS", Code::ResourceExhausted, 503, Later),
        Error::StoreFull { .. } => ("STORE_FULL", Code::ResourceExhausted, 507, Later),
        Error::StoreFailed(cause) if cause.may_have_been_written() => {
            ("STORE_FAILED", Code::Unavailable, 503, Uncertain)
        }
        Error::StoreFailed(_) => ("STORE_FAILED", Code::Unavailable, 503, Later),
        Error::State(state::Error::Stale { .. }) => ("STATE_STALE", Code::Aborted, 412, Never),
        Error::State(state::Error::Busy { .. }) => ("STATE_BUSY", Code::Aborted, 409, Later),
        Error::State(state::Error::TooLarge { .. }) => {
            ("STATE_TOO_LARGE", Code::InvalidArgument, 413, Never)
        }
        Error::State(state::Error::Shape(_)) => {
            ("STATE_INVALID", Code::InvalidArgument, 400, Never)
        }
        Error::State(state::Error::Unknown(_)) => ("STATE_UNKNOWN", Code::NotFound, 404, Never),
        Error::FollowAgain => ("FOLLOW_AGAIN", Code::Unavailable, 503, Later),
        Error::Frame(FrameError::Unknown) => ("FRAME_UNKNOWN", Code::InvalidArgument, 400, Never),
        Error::Frame(FrameError::HelloRepeated) => {
            ("HELLO_REPEATED", Code::FailedPrecondition, 400, Never)
        }
        Error::Frame(FrameError::Invalid { .. }) => {
            ("FRAME_INVALID", Code::InvalidArgument, 400, Never)
        }
        Error::Frame(FrameError::TooManyIds { .. }) => {
            ("TOO_MANY_IDS", Code::InvalidArgument, 400, Never)
        }
        Error::Frame(FrameError::TooManySends { .. }) => {
            ("TOO_MANY_SENDS", Code::InvalidArgument, 400, Never)
        }
        Error::Frame(FrameError::TooManyStateWrites { .. }) => {
            ("TOO_MANY_STATE_WRITES", Code::InvalidArgument, 400, Never)
        }
        Error::FrameUnreadable { .. } => ("FRAME_UNREADABLE", Code::InvalidArgument, 400, Never),
        Error::HeartbeatMissed(_) => ("HEARTBEAT_MISSED", Code::DeadlineExceeded, 408, Later),
        Error::ShuttingDown => ("SHUTTING_DOWN", Code::Unavailable, 503, Later),
    };
    Row {
        reason,
        code,
        http,
        retry,
    }
}

/// The row of what Direct Line refused or failed at.
fn direct_line_row(error: &direct_line::Error) -> Row {
    use direct_line::Error;
    use v1::Retry::{Later, Never};
    let (reason, code, http, retry) = match error {
        Error::Engine(error) => return row(error),
        Error::CredentialMissing => ("CREDENTIAL_MISSING", Code::Unauthenticated, 401, Never),
        Error::CredentialUnknown => ("CREDENTIAL_UNKNOWN", Code::Unauthenticated, 403, Never),
        Error::TokenExpired => ("TOKEN_EXPIRED", Code::Unauthenticated, 403, Never),
        Error::SecretNeeded => ("SECRET_NEEDED", Code::PermissionDenied, 403, Never),
        Error::TokenNeeded => ("TOKEN_NEEDED", Code::PermissionDenied, 403, Never),
        Error::ConversationForeign => ("CONVERSATION_FOREIGN", Code::PermissionDenied, 403, Never),
        Error::OriginUntrusted => ("ORIGIN_UNTRUSTED", Code::PermissionDenied, 403, Never),
        Error::StreamUrlExpired => ("STREAM_URL_EXPIRED", Code::Unauthenticated, 403, Never),
        Error::PropertyMissing(_) => ("PROPERTY_MISSING", Code::InvalidArgument, 400, Never),
        Error::ArgumentBad { .. } => ("ARGUMENT_BAD", Code::InvalidArgument, 400, Never),
        Error::SyntaxBad(_) => ("SYNTAX_BAD", Code::InvalidArgument, 400, Never),
        Error::KindRefused(_) => ("KIND_REFUSED", Code::InvalidArgument, 400, Never),
        Error::Busy => ("BUSY", Code::ResourceExhausted, 503, Later),
        Error::BodyTooLarge { .. } => ("BODY_TOO_LARGE", Code::InvalidArgument, 413, Never),
        Error::BodyTimeout(_) => ("BODY_TIMEOUT", Code::DeadlineExceeded, 408, Later),
        Error::MediaTypeUnsupported(_) => {
            ("MEDIA_TYPE_UNSUPPORTED", Code::InvalidArgument, 415, Never)
        }
        Error::AttachmentUnknown => ("ATTACHMENT_UNKNOWN", Code::NotFound, 404, Never),
        Error::AttachmentsFailed(_) => ("ATTACHMENTS_FAILED", Code::Unavailable, 503, Later),
        Error::TooManyWatchers { .. } => ("TOO_MANY_WATCHERS", Code::ResourceExhausted, 503, Later),
        Error::OperationUnknown => ("OPERATION_UNKNOWN", Code::Unimplemented, 404, Never),
        Error::MethodUnknown => ("METHOD_UNKNOWN", Code::Unimplemented, 405, Never),
    };
    Row {
        reason,
        code,
        http,
        retry,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.note();
        let row = failure.row();
        let message = failure.message();
        let mut details = ErrorDetails::with_error_info(row.reason, DOMAIN, failure.metadata());
        if let Some(field) = failure.field() {
            details.add_bad_request_violation(field, message.clone());
        }
        if row.retry == v1::Retry::Later {
            const SOON: Duration = Duration::from_secs(1);
            let asked = match &failure {
                Failure::Engine(Error::CreationDeferred { delay, .. }) => *delay,
                _ => None,
            };
            details.set_retry_info(Some(asked.unwrap_or(SOON)));
        }
        Self::with_error_details(row.code, message, details)
    }
}

impl From<activity::Error> for Failure {
    fn from(error: activity::Error) -> Self {
        Self::Engine(error.into())
    }
}
