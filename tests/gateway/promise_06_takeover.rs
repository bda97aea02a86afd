//! Promise 6: a second session of an instance takes over, and one that comes back goes on.

use turnwire::proto::v1;
use turnwire::proto::v1::partial::Content;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::proto::v1::{AckOutcome, CancelReason, Resumed};

use crate::harness::{Bot, Gateway, info, seconds, typing};

/// Asks that a session can be resumed.
fn resumable(hello: &mut v1::Hello) {
    hello.resume = Some(v1::Resume::default());
}

/// Asks to go on with a session whose Welcome this is, holding these.
fn going_on(welcome: &v1::Welcome, held: &[&v1::Delivery]) -> impl FnOnce(&mut v1::Hello) {
    let resume = v1::Resume {
        session_id: welcome.session_id.clone(),
        token: welcome.resume_token.clone(),
        delivery_ids: held.iter().map(|delivery| delivery.delivery_id).collect(),
        grace: None,
    };
    |hello| hello.resume = Some(resume)
}

/// Loses a stream without saying goodbye.
async fn cut(gateway: &Gateway, bot: Bot) -> v1::Welcome {
    let welcome = bot.welcome.clone();
    gateway.cut(bot).await;
    welcome
}

#[tokio::test]
async fn a_second_hello_of_an_instance_wins_and_the_older_stream_is_told() {
    let gateway = Gateway::start().await;
    let mut older = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let held = older.expect("c1", "hi", 1).await;
    let mut newer = gateway.bot("echo").attach().await;
    older
        .expect_end(tonic::Code::Aborted, "SESSION_REPLACED")
        .await;
    let again = newer.expect("c1", "hi", 2).await;
    assert!(again.fence > held.fence);
    newer.acks(&again).await;
}

#[tokio::test]
async fn a_session_that_comes_back_keeps_what_it_holds_and_nobody_else_gets_it() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    let mut other = gateway
        .bot("echo")
        .instance("two")
        .credit(0, 0)
        .attach()
        .await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    let welcome = cut(&gateway, bot).await;
    other.credit(10, 1 << 20).await;
    gateway.pass(seconds(29)).await;
    other.expect_nothing().await;

    let back = gateway.bot("echo").hello(going_on(&welcome, &[&held]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::Full);
    assert_eq!(back.welcome.session_id, welcome.session_id);
    assert!(back.welcome.lost_delivery_ids.is_empty());
    back.expect_nothing().await;
    back.commits(&held, &["hello"]).await;
    // Its grace was the old stream's, and is over with it.
    gateway.pass(seconds(60)).await;
    gateway.user("c1").says("more").await;
    let next = back.expect("c1", "more", 1).await;
    assert_eq!(next.fence, held.fence, "the conversation stayed");
}

#[tokio::test]
async fn a_session_that_does_not_come_back_in_its_grace_is_over() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    let welcome = cut(&gateway, bot).await;
    gateway.pass(seconds(30)).await;
    let again = other.expect("c1", "hi", 2).await;

    let late = gateway.bot("echo").hello(going_on(&welcome, &[&held]));
    let mut late = late.attach().await;
    assert_eq!(late.welcome.resumed(), Resumed::None);
    assert_ne!(late.welcome.session_id, welcome.session_id);
    assert_eq!(late.welcome.lost_delivery_ids, [held.delivery_id]);
    assert_eq!(late.ack(&held).await, AckOutcome::Stale);
    other.acks(&again).await;
}

