use super::*;
use crate::id::ConversationKey;

fn head(conversation: &ConversationKey) -> Key<'_> {
    Key::Head { conversation }
}

#[test]
fn a_batch_counts_writes_and_bytes() {
    let conversation = ConversationKey {
        channel: "web".into(),
        conversation: "1".into(),
    };
    let mut batch = Batch::with_capacity(2);
    assert!(batch.is_empty());
    batch.put(&head(&conversation), Bytes::from_static(b"12345"));
    batch.delete(&head(&conversation));
    assert_eq!(batch.len(), 2);
    let key_bytes = head(&conversation).encoded_len();
    assert_eq!(batch.bytes(), key_bytes * 2 + 5);

    let mut all = Batch::new();
    all.append(batch.clone());
    all.append(batch);
    assert_eq!((all.len(), all.bytes()), (4, key_bytes * 4 + 10));
}

#[test]
fn a_batch_prints_no_content() {
    let conversation = ConversationKey {
        channel: "web".into(),
        conversation: "secret".into(),
    };
    let mut batch = Batch::new();
    batch.put(&head(&conversation), Bytes::from_static(b"secret"));
    assert!(!format!("{batch:?}").contains("secret"));
}

#[test]
fn only_failures_under_way_may_have_been_written() {
    let place = || "here".to_owned();
    assert!(Error::Full { place: place() }.may_have_been_written());
    assert!(!Error::Stopped { place: place() }.may_have_been_written());
}
