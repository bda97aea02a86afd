//! An activity that has passed the rules and waits for what only the log's writer knows.
//!
//! The writer must not decode and encode what passes through it, so the client's part is encoded
//! here, once, and the gateway's fields are appended to those bytes: in protobuf, concatenation is
//! merging. Two submessages of the same field would be merged into one, and so everything the
//! gateway sets is taken out first.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost_types::Struct;
use sha2::{Digest, Sha256};

use super::{Error, Kind, streaminfo, timestamp, validate};
use crate::clock::Timestamp;
use crate::limits::Limits;
use crate::proto::v1::{Activity, ChannelAccount, ConversationAccount, ConversationReference};

/// Members that the gateway sets, or removes. Their entries in `unknown_members` go as well: a `null`
/// there says nothing that the stamp does not overrule, and bots that read names in any case
/// (A2002) would take a `ServiceUrl` of the client's for the gateway's.
const STAMPED: [&str; 11] = [
    "type",
    "id",
    "timestamp",
    "callerId",
    "serviceUrl",
    "channelId",
    "from",
    "recipient",
    "conversation",
    "replyToId",
    "locale",
];

/// What a stamp usually adds, in bytes: ids of 40 bytes, a time, a URL.
const USUAL_STAMP_BYTES: usize = 384;

/// An activity that has passed the rules, without the fields that the gateway sets.
#[derive(Clone)]
pub struct Draft {
    body: Bytes,
    /// What was taken out, encoded: part of the payload's hash, and of nothing else.
    taken: Bytes,
    /// What kind of activity it is.
    pub kind: Kind,
    /// Inbound: the channel's own id, if it gave one. Outbound: the id of the message that is updated
    /// or deleted, else none.
    pub id: Option<String>,
    /// Inbound: who did it. Outbound: none.
    pub from: Option<ChannelAccount>,
    /// Inbound: where. Outbound: none.
    pub conversation: Option<ConversationAccount>,
    /// Inbound: where the channel wants to be called back, if it said so. Outbound: none.
    pub service_url: Option<String>,
    /// The activity's own locale; none when it is empty.
    pub locale: Option<String>,
    /// Inbound, on a `conversationUpdate`: who joined, each with an id. Else empty.
    pub members_added: Vec<ChannelAccount>,
    /// Inbound, on a `conversationUpdate`: who left, each with an id. Else empty.
    pub members_removed: Vec<ChannelAccount>,
    /// Whether it says which activity it answers.
    pub has_reply_to: bool,
    /// Whether it has a locale.
    pub has_locale: bool,
    /// Inbound: whether the channel said when it happened. Outbound: no.
    pub has_timestamp: bool,
    /// Whether it says by itself which part of a streamed reply it is.
    pub has_stream_info: bool,
    /// Inbound: the `streamId` of the reply that it asks to stop, empty for all. Else none.
    pub stops_stream: Option<String>,
}

/// The `event` by which users stop a streamed reply. Its `value` has the `streamId`, or it stops all.
pub const STOP_STREAMING: &str = "turnwire/stopStreaming";

/// What only the log's writer knows. Whatever the draft has already, it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The activity's id.
    pub id: &'a str,
    /// When the gateway accepted it.
    pub timestamp: Timestamp,
    /// The channel.
    pub channel: &'a str,
    /// The conversation.
    pub conversation: &'a ConversationAccount,
    /// Who did it: outbound, the bot.
    pub from: Option<&'a ChannelAccount>,
    /// Whom it is for: inbound the bot, outbound the user.
    pub recipient: Option<&'a ChannelAccount>,
    /// Which activity it answers.
    pub reply_to_id: Option<&'a str>,
    /// The conversation's locale.
    pub locale: Option<&'a str>,
    /// Where a bot would call back.
    pub service_url: Option<&'a str>,
}

/// Drafts what a channel posts.
///
/// `from` and `conversation` stay as posted, `id`, `timestamp` and `serviceUrl` if given; `channelId`
/// and `recipient` are the gateway's, and `callerId` is never carried.
///
/// What is left in `activity` is of no use; it is borrowed because it is too large to be moved.
///
/// # Errors
///
/// The activity breaks a rule or exceeds a limit; see [`validate::inbound`].
pub fn inbound(activity: &mut Activity, limits: &Limits) -> Result<Draft, Error> {
    validate::inbound(activity, limits)?;
    let mut taken = Fields::default();
    taken.optional_text(tag::CALLER_ID, activity.caller_id.take().as_deref());
    taken.optional_text(tag::CHANNEL_ID, activity.channel_id.take().as_deref());
    taken.optional_message(tag::RECIPIENT, activity.recipient.take().as_ref());
    let stamped = take_stamped(&mut activity.unknown_members);
    taken.optional_message(tag::UNKNOWN_MEMBERS, stamped.as_ref());
    let mut draft = Draft::new(activity, taken);
    if draft.kind == Kind::ConversationUpdate {
        draft.members_added = take(&mut activity.members_added);
        draft.members_removed = take(&mut activity.members_removed);
    }
    draft.stops_stream = stops_stream(&draft.kind, activity);
    draft.id = activity.id.take();
    draft.from = activity.from.take();
    draft.conversation = activity.conversation.take();
    draft.service_url = activity.service_url.take().filter(|url| !url.is_empty());
    draft.has_timestamp = activity.timestamp.is_some();
    Ok(draft)
}

