//! Partials are cumulative on the way out, paced, never logged and never replayed; the final one is an
//! ordinary message. What breaks off is closed as that, or goes on with the next attempt.

use std::time::Duration;

use turnwire::proto::v1;
use turnwire::proto::v1::attach_request::Frame as AdapterFrame;
use turnwire::proto::v1::partial::Content;
use turnwire::proto::v1::{Activity, CancelReason, Delivery};

use crate::harness::{Bot, Gateway, Watcher, info, message, name, seconds, text};

const INTERVAL: Duration = Duration::from_millis(250);

/// A user has asked something, and a watcher is there. The bot has the delivery.
async fn asked(gateway: &Gateway) -> (Bot, Delivery, Watcher) {
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c").says("why?").await;
    let why = bot.expect("c", "why?", 1).await;
    let live = gateway.watch_live("c").await;
    (bot, why, live)
}

fn append(text: &str) -> Content {
    Content::Append(text.to_owned())
}

/// The activity of the next step, which must be the end of a reply that broke off.
async fn broken_off(live: &mut Watcher) -> (Activity, String) {
    let shown = live.ephemeral().await;
    let activity = *shown.activity.expect("an activity");
    let info = info(&activity).expect("a part of a reply");
    assert_eq!(
        (info.kind.as_str(), info.result.as_deref()),
        ("final", Some("error"))
    );
    (activity, info.id)
}

#[tokio::test]
async fn pieces_are_shown_as_all_of_the_text_so_far() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    let first = live.snapshot("Be").await;
    assert_eq!(
        (first.kind.as_str(), first.sequence),
        ("streaming", Some(1))
    );
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    let second = live.snapshot("Because").await;
    assert_eq!((second.id, second.sequence), (first.id, Some(2)));
    gateway.pass(INTERVAL).await;
    bot.write_piece(&why, 0, Content::Text("No idea".to_owned()));
    assert_eq!(live.snapshot("No idea").await.sequence, Some(3));
}

#[tokio::test]
async fn the_first_snapshot_names_the_reply_and_says_what_it_answers() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    let shown = live.ephemeral().await;
    let first = shown.activity.expect("an activity");
    let asked = gateway
        .log("c")
        .await
        .remove(0)
        .activity
        .expect("an activity");
    assert_eq!(
        first.id.as_deref(),
        info(&first).map(|info| info.id).as_deref()
    );
    assert_eq!(first.reply_to_id, asked.id);
    assert_eq!(
        first.recipient.and_then(|user| user.id).as_deref(),
        Some("ann")
    );
    assert_eq!(first.from.and_then(|bot| bot.id).as_deref(), Some("echo"));
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    let second = live.ephemeral().await.activity.expect("an activity");
    assert_ne!(second.id, first.id, "each has an id of its own");
}

#[tokio::test]
async fn snapshots_are_paced_and_the_newest_is_not_forgotten() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    for piece in ["a", "b", "c", "d"] {
        bot.streams(&why, piece).await;
    }
    live.snapshot("a").await;
    gateway.pass(INTERVAL - Duration::from_millis(1)).await;
    bot.streams(&why, "e").await;
    gateway.pass(Duration::from_millis(1)).await;
    assert_eq!(live.snapshot("abcde").await.sequence, Some(2));
}

#[tokio::test]
async fn a_channel_may_be_slower() {
    let teams = "[[channels]]\nid = 'teams'\nkind = 'grpc'\nbot = 'echo'\noutbound = 'watch'\n\
         stream_interval = '1500ms'\n";
    let gateway = Gateway::setup().and(teams).start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c").on("teams").says("why?").await;
    let why = bot.expect("c", "why?", 1).await;
    let mut live = Watcher::live(&gateway.wire(), "teams", "c").await;
    bot.streams(&why, "a").await;
    live.snapshot("a").await;
    bot.streams(&why, "b").await;
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "c").await;
    gateway.pass(Duration::from_millis(1_250)).await;
    assert_eq!(live.snapshot("abc").await.sequence, Some(2));
}

