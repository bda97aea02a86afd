//! Finding the conversation to speak in, and taking along what leads back to it.

use crate::harness::{Gateway, message};

fn ending() -> turnwire::proto::v1::Activity {
    turnwire::proto::v1::Activity {
        r#type: Some("endOfConversation".to_owned()),
        ..message("bye")
    }
}

#[tokio::test]
async fn a_conversation_says_whether_it_has_ended() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.says("hi").await;
    assert!(!gateway.conversation("c1").await.ended);
    user.posts(ending()).await;
    assert!(gateway.conversation("c1").await.ended);
    // It is over, and not silenced: what is said all the same does not begin it anew.
    user.says("one more thing").await;
    assert!(gateway.conversation("c1").await.ended);
}