#[tokio::test]
async fn a_client_may_ask_for_a_shorter_grace() {
    let gateway = Gateway::start().await;
    let brief = |hello: &mut v1::Hello| {
        hello.resume = Some(v1::Resume {
            grace: Some(prost_types::Duration {
                seconds: 2,
                nanos: 0,
            }),
            ..Default::default()
        });
    };
    let mut bot = gateway.bot("echo").hello(brief).attach().await;
    assert_eq!(bot.welcome.resume_grace.map(|grace| grace.seconds), Some(2));
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    cut(&gateway, bot).await;
    other.expect_nothing().await;
    gateway.pass(seconds(2)).await;
    other.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn a_session_that_cannot_be_resumed_gives_back_at_once() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    assert!(bot.welcome.resume_token.is_empty() && bot.welcome.resume_grace.is_none());
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    drop(bot);
    other.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn what_was_on_its_way_when_the_stream_was_lost_comes_again_without_counting() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("seen").await;
    gateway.user("c2").says("lost").await;
    let seen = bot.expect("c1", "seen", 1).await;
    bot.expect("c2", "lost", 1).await;
    let welcome = cut(&gateway, bot).await;
    let back = gateway.bot("echo").hello(going_on(&welcome, &[&seen]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::Full);
    let again = back.expect("c2", "lost", 1).await;
    back.acks(&again).await;
    back.acks(&seen).await;
}

#[tokio::test]
async fn what_a_session_lost_meanwhile_is_listed_and_the_rest_goes_on() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("early").await;
    let early = bot.expect("c1", "early", 1).await;
    gateway.pass(seconds(40)).await;
    gateway.user("c2").says("late").await;
    let late = bot.expect("c2", "late", 1).await;
    let welcome = cut(&gateway, bot).await;
    // The deadline of the first passes while the session is away.
    gateway.pass(seconds(20)).await;
    let back = gateway
        .bot("echo")
        .hello(going_on(&welcome, &[&early, &late]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::Partial);
    assert_eq!(back.welcome.lost_delivery_ids, [early.delivery_id]);
    back.acks(&late).await;
    let again = back.expect("c1", "early", 2).await;
    back.acks(&again).await;
}

#[tokio::test]
async fn a_wrong_token_or_another_instance_resumes_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    let welcome = cut(&gateway, bot).await;

    let mut stranger = going_on_with(&gateway, "two", &welcome, &held).await;
    assert_eq!(stranger.welcome.resumed(), Resumed::None);
    stranger.expect_nothing().await;
    drop(stranger);
    gateway.settle().await;

    let mut forged = welcome.clone();
    forged.resume_token = "0".repeat(forged.resume_token.len());
    let mut thief = going_on_with(&gateway, "one", &forged, &held).await;
    assert_eq!(thief.welcome.resumed(), Resumed::None);
    // It has taken over as any newer session of the instance does.
    thief.expect("c1", "hi", 2).await;
}

async fn going_on_with(
    gateway: &Gateway,
    instance: &str,
    welcome: &v1::Welcome,
    held: &v1::Delivery,
) -> Bot {
    let opening = gateway.bot("echo").instance(instance);
    opening.hello(going_on(welcome, &[held])).attach().await
}

#[tokio::test]
async fn a_stream_that_is_still_open_ends_when_its_session_is_resumed_elsewhere() {
    let gateway = Gateway::start().await;
    let mut half_dead = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = half_dead.expect("c1", "hi", 1).await;
    let welcome = half_dead.welcome.clone();
    let back = gateway.bot("echo").hello(going_on(&welcome, &[&held]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::Full);
    half_dead
        .expect_end(tonic::Code::Aborted, "SESSION_REPLACED")
        .await;
    drop(half_dead);
    gateway.settle().await;
    gateway.pass(seconds(31)).await;
    back.acks(&held).await;
}

#[tokio::test]
async fn a_session_that_is_away_gets_nothing_and_its_conversations_go_on_elsewhere() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("one").await;
    let first = bot.expect("c1", "one", 1).await;
    bot.acks(&first).await;
    let welcome = cut(&gateway, bot).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    gateway.user("c1").says("two").await;
    let second = other.expect("c1", "two", 1).await;
    assert!(second.fence > first.fence);
    let mut back = gateway
        .bot("echo")
        .hello(going_on(&welcome, &[]))
        .attach()
        .await;
    assert_eq!(back.welcome.resumed(), Resumed::Full);
    back.expect_nothing().await;
    other.acks(&second).await;
}

#[tokio::test]
async fn a_bot_that_closes_its_side_is_not_waited_for() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    bot.finish();
    other.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn sessions_do_not_outlive_the_gateway_and_nothing_is_lost_with_them() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    let welcome = bot.welcome.clone();
    gateway.crash().await;
    drop(bot);
    let back = gateway.bot("echo").hello(going_on(&welcome, &[&held]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::None);
    assert_eq!(back.welcome.lost_delivery_ids, [held.delivery_id]);
    let again = back.expect("c1", "hi", 2).await;
    back.acks(&again).await;
}

#[tokio::test]
async fn a_session_that_is_away_costs_a_place_only_until_its_grace_is_over() {
    // One is the probe that the tests wait with.
    let gateway = Gateway::setup().config(|config| config.limits.sessions = 2);
    let gateway = gateway.start().await;
    let bot = gateway.bot("echo").hello(resumable).attach().await;
    cut(&gateway, bot).await;
    let refused = gateway.bot("echo").instance("two").try_attach().await;
    assert!(refused.is_err());
    gateway.pass(seconds(30)).await;
    gateway.bot("echo").instance("two").attach().await;
}