#[tokio::test]
async fn the_final_one_is_an_ordinary_message_that_says_which_reply_it_is() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    let first = live.snapshot("Be").await;
    // What was not shown is not shown any more.
    bot.streams(&why, "ca").await;
    bot.commits(&why, &["Because", "Anything else?"]).await;
    let entry = live.entry().await;
    let activity = entry.activity.clone().expect("an activity");
    let last = info(&activity).expect("the end of a reply");
    assert_eq!((last.id, last.kind.as_str()), (first.id, "final"));
    assert_eq!((last.sequence, last.result), (None, None));
    live.expect(3, "Anything else?").await;
    gateway.pass(seconds(60)).await;
    bot.says("c", "later").await;
    live.expect(4, "later").await;
    assert_eq!(
        gateway.texts("c").await,
        ["why?", "Because", "Anything else?", "later"]
    );
    let kept = gateway.log("c").await;
    // The log knows besides what became of it.
    assert_eq!(
        (kept[1].sequence, &kept[1].activity),
        (entry.sequence, &entry.activity),
        "the log has it as it was shown"
    );
    assert_eq!(
        info(kept[2].activity.as_deref().expect("an activity")),
        None
    );
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_send_that_cites_the_delivery_finishes_a_reply_and_others_do_not() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    live.snapshot("Be").await;
    bot.says("c", "by the way").await;
    let aside = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&aside), None, "it answers nothing");
    bot.answers(&why, "Because").await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").kind, "final");
    bot.answers(&why, "More").await;
    let more = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&more), None, "there is no other reply");
    bot.acks(&why).await;
}

#[tokio::test]
async fn a_repeated_send_finishes_nothing_more() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "one").await;
    let one = live.snapshot("one").await;
    let send = v1::Send {
        client_id: "k".to_owned(),
        conversation: None,
        activity: Some(message("one").into()),
        delivery_id: why.delivery_id,
    };
    let first = bot.send(send.clone()).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, one.id);
    bot.streams(&why, "two").await;
    let two = live.snapshot("two").await;
    assert_ne!(two.id, one.id, "a new reply");
    let again = bot.send(send).await;
    assert!(again.repeated_send && again.appended == first.appended);
    bot.commits(&why, &["two"]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, two.id);
}

#[tokio::test]
async fn a_turn_may_stream_several_replies_which_are_finished_in_their_order() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.write_piece(&why, 7, append("first"));
    let first = live.snapshot("first").await;
    bot.write_piece(&why, 3, append("second"));
    let second = live.snapshot("second").await;
    assert_ne!(first.id, second.id);
    bot.commits(&why, &["first.", "second."]).await;
    for expected in [first, second] {
        let whole = live.entry().await.activity.expect("an activity");
        assert_eq!(info(&whole).expect("a reply").id, expected.id);
    }
}

#[tokio::test]
async fn a_message_with_a_streaminfo_of_its_own_is_left_alone() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    let shown = live.ephemeral().await.activity.expect("an activity");
    let own = Activity {
        entities: shown.entities.clone(),
        ..message("mine")
    };
    bot.commit_all(why.delivery_id, vec![own]);
    let mine = live.entry().await.activity.expect("an activity");
    assert_eq!(mine.entities, shown.entities);
    broken_off(&mut live).await;
    bot.outcomes(&[why.delivery_id]).await;
}

#[tokio::test]
async fn a_status_line_stands_until_there_is_text() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.write_piece(&why, 0, Content::Informative("Searching…".to_owned()));
    assert_eq!(live.snapshot("Searching…").await.kind, "informative");
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "Found").await;
    assert_eq!(live.snapshot("Found").await.kind, "streaming");
    bot.commits(&why, &["Found it"]).await;
    live.expect(2, "Found it").await;
}