/// Drafts what a bot or a backend sends. Without a type it is a `message`.
///
/// `replyToId` and `locale` stay if given; `id`, `timestamp`, `serviceUrl`, `channelId`, `from`,
/// `recipient` and `conversation` are the gateway's, and `callerId` is never carried. A
/// `messageUpdate` or `messageDelete` keeps its `id`, which says which message it changes. Borrows
/// as [`inbound`] does.
///
/// # Errors
///
/// The activity breaks a rule or exceeds a limit; see [`validate::outbound`].
pub fn outbound(activity: &mut Activity, limits: &Limits) -> Result<Draft, Error> {
    validate::outbound(activity, limits)?;
    let mut taken = Fields::default();
    let kind = Kind::from(activity.r#type.as_deref().unwrap_or_default());
    let changed = match kind {
        Kind::MessageUpdate | Kind::MessageDelete => activity.id.clone(),
        _ => None,
    };
    if changed.is_none() {
        taken.optional_text(tag::ID, activity.id.take().as_deref());
    }
    taken.optional_text(tag::TIMESTAMP, activity.timestamp.take().as_deref());
    taken.optional_text(tag::CALLER_ID, activity.caller_id.take().as_deref());
    taken.optional_text(tag::SERVICE_URL, activity.service_url.take().as_deref());
    taken.optional_text(tag::CHANNEL_ID, activity.channel_id.take().as_deref());
    taken.optional_message(tag::FROM, activity.from.take().as_ref());
    taken.optional_message(tag::RECIPIENT, activity.recipient.take().as_ref());
    taken.optional_message(tag::CONVERSATION, activity.conversation.take().as_ref());
    let stamped = take_stamped(&mut activity.unknown_members);
    taken.optional_message(tag::UNKNOWN_MEMBERS, stamped.as_ref());
    let kind = &mut activity.r#type;
    kind.get_or_insert_with(|| Kind::Message.as_str().to_owned());
    let mut draft = Draft::new(activity, taken);
    draft.id = changed;
    Ok(draft)
}

impl Draft {
    /// Drafts again what a bot or a backend has sent before, from the [`body`](Self::body) of its draft.
    /// It has passed the rules then, and is held to no others now.
    ///
    /// # Errors
    ///
    /// It is no activity.
    pub fn again(body: Bytes) -> Result<Self, prost::DecodeError> {
        let activity = Activity::decode(body.clone())?;
        // What is left of an outbound activity has an id only to say what it changes.
        Ok(Self {
            id: activity.id.clone(),
            ..Self::of(body, &activity, Fields::default())
        })
    }

    /// Encodes what is left of the activity.
    fn new(activity: &Activity, taken: Fields) -> Self {
        Self::of(activity.encode_to_vec().into(), activity, taken)
    }

    /// The draft of an activity whose encoding is known.
    fn of(body: Bytes, activity: &Activity, taken: Fields) -> Self {
        let locale = activity.locale.clone().filter(|locale| !locale.is_empty());
        let reply_to = activity.reply_to_id.as_deref();
        Self {
            body,
            taken: taken.0.freeze(),
            kind: Kind::from(activity.r#type.as_deref().unwrap_or_default()),
            id: None,
            from: None,
            conversation: None,
            service_url: None,
            has_locale: locale.is_some(),
            locale,
            members_added: Vec::new(),
            members_removed: Vec::new(),
            has_reply_to: reply_to.is_some_and(|id| !id.is_empty()),
            has_timestamp: false,
            has_stream_info: activity.entities.iter().any(streaminfo::is_stream_info),
            stops_stream: None,
        }
    }

    /// The same with one entity more: appended to its list, as every element of a repeated field is.
    #[must_use]
    pub fn with_entity(&self, entity: &Struct) -> Self {
        let mut fields = Fields(BytesMut::from(&*self.body));
        fields.message(tag::ENTITIES, entity);
        Self {
            body: fields.0.freeze(),
            ..self.clone()
        }
    }

    /// The same activity, with what it is about: a conversation reference, which the draft has not yet.
    #[must_use]
    pub fn relating_to(mut self, reference: &ConversationReference) -> Self {
        let mut fields = Fields(BytesMut::with_capacity(self.encoded_len_hint()));
        fields.0.put_slice(&self.body);
        fields.message(tag::RELATES_TO, reference);
        self.body = fields.0.freeze();
        self
    }

    /// SHA-256 over all that was sent: the same request has the same hash, whatever order its members
    /// had.
    #[must_use]
    pub fn payload_hash(&self) -> [u8; 32] {
        // The length keeps apart what would run together. Maps are ordered, so that equal
        // activities have equal encodings.
        Sha256::new()
            .chain_update((self.body.len() as u64).to_be_bytes())
            .chain_update(&self.body)
            .chain_update(&self.taken)
            .finalize()
            .into()
    }

    /// The encoded activity without the gateway's fields.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// About how many bytes [`finish`](Self::finish) will return.
    #[must_use]
    pub fn encoded_len_hint(&self) -> usize {
        self.body.len() + USUAL_STAMP_BYTES
    }

    /// Appends what the draft lacks, and returns the whole activity, encoded.
    #[must_use]
    pub fn finish(&self, stamp: &Stamp<'_>) -> Bytes {
        let timestamp;
        let mut fields = Fields(BytesMut::with_capacity(self.encoded_len_hint()));
        fields.0.put_slice(&self.body);
        if self.id.is_none() {
            fields.text(tag::ID, stamp.id);
        }
        if !self.has_timestamp {
            timestamp = timestamp::format(stamp.timestamp);
            fields.text(tag::TIMESTAMP, &timestamp);
        }
        if self.service_url.is_none() {
            fields.optional_text(tag::SERVICE_URL, stamp.service_url);
        }
        fields.text(tag::CHANNEL_ID, stamp.channel);
        if self.from.is_none() {
            fields.optional_message(tag::FROM, stamp.from);
        }
        fields.optional_message(tag::RECIPIENT, stamp.recipient);
        if self.conversation.is_none() {
            fields.message(tag::CONVERSATION, stamp.conversation);
        }
        if !self.has_reply_to {
            fields.optional_text(tag::REPLY_TO_ID, stamp.reply_to_id);
        }
        if !self.has_locale {
            fields.optional_text(tag::LOCALE, stamp.locale);
        }
        fields.0.freeze()
    }
}

/// Shows what may be logged: never what was said.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Which streamed reply an activity asks to stop.
fn stops_stream(kind: &Kind, activity: &Activity) -> Option<String> {
    let is_asked = *kind == Kind::Event && activity.name.as_deref() == Some(STOP_STREAMING);
    is_asked.then(|| {
        let value = activity
            .value
            .as_ref()
            .and_then(|value| value.kind.as_ref());
        let id = match value {
            Some(prost_types::value::Kind::StructValue(members)) => streaminfo::stream_id(members),
            _ => None,
        };
        id.unwrap_or_default().to_owned()
    })
}

/// Takes the entries of [`STAMPED`] names, in any case, out of the unknown members.
fn take_stamped(unknown: &mut Option<Struct>) -> Option<Struct> {
    let stamped = |name: &str| STAMPED.iter().any(|known| known.eq_ignore_ascii_case(name));
    let members = unknown.take()?.fields.into_iter();
    let (taken, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
        members.partition(|(name, _)| stamped(name));
    let non_empty = |fields: BTreeMap<_, _>| (!fields.is_empty()).then_some(Struct { fields });
    *unknown = non_empty(left);
    non_empty(taken)
}

/// Tags of `activity.proto`.
mod tag {
    pub(super) const ID: u32 = 2;
    pub(super) const TIMESTAMP: u32 = 3;
    pub(super) const CALLER_ID: u32 = 6;
    pub(super) const SERVICE_URL: u32 = 7;
    pub(super) const CHANNEL_ID: u32 = 8;
    pub(super) const FROM: u32 = 9;
    pub(super) const RECIPIENT: u32 = 10;
    pub(super) const CONVERSATION: u32 = 11;
    pub(super) const ENTITIES: u32 = 13;
    pub(super) const REPLY_TO_ID: u32 = 12;
    pub(super) const LOCALE: u32 = 18;
    pub(super) const RELATES_TO: u32 = 34;
    pub(super) const UNKNOWN_MEMBERS: u32 = 100;
}

/// An encoded message that fields are appended to.
#[derive(Default)]
struct Fields(BytesMut);

impl Fields {
    fn key(&mut self, tag: u32) {
        const LENGTH_DELIMITED: u32 = 2;
        self.varint((tag << 3 | LENGTH_DELIMITED) as usize);
    }

    fn varint(&mut self, number: usize) {
        prost::encode_length_delimiter(number, &mut self.0).expect("a BytesMut grows");
    }

    fn text(&mut self, tag: u32, text: &str) {
        self.key(tag);
        self.varint(text.len());
        self.0.put_slice(text.as_bytes());
    }

    fn message(&mut self, tag: u32, message: &impl Message) {
        self.key(tag);
        message
            .encode_length_delimited(&mut self.0)
            .expect("a BytesMut grows");
    }

    fn optional_text(&mut self, tag: u32, text: Option<&str>) {
        if let Some(text) = text {
            self.text(tag, text);
        }
    }

    fn optional_message(&mut self, tag: u32, message: Option<&impl Message>) {
        if let Some(message) = message {
            self.message(tag, message);
        }
    }
}

#[cfg(test)]
mod tests;
