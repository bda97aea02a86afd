//! The border between stored bytes and `turnwire.storage.v1`.

use bytes::Bytes;
use prost::Message;

use super::{Error, Key};
use crate::proto::storage;

/// The newest layout this gateway can read, and the one it writes.
pub const FORMAT: u32 = 1;

/// Encodes a record as the value of its key.
#[must_use]
pub fn encode(record: &impl Message) -> Bytes {
    Bytes::from(record.encode_to_vec())
}

/// Reads the value of [`Key::Meta`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key` when it is none; so for all decoders here.
pub fn decode_meta(key: &Key<'_>, value: Bytes) -> Result<storage::Meta, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Head`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_head(key: &Key<'_>, value: Bytes) -> Result<storage::Head, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Conversation`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_conversation(key: &Key<'_>, value: Bytes) -> Result<storage::Conversation, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Activity`]; what it holds encoded shares the memory of `value`.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_activity(key: &Key<'_>, value: Bytes) -> Result<storage::Activity, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Idempotency`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_idempotency(key: &Key<'_>, value: Bytes) -> Result<storage::Idempotency, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::DeadLetter`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_dead_letter(key: &Key<'_>, value: Bytes) -> Result<storage::DeadLetter, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Receipt`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_receipt(key: &Key<'_>, value: Bytes) -> Result<storage::Receipt, Error> {
    decode(key, value)
}

fn decode<M: Message + Default>(key: &Key<'_>, value: Bytes) -> Result<M, Error> {
    M::decode(value).map_err(|error| Error::Corrupt {
        what: format!("the record `{key}` cannot be decoded: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConversationKey, Sequence};

    fn conversation() -> ConversationKey {
        ConversationKey {
            channel: "web".into(),
            conversation: "42".into(),
        }
    }

    #[test]
    fn an_activity_comes_back_without_being_copied() {
        let conversation = conversation();
        let key = Key::Activity {
            conversation: &conversation,
            sequence: Sequence(7),
        };
        let record = storage::Activity {
            append_time_ms: 1,
            author: 2,
            bot_id: "echo".into(),
            activity_id: "a1".into(),
            activity: Bytes::from(vec![5; 512]),
        };
        let value = encode(&record);
        let decoded = decode_activity(&key, value.clone()).expect("it was just encoded");
        assert_eq!(decoded, record);
        assert!(value.as_ptr_range().contains(&decoded.activity.as_ptr()));
    }

    #[test]
    fn damage_is_an_error_that_names_the_key() {
        let conversation = conversation();
        let key = Key::Head {
            conversation: &conversation,
        };
        let error = decode_head(&key, Bytes::from_static(b"\xff")).expect_err("no protobuf");
        assert!(matches!(error, Error::Corrupt { .. }));
        assert!(error.to_string().contains("`head of web/42`"), "{error}");
    }
}