#[tokio::test]
async fn what_is_left_when_the_turn_is_over_is_closed_as_broken_off() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "The answer").await;
    let first = live.snapshot("The answer").await;
    bot.streams(&why, " is").await;
    bot.acks(&why).await;
    let (end, id) = broken_off(&mut live).await;
    assert_eq!((end.r#type.as_deref(), id), (Some("message"), first.id));
    assert_eq!(end.text.as_deref(), Some("The answer is…"));
    assert_eq!(gateway.texts("c").await, ["why?"], "it is not logged");
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_poisoned_turn_breaks_its_reply_off_at_once() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "The answer").await;
    live.snapshot("The answer").await;
    bot.poison(&why, "no").await;
    broken_off(&mut live).await;
}

#[tokio::test]
async fn a_reply_of_which_nothing_but_a_status_was_shown_vanishes() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.write_piece(&why, 0, Content::Informative("Searching…".to_owned()));
    live.snapshot("Searching…").await;
    bot.acks(&why).await;
    let (end, _) = broken_off(&mut live).await;
    assert_eq!(
        (end.r#type.as_deref(), end.text.as_deref()),
        (Some("typing"), Some(""))
    );
}

#[tokio::test]
async fn the_next_attempt_goes_on_in_the_same_place() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "The first").await;
    let first = live.snapshot("The first").await;
    drop(bot);
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    let again = bot.expect("c", "why?", 2).await;
    gateway.pass(INTERVAL).await;
    bot.streams(&again, "The second").await;
    let second = live.snapshot("The second").await;
    assert_eq!((&second.id, second.sequence), (&first.id, Some(2)));
    // Long after the grace: it is in work.
    gateway.pass(seconds(30)).await;
    bot.commits(&again, &["The second."]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, first.id);
}

#[tokio::test]
async fn a_next_attempt_that_does_not_stream_finishes_what_was_left() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "The first").await;
    let first = live.snapshot("The first").await;
    bot.retry(&why, Some(seconds(1))).await;
    bot.expect_cancel(&why, 0, CancelReason::Stale).await;
    gateway.pass(seconds(1)).await;
    let again = bot.expect("c", "why?", 2).await;
    bot.commits(&again, &["At last"]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, first.id);
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_broken_off_after_the_grace() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "The first").await;
    let first = live.snapshot("The first").await;
    bot.retry(&why, Some(seconds(60))).await;
    bot.expect_cancel(&why, 0, CancelReason::Stale).await;
    gateway.pass(seconds(10)).await;
    assert_eq!(broken_off(&mut live).await.1, first.id);
    gateway.pass(seconds(50)).await;
    let again = bot.expect("c", "why?", 2).await;
    bot.streams(&again, "The second").await;
    let second = live.snapshot("The second").await;
    assert_ne!(second.id, first.id);
    assert_eq!(second.sequence, Some(1));
}

#[tokio::test]
async fn a_deadline_that_passes_leaves_the_reply_to_the_next_attempt() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "slow").await;
    let first = live.snapshot("slow").await;
    gateway.pass(seconds(60)).await;
    bot.expect_cancel(&why, 0, CancelReason::Stale).await;
    let again = bot.expect("c", "why?", 2).await;
    // The zombie's pieces are dropped, and it was told already.
    bot.streams(&why, "er").await;
    bot.streams(&again, "quick").await;
    assert_eq!(live.snapshot("quick").await.id, first.id);
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_stale_piece_is_dropped_and_its_sender_told_once() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.acks(&why).await;
    for _ in 0..3 {
        bot.streams(&why, "late").await;
    }
    bot.expect_cancel(&why, 0, CancelReason::Stale).await;
    bot.expect_quiet().await;
    let mut thief = gateway.bot("echo").instance("thief").attach().await;
    gateway.user("c").says("what?").await;
    let what = bot.expect("c", "what?", 1).await;
    live.expect(2, "what?").await;
    thief.streams(&what, "mine").await;
    thief.expect_cancel(&what, 0, CancelReason::Stale).await;
    bot.streams(&what, "yours").await;
    live.snapshot("yours").await;
}

