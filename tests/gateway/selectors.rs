//! Selectors: what a session takes, by channel and by type.

use turnwire::proto::v1;

use crate::harness::{Gateway, seconds};

fn selecting(selectors: Vec<v1::Selector>) -> impl FnOnce(&mut v1::Hello) {
    |hello| hello.selectors = selectors
}

fn types(types: &[&str]) -> v1::Selector {
    v1::Selector {
        activity_types: types.iter().map(|&kind| kind.to_owned()).collect(),
        ..Default::default()
    }
}

fn channels(channels: &[&str]) -> v1::Selector {
    v1::Selector {
        channel_ids: channels.iter().map(|&id| id.to_owned()).collect(),
        ..Default::default()
    }
}

/// Posts an event.
async fn event(gateway: &Gateway, conversation: &str, name: &str) {
    let user = gateway.user(conversation);
    let event = v1::Activity {
        r#type: Some("event".to_owned()),
        name: Some(name.to_owned()),
        ..Default::default()
    };
    user.posts(user.activity(event)).await;
}

#[tokio::test]
async fn what_a_bot_does_not_select_is_skipped_for_it_without_a_gap() {
    let gateway = Gateway::start().await;
    let selective = gateway
        .bot("echo")
        .hello(selecting(vec![types(&["Message"])]));
    let mut bot = selective.attach().await;
    event(&gateway, "c1", "ignored").await;
    gateway.user("c1").says("hi").await;
    event(&gateway, "c1", "ignored too").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    assert!(!delivery.after_gap);
    bot.acks(&delivery).await;
    bot.expect_nothing().await;
    drop(bot);
    // It is finished for good: a session that takes everything does not get it later.
    let mut all = gateway.bot("echo").instance("two").attach().await;
    all.expect_nothing().await;
    assert_eq!(gateway.log("c1").await.len(), 3, "the log has it");
}

#[tokio::test]
async fn what_waited_while_nobody_was_there_is_for_who_comes() {
    let gateway = Gateway::start().await;
    event(&gateway, "c1", "waits").await;
    let mut all = gateway.bot("echo").attach().await;
    let delivery = all.next_delivery().await;
    assert_eq!(delivery.sequence, 1);
}

#[tokio::test]
async fn sessions_may_share_the_work_by_type() {
    let gateway = Gateway::start().await;
    let events = gateway.bot("echo").instance("events");
    let mut events = events
        .hello(selecting(vec![types(&["event"])]))
        .attach()
        .await;
    let messages = gateway.bot("echo").instance("messages");
    let mut messages = messages
        .hello(selecting(vec![types(&["message"])]))
        .attach()
        .await;
    gateway.user("c1").says("hi").await;
    event(&gateway, "c1", "e").await;
    gateway.user("c1").says("again").await;
    let first = messages.expect("c1", "hi", 1).await;
    events.expect_nothing().await;
    messages.acks(&first).await;
    let second = events.next_delivery().await;
    assert_eq!(second.sequence, 2);
    messages.expect_nothing().await;
    events.acks(&second).await;
    let third = messages.expect("c1", "again", 1).await;
    messages.acks(&third).await;
}

#[tokio::test]
async fn sessions_may_share_the_work_by_channel() {
    let gateway = Gateway::start().await;
    let web = gateway.bot("echo").instance("web");
    let mut web = web
        .hello(selecting(vec![channels(&["web"])]))
        .attach()
        .await;
    let party = gateway.bot("echo").instance("party");
    let mut party = party
        .hello(selecting(vec![channels(&["party"])]))
        .attach()
        .await;
    gateway.user("c1").says("to web").await;
    gateway.user("c1").on("party").says("to party").await;
    web.expect("c1", "to web", 1).await;
    party.expect("c1", "to party", 1).await;
}

#[tokio::test]
async fn one_without_room_that_alone_selects_an_activity_holds_up_no_other() {
    let gateway = Gateway::start().await;
    let full = gateway.bot("echo").instance("events").credit(0, 0);
    let mut full = full
        .hello(selecting(vec![types(&["event"])]))
        .attach()
        .await;
    let mut rest = gateway.bot("echo").instance("messages");
    rest = rest.hello(selecting(vec![types(&["message"])]));
    let mut rest = rest.attach().await;
    event(&gateway, "c1", "waits").await;
    for conversation in ["c2", "c3"] {
        gateway.user(conversation).says("hi").await;
        let delivery = rest.expect(conversation, "hi", 1).await;
        rest.acks(&delivery).await;
    }
    full.credit(1, 1 << 20).await;
    assert_eq!(full.next_delivery().await.sequence, 1);
}

