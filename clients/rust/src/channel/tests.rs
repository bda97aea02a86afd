//! What an adapter says to a gateway that is played by the test.

use tonic::Code;

use super::{AdapterFrame, Attachment, AttachmentOptions, GatewayFrame, Outbounds};
use crate::Error;
use crate::proto::conversation_created::Result as CreationResult;
use crate::proto::outcome::Result as OutcomeResult;
use crate::proto::{
    self, Activity, Appended, AttachResponse, AttachWelcome, ConversationCreated,
    CreateConversation, Outbound, Post, PostResult,
};
use crate::stage::{ChannelLink, Stage};

impl ChannelLink {
    async fn send(&self, frame: GatewayFrame) {
        self.say(AttachResponse { frame: Some(frame) }).await;
    }

    /// The next frame that is not a heartbeat.
    async fn frame(&mut self) -> Option<AdapterFrame> {
        loop {
            match self.heard().await?.frame {
                Some(AdapterFrame::Heartbeat(_)) => {}
                frame => return frame,
            }
        }
    }

    async fn post(&mut self) -> Post {
        match self.frame().await {
            Some(AdapterFrame::Post(post)) => post,
            other => panic!("expected a post, got {other:?}"),
        }
    }

    async fn asks(&self, request_id: &str) {
        let asked = CreateConversation {
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        self.send(GatewayFrame::CreateConversation(asked)).await;
    }

    async fn created(&mut self) -> ConversationCreated {
        match self.frame().await {
            Some(AdapterFrame::ConversationCreated(created)) => created,
            other => panic!("expected what became of a request, got {other:?}"),
        }
    }

    async fn posted(&self, post_id: String, sequence: u64) {
        let result = PostResult {
            post_id,
            appended: Some(Appended {
                sequence,
                ..Appended::default()
            }),
            repeated_post: false,
        };
        self.send(GatewayFrame::PostResult(result)).await;
    }
}

async fn attach(stage: &mut Stage) -> (Attachment, Outbounds, ChannelLink) {
    attach_with(stage, AttachmentOptions::new("dev")).await
}

async fn attach_with(
    stage: &mut Stage,
    options: AttachmentOptions,
) -> (Attachment, Outbounds, ChannelLink) {
    let client = stage.client.clone();
    let open = tokio::spawn(async move { Attachment::open(&client, options).await });
    let mut link = stage.channel().await;
    let hello = link.frame().await;
    assert!(matches!(hello, Some(AdapterFrame::Hello(hello)) if hello.channel_id == "dev"));
    link.send(GatewayFrame::Welcome(AttachWelcome::default()))
        .await;
    let (attachment, outbounds) = open
        .await
        .expect("opening does not panic")
        .expect("the gateway welcomes the adapter");
    (attachment, outbounds, link)
}

#[tokio::test]
async fn every_post_gets_its_own_result_in_whichever_order_they_come() -> Result<(), Error> {
    let mut stage = Stage::new().await;
    let (attachment, _outbounds, mut link) = attach(&mut stage).await;
    let first = attachment.begin_post(Activity::message("one")).await?;
    let second = attachment.begin_post(Activity::message("two")).await?;
    let (one, two) = (link.post().await, link.post().await);
    assert_eq!(one.activity, Some(Activity::message("one").into()));
    link.posted(two.post_id, 2).await;
    link.posted(one.post_id, 1).await;
    assert!(matches!(first.await, Ok(Ok(posted)) if posted.appended.sequence == 1));
    assert!(matches!(second.await, Ok(Ok(posted)) if posted.appended.sequence == 2));
    Ok(())
}

#[tokio::test]
async fn a_refused_post_says_why() -> Result<(), Error> {
    let mut stage = Stage::new().await;
    let (attachment, _outbounds, mut link) = attach(&mut stage).await;
    let posted = attachment.begin_post(Activity::default()).await?;
    let error = proto::Error {
        reason: "ACTIVITY_INVALID".into(),
        retry: proto::Retry::Never.into(),
        client_id: link.post().await.post_id,
        ..proto::Error::default()
    };
    link.send(GatewayFrame::Error(error)).await;
    let refused = posted.await.expect("there is a result");
    assert!(refused.is_err_and(|error| error.reason() == Some("ACTIVITY_INVALID")));
    Ok(())
}

#[tokio::test]
async fn an_outbound_activity_is_answered_by_its_delivery() -> Result<(), Error> {
    let mut stage = Stage::new().await;
    let (_attachment, mut outbounds, mut link) = attach(&mut stage).await;
    let outbound = Outbound {
        delivery_id: 9,
        activity: Some(Activity::message("hi").into()),
        ..Outbound::default()
    };
    link.send(GatewayFrame::Outbound(outbound)).await;
    let Some(outbound) = outbounds.next().await else {
        panic!("expected an outbound activity");
    };
    outbound?.delivered("theirs").await?;
    let Some(AdapterFrame::Outcome(outcome)) = link.frame().await else {
        panic!("expected an outcome");
    };
    assert_eq!(outcome.delivery_id, 9);
    assert!(
        matches!(outcome.result, Some(OutcomeResult::Delivered(d)) if d.channel_activity_id == "theirs")
    );
    Ok(())
}

#[tokio::test]
async fn the_end_reaches_everyone_who_waits() -> Result<(), Error> {
    let mut stage = Stage::new().await;
    let (attachment, mut outbounds, link) = attach(&mut stage).await;
    let posted = attachment.begin_post(Activity::message("lost")).await?;
    link.end(Code::Unavailable, "SHUTTING_DOWN").await;
    assert!(posted.await.is_err());
    let ended = outbounds.next().await;
    assert!(matches!(ended, Some(Err(error)) if error.reason() == Some("SHUTTING_DOWN")));
    assert!(outbounds.next().await.is_none());
    let late = attachment.post(Activity::message("late")).await;
    assert!(matches!(late, Err(Error::Ended)));
    Ok(())
}

#[tokio::test]
async fn a_request_for_a_conversation_is_answered_under_its_name() -> Result<(), Error> {
    let mut stage = Stage::new().await;
    let mut options = AttachmentOptions::new("dev");
    options.capabilities.create = true;
    let (_attachment, mut outbounds, mut link) = attach_with(&mut stage, options).await;
    // One that comes before anyone looks waits.
    link.asks("first").await;
    let mut creations = outbounds.creations().expect("the channel can");
    assert!(outbounds.creations().is_none(), "they are taken once");
    let creation = creations.next().await.expect("a request");
    creation.created("theirs").await?;
    let created = link.created().await;
    assert_eq!(created.request_id, "first");
    let id = match created.result {
        Some(CreationResult::Created(created)) => created.conversation.and_then(|c| c.id),
        other => panic!("not created: {other:?}"),
    };
    assert_eq!(id.as_deref(), Some("theirs"));
    link.asks("second").await;
    let creation = creations.next().await.expect("a request");
    creation.refused("no").await?;
    let refused = link.created().await;
    assert_eq!(refused.request_id, "second");
    assert!(
        matches!(refused.result, Some(CreationResult::Refused(refused)) if refused.reason == "no")
    );
    Ok(())
}

#[tokio::test]
async fn an_adapter_that_declares_no_creation_refuses_by_itself() {
    let mut stage = Stage::new().await;
    let (_attachment, mut outbounds, mut link) = attach(&mut stage).await;
    assert!(outbounds.creations().is_none());
    link.asks("first").await;
    let refused = link.created().await;
    assert_eq!(refused.request_id, "first");
    assert!(matches!(refused.result, Some(CreationResult::Refused(_))));
}

#[tokio::test]
async fn more_requests_than_may_wait_are_put_off() {
    let mut stage = Stage::new().await;
    let mut options = AttachmentOptions::new("dev");
    options.capabilities.create = true;
    let (_attachment, _outbounds, mut link) = attach_with(&mut stage, options).await;
    for number in 0..=super::creation::WAITING {
        link.asks(&number.to_string()).await;
    }
    let put_off = link.created().await;
    assert_eq!(put_off.request_id, super::creation::WAITING.to_string());
    assert!(matches!(put_off.result, Some(CreationResult::Retry(_))));
}