#[tokio::test]
async fn a_user_stops_a_reply_and_the_final_one_is_still_taken() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "On and").await;
    let first = live.snapshot("On and").await;
    let stop = |id: &str| {
        let id = prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(id.to_owned())),
        };
        let value = prost_types::Struct {
            fields: [("streamId".to_owned(), id)].into(),
        };
        Activity {
            r#type: Some("event".to_owned()),
            name: Some("turnwire/stopStreaming".to_owned()),
            value: Some(prost_types::Value {
                kind: Some(prost_types::value::Kind::StructValue(value)),
            }),
            ..Default::default()
        }
    };
    gateway.user("c").posts(stop("another")).await;
    bot.expect_quiet().await;
    gateway.user("c").posts(stop(&first.id)).await;
    bot.expect_cancel(&why, 0, CancelReason::UserStopped).await;
    live.entry().await;
    live.entry().await;
    gateway.pass(INTERVAL).await;
    bot.streams(&why, " on").await;
    bot.commits(&why, &["On and."]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, first.id);
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_user_who_goes_on_talking_supersedes_a_reply_which_may_go_on() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    live.snapshot("Be").await;
    gateway.user("c").says("never mind").await;
    gateway.user("c").says("really").await;
    bot.expect_cancel(&why, 0, CancelReason::Superseded).await;
    bot.expect_quiet().await;
    live.expect(2, "never mind").await;
    live.expect(3, "really").await;
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    live.snapshot("Because").await;
}

#[tokio::test]
async fn an_adapter_that_can_show_it_is_shown_a_reply_and_may_stop_it() {
    let kiosk = "[[channels]]\nid = 'kiosk'\nkind = 'grpc'\nbot = 'echo'\n\
         capabilities = ['streaming']\n";
    let gateway = Gateway::setup().and(kiosk).start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut adapter = gateway.adapter("kiosk").attach().await;
    gateway.user("c").on("kiosk").says("why?").await;
    let why = bot.expect("c", "why?", 1).await;
    bot.streams(&why, "Be").await;
    let shown = adapter.ephemeral().await;
    assert_eq!(text(&shown.activity), "Be");
    let first = info(shown.activity.as_deref().expect("an activity")).expect("a reply");
    adapter.write(AdapterFrame::StreamStopped(v1::StreamStopped {
        conversation: Some(name("kiosk", "c")),
        stream_id: first.id.clone(),
    }));
    bot.expect_cancel(&why, 0, CancelReason::UserStopped).await;
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    adapter.expect_quiet().await;
    bot.commits(&why, &["Be."]).await;
    let outbound = adapter.expect("Be.", 1).await;
    let whole = outbound.activity.as_deref().expect("an activity");
    assert_eq!(info(whole).expect("a reply").id, first.id);
    adapter.delivered(&outbound).await;
    adapter.write(AdapterFrame::StreamStopped(v1::StreamStopped::default()));
    adapter.expect_error("FRAME_INVALID").await;
}

#[tokio::test]
async fn where_nobody_watches_the_message_is_all_there_is() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c").on("queue").says("why?").await;
    let why = bot.expect("c", "why?", 1).await;
    bot.streams(&why, "Be").await;
    bot.commits(&why, &["Because"]).await;
    let outbound = adapter.expect("Because", 1).await;
    let whole = outbound.activity.as_deref().expect("an activity");
    assert_eq!(info(whole), None, "nobody has seen it grow");
    adapter.delivered(&outbound).await;
    adapter.expect_quiet().await;
}

#[tokio::test]
async fn who_comes_while_a_reply_grows_is_shown_all_of_it_with_the_next_piece() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c").says("why?").await;
    let why = bot.expect("c", "why?", 1).await;
    bot.streams(&why, "Be").await;
    let mut live = gateway.watch_live("c").await;
    bot.streams(&why, "cause").await;
    assert_eq!(live.snapshot("Because").await.sequence, Some(1));
}

