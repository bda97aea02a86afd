//! What is tried on bytes from outside. `tests/corpus.rs` includes this file, so that ordinary test
//! runs try it too.

use prost::Message;
use prost_types::Value;
use prost_types::value::Kind;
use turnwire::activity::{self, Outline, Stamp, json};
use turnwire::clock::Timestamp;
use turnwire::limits::Limits;
use turnwire::proto::v1::{
    Activity, AttachRequest, ConversationAccount, SubscribeRequest, attach_request,
    subscribe_request,
};

/// Reads the bytes as a JSON activity. Every object is one; it is written without loss, and reads
/// back as the same.
pub fn activity_json(bytes: &[u8]) {
    let open = json::decode::<Value>(bytes).ok();
    let is_object = matches!(
        open,
        Some(Value {
            kind: Some(Kind::StructValue(_))
        })
    );
    let activity = json::decode::<Activity>(bytes);
    assert_eq!(activity.is_ok(), is_object);
    let Ok(activity) = activity else { return };

    let text = json::to_string(&activity);
    assert_eq!(json::decode(&text).ok(), open);
    assert_eq!(json::decode(&text).ok().as_ref(), Some(&activity));
    draft(activity);
}

/// Reads the bytes as the frames that bots and channel adapters send, and drafts the activities.
pub fn stream_frame(bytes: &[u8]) {
    use attach_request::Frame as FromAdapter;
    use subscribe_request::Frame as FromBot;

    let request = SubscribeRequest::decode(bytes);
    match request.ok().and_then(|request| request.frame) {
        Some(FromBot::Send(send)) => send
            .activity
            .into_iter()
            .for_each(|activity| draft(*activity)),
        Some(FromBot::Commit(commit)) => commit.activities.into_iter().for_each(draft),
        _ => {}
    }
    let request = AttachRequest::decode(bytes);
    if let Some(FromAdapter::Post(post)) = request.ok().and_then(|request| request.frame) {
        post.activity
            .into_iter()
            .for_each(|activity| draft(*activity));
    }
}

/// Drafts the activity both ways. What passes can be finished, decoded, and told in JSON.
fn draft(mut activity: Activity) {
    let conversation = ConversationAccount::default();
    let stamp = Stamp {
        id: "a1",
        timestamp: Timestamp(0),
        channel: "web",
        conversation: &conversation,
        from: None,
        recipient: None,
        reply_to_id: None,
        locale: None,
        service_url: None,
    };
    let limits = Limits::default();
    for draft in [
        activity::inbound(&mut activity.clone(), &limits),
        activity::outbound(&mut activity, &limits),
    ] {
        let Ok(draft) = draft else { continue };
        let stored = draft.finish(&stamp);
        let finished = Activity::decode(&*stored).expect("a finished draft is an activity");
        assert_eq!(finished.channel_id.as_deref(), Some("web"));
        assert_eq!(finished.caller_id, None);

        let outline = Outline::decode(&*stored).expect("a finished draft has an outline");
        assert_eq!(
            (outline.id, outline.from),
            (finished.id.clone(), finished.from.clone())
        );

        json::check(&finished).expect("a finished draft keeps the rules");
        let text = json::to_string(&finished);
        let again: Activity = json::decode(&text).expect("JSON of ours is JSON");
        json::check(&again).expect("its JSON has every member in its field");
        assert_eq!(json::to_string(&again), text);
    }
}
