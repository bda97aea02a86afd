use super::*;
use crate::id::{ConversationKey, ConversationNumber};

const HEAD: Key<'_> = Key::Head {
    conversation: ConversationNumber(1),
};

#[test]
fn a_batch_counts_writes_and_bytes() {
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    batch.put(&HEAD, Bytes::from_static(b"12345"));
    batch.delete(&HEAD);
    assert_eq!(batch.len(), 2);
    let key_bytes = HEAD.encoded_len();
    assert_eq!(batch.bytes(), key_bytes * 2 + 5);

    let mut all = Batch::new();
    all.append(&batch);
    all.append(&batch);
    let puts: Vec<_> = all.writes().map(|write| write.value).collect();
    assert_eq!(puts, [Some(&b"12345"[..]), None, Some(b"12345"), None]);
    assert!(all.writes().all(|write| write.key == HEAD.encode()));
    assert_eq!((all.len(), all.bytes()), (4, key_bytes * 4 + 10));
}

#[test]
fn a_batch_prints_no_content() {
    let conversation = ConversationKey {
        channel: "web".into(),
        conversation: "secret".into(),
    };
    let mut batch = Batch::new();
    let live = Key::Live {
        conversation: &conversation,
    };
    batch.put(&live, Bytes::from_static(b"secret"));
    assert!(!format!("{batch:?}").contains("secret"));
}

#[test]
fn only_failures_under_way_may_have_been_written() {
    let place = || "here".to_owned();
    assert!(Error::Full { place: place() }.may_have_been_written());
    assert!(!Error::Stopped { place: place() }.may_have_been_written());
}