#[tokio::test]
async fn a_reply_is_as_long_as_an_activity_and_no_longer() {
    let setup = Gateway::setup().config(|config| {
        config.limits.activity_bytes = 2_048;
        config.limits.channel_data_bytes = 1_024;
    });
    let gateway = setup.start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, &"a".repeat(1_000)).await;
    live.snapshot(&"a".repeat(1_000)).await;
    gateway.pass(INTERVAL).await;
    bot.write_piece(&why, 0, append(&"b".repeat(1_500)));
    let error = bot.expect_error("ACTIVITY_TOO_LARGE").await;
    assert_eq!(error.delivery_id, why.delivery_id);
    bot.write_piece(&why, 0, append(&"c".repeat(3_000)));
    bot.expect_error("ACTIVITY_TOO_LARGE").await;
    // With a piece missing, what follows makes no sense until the whole is replaced.
    bot.streams(&why, "c").await;
    bot.write_piece(&why, 0, Content::Text("short".to_owned()));
    live.snapshot("short").await;
    bot.write_piece(&why, 0, Content::Text(String::new()));
    bot.write(v1::subscribe_request::Frame::Partial(v1::Partial {
        delivery_id: why.delivery_id,
        ..Default::default()
    }));
    bot.expect_error("FRAME_INVALID").await;
}

#[tokio::test]
async fn replies_have_limits_in_a_delivery_and_in_a_session() {
    let setup = Gateway::setup().config(|config| {
        config.limits.delivery_streams = 2;
        config.limits.session_stream_bytes = 1_000;
    });
    let gateway = setup.start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    for stream in 0..2 {
        bot.write_piece(&why, stream, append(&"a".repeat(400)));
        live.snapshot(&"a".repeat(400)).await;
    }
    bot.write_piece(&why, 2, append("a"));
    let error = bot.expect_error("STREAMS_FULL").await;
    assert_eq!(error.metadata["limit"], "delivery_streams=2");
    bot.write_piece(&why, 1, append(&"a".repeat(201)));
    let error = bot.expect_error("STREAMS_FULL").await;
    assert_eq!(error.metadata["limit"], "session_stream_bytes=1000");
    // What ends makes room.
    bot.answers(&why, "first").await;
    live.entry().await;
    bot.write_piece(&why, 2, append(&"b".repeat(600)));
    live.snapshot(&"b".repeat(600)).await;
    assert_eq!(gateway.metric("turnwire_streams").await, 2.0);
    bot.commits(&why, &["second", "third"]).await;
    assert_eq!(gateway.metric("turnwire_streams").await, 0.0);
}

#[tokio::test]
async fn a_write_that_fails_ends_no_reply() {
    let gateway = Gateway::start().await;
    let (mut bot, why, mut live) = asked(&gateway).await;
    bot.streams(&why, "Be").await;
    let first = live.snapshot("Be").await;
    gateway.memory().fail_next_commits(1);
    bot.commit_all(why.delivery_id, vec![message("Because")]);
    bot.expect_error("STORE_FAILED").await;
    let end = live.step().await.expect_err("followers are sent away");
    assert_eq!(end.code(), tonic::Code::Unavailable);
    let mut live = gateway.watch_live("c").await;
    gateway.pass(seconds(1)).await;
    let again = bot.next_delivery().await;
    bot.streams(&again, "Because").await;
    let second = live.snapshot("Because").await;
    assert_eq!((&second.id, second.sequence), (&first.id, Some(2)));
    bot.commits(&again, &["Because"]).await;
    let whole = live.entry().await.activity.expect("an activity");
    assert_eq!(info(&whole).expect("a reply").id, first.id);
}

#[tokio::test]
async fn the_welcome_says_how_often_a_reply_is_shown() {
    let setup = Gateway::setup().config(|config| config.limits.stream_interval = seconds(2));
    let gateway = setup.start().await;
    let bot = gateway.bot("echo").attach().await;
    let interval = bot.welcome.partial_interval.expect("an interval");
    assert_eq!(interval.seconds, 2);
}