#[tokio::test]
async fn what_a_resume_cannot_mean_is_refused() {
    let gateway = Gateway::start().await;
    let negative = |hello: &mut v1::Hello| {
        hello.resume = Some(v1::Resume {
            grace: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            ..Default::default()
        });
    };
    let refused = gateway.bot("echo").hello(negative).try_attach().await;
    let refused = refused.err().expect("it is refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    // A second Hello resumes nothing.
    let mut bot = gateway.bot("echo").attach().await;
    bot.write(Asked::Hello(v1::Hello::default()));
    bot.expect_error("HELLO_REPEATED").await;
}

#[tokio::test]
async fn a_stream_goes_on_over_a_resume() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("why?").await;
    let why = bot.expect("c1", "why?", 1).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&why, "Be").await;
    let first = live.snapshot("Be").await;
    let welcome = cut(&gateway, bot).await;
    // Longer than the grace of a reply that nobody holds, which this is not.
    gateway.pass(seconds(20)).await;

    let back = gateway.bot("echo").hello(going_on(&welcome, &[&why]));
    let mut back = back.attach().await;
    assert_eq!(back.welcome.resumed(), Resumed::Full);
    back.streams(&why, "cause").await;
    let second = live.snapshot("Because").await;
    assert_eq!((&second.id, second.sequence), (&first.id, Some(2)));
    // It is told on its new stream what concerns the reply.
    gateway.user("c1").says("never mind").await;
    back.expect_cancel(&why, 0, CancelReason::Superseded).await;
    live.expect(2, "never mind").await;
    back.commits(&why, &["Because."]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("the end of a reply").id, first.id);
    assert_eq!(gateway.metric("turnwire_streams").await, 0.0);
    back.expect_quiet().await;
}

#[tokio::test]
async fn who_comes_back_is_told_what_it_missed_of_its_replies() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("why?").await;
    let why = bot.expect("c1", "why?", 1).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&why, "Be").await;
    live.snapshot("Be").await;
    let welcome = cut(&gateway, bot).await;
    gateway.user("c1").says("never mind").await;
    let back = gateway.bot("echo").hello(going_on(&welcome, &[&why]));
    let mut back = back.attach().await;
    back.expect_cancel(&why, 0, CancelReason::Superseded).await;
    back.expect_quiet().await;
}

#[tokio::test]
async fn what_the_client_lost_leaves_its_reply_to_the_next_attempt() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("why?").await;
    let why = bot.expect("c1", "why?", 1).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&why, "Be").await;
    let first = live.snapshot("Be").await;
    let welcome = cut(&gateway, bot).await;
    let back = gateway.bot("echo").hello(going_on(&welcome, &[]));
    let mut back = back.attach().await;
    let again = back.expect("c1", "why?", 1).await;
    gateway.pass(seconds(1)).await;
    back.streams(&again, "So").await;
    let second = live.snapshot("So").await;
    assert_eq!((second.id, second.sequence), (first.id, Some(2)));
}

#[tokio::test]
async fn texts_of_a_session_count_over_a_resume() {
    let setup = Gateway::setup().config(|config| config.limits.session_stream_bytes = 64 << 10);
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    for conversation in ["c1", "c2"] {
        gateway.user(conversation).says("why?").await;
    }
    let one = bot.next_delivery().await;
    let two = bot.next_delivery().await;
    bot.streams(&one, &"x".repeat(40 << 10)).await;
    let welcome = cut(&gateway, bot).await;
    let back = gateway.bot("echo").hello(going_on(&welcome, &[&one, &two]));
    let mut back = back.attach().await;
    back.write_piece(&two, 0, Content::Append("y".repeat(40 << 10)));
    back.expect_error("STREAMS_FULL").await;
    // Its end makes room.
    back.commits(&one, &["x"]).await;
    back.write_piece(&two, 0, Content::Text("y".repeat(40 << 10)));
    back.barrier().await;
}

#[tokio::test]
async fn typing_is_not_told_to_a_session_that_is_away() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    gateway.user("c1").posts(typing()).await;
    bot.ephemeral().await;
    let welcome = cut(&gateway, bot).await;
    gateway.user("c1").posts(typing()).await;
    let mut other = gateway.bot("echo").instance("two").attach().await;
    other.expect_quiet().await;
    gateway.user("c1").posts(typing()).await;
    other.ephemeral().await;

    let back = gateway.bot("echo").hello(going_on(&welcome, &[&held]));
    let mut back = back.attach().await;
    back.expect_quiet().await;
    gateway.user("c1").posts(typing()).await;
    back.ephemeral().await;
    other.expect_quiet().await;
}