#[tokio::test]
async fn what_a_session_had_waits_for_one_that_takes_it() {
    let gateway = Gateway::start().await;
    let messages = gateway.bot("echo").instance("messages");
    let messages = messages.hello(selecting(vec![types(&["message"])]));
    let mut messages = messages.attach().await;
    let takes_events = || selecting(vec![types(&["event"])]);
    let events = gateway.bot("echo").instance("events");
    let mut events = events.hello(takes_events()).attach().await;
    event(&gateway, "c1", "held").await;
    assert_eq!(events.next_delivery().await.sequence, 1);
    gateway.user("c1").says("behind it").await;
    drop(events);
    messages.expect_nothing().await;
    let events = gateway.bot("echo").instance("events");
    let mut events = events.hello(takes_events()).attach().await;
    gateway.pass(seconds(1)).await;
    let again = events.next_delivery().await;
    assert_eq!((again.sequence, again.attempt), (1, 2));
    events.acks(&again).await;
    messages.expect("c1", "behind it", 1).await;
}

#[tokio::test]
async fn what_a_session_had_and_none_takes_is_a_dead_letter_at_last() {
    let gateway = Gateway::start().await;
    let messages = gateway.bot("echo").instance("messages");
    let messages = messages.hello(selecting(vec![types(&["message"])]));
    let mut messages = messages.attach().await;
    let events = gateway.bot("echo").instance("events");
    let mut events = events
        .hello(selecting(vec![types(&["event"])]))
        .attach()
        .await;
    event(&gateway, "c1", "held").await;
    let held = events.next_delivery().await;
    gateway.user("c1").says("behind it").await;
    events.release(&held).await;
    drop(events);
    messages.expect_nothing().await;
    gateway.pass_slowly(31).await;
    assert!(messages.expect("c1", "behind it", 1).await.after_gap);
    assert_eq!(gateway.metric("turnwire_dead_letters_total").await, 1.0);
}

#[tokio::test]
async fn what_waits_for_a_session_that_drains_goes_to_one_that_comes() {
    let gateway = Gateway::start().await;
    let all = || selecting(vec![types(&["message", "event"])]);
    let mut old = gateway.bot("echo").instance("old").hello(all());
    old = old.credit(1, 1 << 20);
    let mut old = old.attach().await;
    gateway.user("c1").says("held").await;
    old.expect("c1", "held", 1).await;
    gateway.user("c2").says("waits").await;
    old.expect_nothing().await;
    let mut new = gateway
        .bot("echo")
        .instance("new")
        .hello(all())
        .attach()
        .await;
    new.expect("c2", "waits", 1).await;
}

#[tokio::test]
async fn what_waits_for_one_without_room_goes_to_another_that_has_some() {
    for with_room in ["one", "two"] {
        let gateway = Gateway::start().await;
        let mut bots = Vec::new();
        for instance in ["one", "two"] {
            let bot = gateway.bot("echo").instance(instance).credit(0, 0);
            let bot = bot.hello(selecting(vec![types(&["message"])]));
            bots.push(bot.attach().await);
        }
        gateway.user("c1").says("hi").await;
        gateway.settle().await;
        let bot = &mut bots[usize::from(with_room == "two")];
        bot.credit(1, 1 << 20).await;
        gateway.pass(seconds(1)).await;
        bot.expect("c1", "hi", 1).await;
    }
}

#[tokio::test]
async fn another_bot_is_not_concerned() {
    let gateway = Gateway::start().await;
    let none = gateway
        .bot("echo")
        .hello(selecting(vec![channels(&["nowhere"])]));
    let mut none = none.attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("to echo").await;
    gateway.user("c1").on("second").says("to other").await;
    other.expect("c1", "to other", 1).await;
    none.expect_nothing().await;
}

#[tokio::test]
async fn a_session_that_is_away_still_says_what_its_bot_takes() {
    let gateway = Gateway::start().await;
    let away = gateway.bot("echo").instance("events").hello(|hello| {
        hello.selectors = vec![types(&["event"])];
        hello.resume = Some(v1::Resume::default());
    });
    let away = away.attach().await;
    let messages = gateway.bot("echo").instance("messages");
    let mut messages = messages
        .hello(selecting(vec![types(&["message"])]))
        .attach()
        .await;
    let welcome = away.welcome.clone();
    gateway.cut(away).await;
    event(&gateway, "c1", "waits").await;
    messages.expect_nothing().await;
    gateway.pass(seconds(10)).await;
    let back = gateway.bot("echo").instance("events").hello(|hello| {
        hello.selectors = vec![types(&["event"])];
        hello.resume = Some(v1::Resume {
            session_id: welcome.session_id,
            token: welcome.resume_token,
            ..Default::default()
        });
    });
    let mut back = back.attach().await;
    assert_eq!(back.next_delivery().await.sequence, 1);
}

#[tokio::test]
async fn too_many_selectors_and_empty_names_are_refused() {
    let gateway = Gateway::start().await;
    for selectors in [
        vec![types(&[]); 33],
        vec![types(&["message"; 33])],
        vec![types(&[""])],
        vec![channels(&[&"x".repeat(600)])],
    ] {
        let refused = gateway
            .bot("echo")
            .hello(selecting(selectors))
            .try_attach()
            .await;
        let refused = refused.err().expect("it is refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
