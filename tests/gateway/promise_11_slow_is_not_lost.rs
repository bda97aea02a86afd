//! Promise 11: a reader that falls behind goes back to the log and rejoins.

use tonic::Code;
use turnwire::proto::v1::watch_conversation_request::Start;

use crate::harness::{Gateway, Watcher, padded, refused, seconds};

#[tokio::test]
async fn a_watcher_that_is_slower_than_the_window_gets_everything_once_and_in_order() {
    let setup = Gateway::setup().config(|config| config.limits.feed_entries = 4);
    let gateway = setup.start().await;
    gateway.user("c1").says("m1").await;
    let mut watcher = gateway.watch("c1", 0).await;
    watcher.expect(1, "m1").await;
    // More than the connection holds, so that the gateway cannot send ahead.
    for number in 2..=400 {
        gateway
            .user("c1")
            .posts(padded(&format!("m{number}"), 4_000))
            .await;
    }
    for number in 2..=400 {
        watcher.expect(number, &format!("m{number}")).await;
    }
    gateway.user("c1").says("m401").await;
    watcher.expect(401, "m401").await;
}

#[tokio::test]
async fn a_window_of_few_bytes_loses_nothing_either() {
    let setup = Gateway::setup().config(|config| config.limits.feed_bytes = 100);
    let gateway = setup.start().await;
    gateway.user("c1").says("m1").await;
    let mut watcher = gateway.watch("c1", 0).await;
    for number in 2..=20 {
        gateway
            .user("c1")
            .posts(padded(&format!("m{number}"), 1_000))
            .await;
    }
    for number in 1..=20 {
        watcher.expect(number, &format!("m{number}")).await;
    }
}

#[tokio::test]
async fn history_goes_over_into_live_without_gap_or_double() {
    let setup = Gateway::setup().config(|config| config.limits.feed_entries = 8);
    let gateway = setup.start().await;
    let user = gateway.user("c1");
    for number in 1..=50 {
        user.says(&format!("m{number}")).await;
    }
    let posting = tokio::spawn(async move {
        for number in 51..=300 {
            user.says(&format!("m{number}")).await;
        }
    });
    let mut watchers = Vec::new();
    for after in [0, 10, 49, 50] {
        watchers.push((after, gateway.watch("c1", after).await));
    }
    for (after, watcher) in &mut watchers {
        for number in *after + 1..=300 {
            watcher.expect(number, &format!("m{number}")).await;
        }
    }
    posting.await.expect("it does not panic");
}

#[tokio::test]
async fn a_watch_from_the_end_shows_only_what_is_new() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("old").await;
    let watcher = Watcher::start(&gateway.wire(), "c1", Some(Start::OnlyNew(true))).await;
    let mut watcher = watcher.expect("it may watch");
    gateway.user("c1").says("new").await;
    watcher.expect(2, "new").await;
    let wrong = Watcher::start(&gateway.wire(), "c1", Some(Start::OnlyNew(false))).await;
    refused(wrong.map(drop), Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn a_watch_without_a_start_begins_with_what_is_kept() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("old").await;
    let watcher = Watcher::start(&gateway.wire(), "c1", None).await;
    watcher.expect("it may watch").expect(1, "old").await;
}

#[tokio::test]
async fn a_watch_from_beyond_the_end_waits_for_what_is_new() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("old").await;
    let mut watcher = gateway.watch("c1", 1_000).await;
    gateway.user("c1").says("new").await;
    watcher.expect(2, "new").await;
}

#[tokio::test]
async fn an_idle_watcher_is_told_its_position() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut watcher = gateway.watch("c1", 0).await;
    watcher.expect(1, "hi").await;
    for sequence in 2..=4 {
        // Not before its time: the next step would be the position otherwise.
        gateway.pass(seconds(14)).await;
        gateway.user("c1").says("more").await;
        watcher.expect_at_once(sequence).await;
        gateway.clock.advance(seconds(15));
        watcher.expect_position(sequence).await;
    }
}

#[tokio::test]
async fn a_conversation_that_is_watched_stays_in_memory_and_the_watch_goes_on() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut watcher = gateway.watch("c1", 1).await;
    gateway.pass(seconds(600)).await;
    gateway.pass_slowly(15).await;
    gateway.user("c1").says("later").await;
    assert_eq!(watcher.entry().await.sequence, 2);
}

#[tokio::test]
async fn a_watch_is_told_that_the_gateway_goes_down_and_continues_after_the_last_seen() {
    let setup = Gateway::setup().config(|config| config.limits.shutdown_grace = seconds(10));
    let mut gateway = setup.start().await;
    gateway.user("c1").says("one").await;
    let mut watcher = gateway.watch("c1", 0).await;
    watcher.expect(1, "one").await;
    gateway.begin_stop();
    let end = watcher.step().await;
    refused(end.map(drop), Code::Unavailable, "SHUTTING_DOWN");
    drop(watcher);
    gateway.stopped().await;
    gateway.start_again().await;
    gateway.user("c1").says("two").await;
    gateway.watch("c1", 1).await.expect(2, "two").await;
}

#[tokio::test]
async fn watching_an_unknown_conversation_is_refused() {
    let gateway = Gateway::start().await;
    let watch = Watcher::start(&gateway.wire(), "nowhere", None).await;
    refused(watch.map(drop), Code::NotFound, "CONVERSATION_UNKNOWN");
}
