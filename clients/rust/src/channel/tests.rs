//! What an adapter says to a gateway that is played by the test.

use tonic::Code;

use super::{AdapterFrame, Attachment, AttachmentOptions, GatewayFrame, Outbounds};
use crate::Error;
use crate::proto::outcome::Result as OutcomeResult;
use crate::proto::{
    self, Activity, Appended, AttachResponse, AttachWelcome, Outbound, Post, PostResult,
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
    let client = stage.client.clone();
    let open =
        tokio::spawn(async move { Attachment::open(&client, AttachmentOptions::new("dev")).await });
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
