//! What the channel can refuse.

use crate::engine;

/// A refusal or failure. Unless it is the engine's and says otherwise, nothing was written.
///
/// `status` gives each its stable reason and HTTP status, `http::direct_line::problem` its documented
/// code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `Authorization`, or one that is not `Bearer` and a value.
    #[error("send the header `Authorization: Bearer <secret or token>`")]
    CredentialMissing,
    /// It is neither a secret of a channel nor a token of this gateway.
    #[error("the secret or token is not one this gateway knows")]
    CredentialUnknown,
    /// The token was good once.
    #[error("the token has expired; get a new one, and refresh it before it expires")]
    TokenExpired,
    /// What was asked for takes a secret.
    #[error("this takes the channel's secret, not a token")]
    SecretNeeded,
    /// What was asked for takes a token.
    #[error("this takes a token, not a secret")]
    TokenNeeded,
    /// The token is of another conversation.
    #[error("the token is not of this conversation")]
    ConversationForeign,
    /// The page's origin is not trusted.
    #[error("the origin of this page is not trusted; list it in `trusted_origins`")]
    OriginUntrusted,
    /// The URL of a stream was not opened in time.
    #[error("this URL is no longer good; get a new one by `GET conversations/{{id}}`")]
    StreamUrlExpired,
    /// A member that must be there is not.
    #[error("`{0}` is missing")]
    PropertyMissing(&'static str),
    /// Something that was sent breaks a rule.
    #[error("`{name}` {problem}")]
    ArgumentBad {
        /// What.
        name: &'static str,
        /// Which.
        problem: String,
    },
    /// A body is not JSON.
    #[error("the body is not JSON: {0}")]
    SyntaxBad(String),
    /// Clients may not post activities of this type.
    #[error("clients cannot post activities of type `{0}`")]
    KindRefused(String),
    /// There is too much in work.
    #[error("the gateway has too much in work; come back")]
    Busy,
    /// A body is larger than a limit allows.
    #[error("the body has more than the {allowed} bytes that `{limit}` allows")]
    BodyTooLarge {
        /// The limit's name in the configuration.
        limit: &'static str,
        /// What it allows, in bytes.
        allowed: usize,
    },
    /// A body did not come, or did not go on, in time.
    #[error("the body did not come within {0:?}")]
    BodyTimeout(std::time::Duration),
    /// A body is of a type that is not taken.
    #[error("the body's `Content-Type` is not one that is taken here: {0}")]
    MediaTypeUnsupported(&'static str),
    /// There is no such attachment, or no longer.
    #[error("there is no such attachment; they are kept for `attachment_retention`")]
    AttachmentUnknown,
    /// An attachment cannot be written or read.
    #[error("attachments cannot be stored or read; see the gateway's log")]
    AttachmentsFailed(#[source] std::io::Error),
    /// There are as many sockets and watchers as the gateway takes.
    #[error("the gateway has its most watchers, `{limit}`")]
    TooManyWatchers {
        /// Limit `watchers`.
        limit: usize,
    },
    /// There is no such operation.
    #[error("there is no such operation; see Direct Line 3.0")]
    OperationUnknown,
    /// The operation is called by another method.
    #[error("this is not called by that method; see Direct Line 3.0")]
    MethodUnknown,
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

impl Error {
    /// Something that was sent breaks a rule.
    pub(crate) fn bad(name: &'static str, problem: impl ToString) -> Self {
        let problem = problem.to_string();
        Self::ArgumentBad { name, problem }
    }
}
