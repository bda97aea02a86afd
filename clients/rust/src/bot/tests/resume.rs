//! A session that outlives its stream.

use super::*;

/// Delivers to a bot and loses the stream while its handlers run.
async fn lost_with(stage: &mut Stage, deliveries: &[(u64, &str)]) -> BotLink {
    let mut link = stage.bot().await;
    link.welcome_resumable().await;
    for (id, text) in deliveries {
        link.deliver(*id, text).await;
    }
    while link.heartbeat().await.delivery_ids.len() < deliveries.len() {}
    link.end(Code::Unavailable, "LOST").await;
    stage.bot().await
}

#[tokio::test]
async fn handlers_run_on_and_what_they_answer_is_said_on_the_next_stream() {
    let mut stage = Stage::new().await;
    let settings = Bot::builder("b").credit(16, 1 << 20);
    let _running = run(&stage, settings, handler);
    let mut link = lost_with(&mut stage, &[(1, "wait"), (2, "hang")]).await;
    let hello = link.welcomes(resumed(&[])).await;
    let resume = hello.resume.unwrap_or_default();
    assert_eq!(
        resume,
        Resume {
            session_id: "s1".into(),
            token: "t1".into(),
            delivery_ids: vec![1, 2],
            grace: wire(Duration::from_secs(5)),
        }
    );
    // What it holds and what it grants are the whole.
    assert_eq!(hello.credit.map(|credit| credit.deliveries), Some(14));
    let commit = link.commit().await;
    assert_eq!(commit.activities, [Activity::message("waited")]);
}

#[tokio::test]
async fn an_answer_that_was_not_heard_of_is_said_again() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome_resumable().await;
    link.deliver(1, "hi").await;
    let first = link.commit().await;
    link.deliver(2, "poison").await;
    let given_back = link.nack().await;
    link.end(Code::Unavailable, "LOST").await;
    let mut link = stage.bot().await;
    let hello = link.welcomes(resumed(&[])).await;
    assert_eq!(hello.resume.unwrap_or_default().delivery_ids, [1, 2]);
    assert_eq!(link.commit().await, first);
    assert_eq!(link.nack().await, given_back);
    link.acked(1, AckOutcome::Ok).await;
    link.acked(2, AckOutcome::Ok).await;
    // Once heard of, it is done with.
    link.deliver(3, "hang").await;
    while link.heartbeat().await.delivery_ids != [3] {}
}

#[tokio::test]
async fn a_send_waits_for_its_result_over_the_loss_of_its_stream() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome_resumable().await;
    link.deliver(1, "early").await;
    let said = link.frame().await;
    link.end(Code::Unavailable, "LOST").await;
    let mut link = stage.bot().await;
    link.welcomes(resumed(&[])).await;
    let again = link.frame().await;
    assert_eq!(again, said, "with the same client id");
    let result = SendResult {
        client_id: "first".into(),
        outcome: AckOutcome::Ok.into(),
        appended: Some(Appended {
            sequence: 12,
            ..Appended::default()
        }),
        repeated_send: true,
        frame: 0,
    };
    link.send(GatewayFrame::SendResult(result)).await;
    let commit = link.commit().await;
    assert_eq!(commit.activities, [Activity::message("after 12")]);
}

#[tokio::test]
async fn what_went_to_someone_else_is_dropped_and_the_rest_goes_on() {
    let mut stage = Stage::new().await;
    let settings = Bot::builder("b").credit(8, 1 << 20);
    let _running = run(&stage, settings, handler);
    let mut link = lost_with(&mut stage, &[(1, "hang"), (2, "wait")]).await;
    link.welcomes(resumed(&[1])).await;
    // Its credit comes back with it.
    let granted = link.frame().await;
    assert!(matches!(granted, Some(BotFrame::Credit(credit)) if credit.deliveries == 1));
    assert_eq!(link.commit().await.delivery_id, 2);
    assert_eq!(link.heartbeat().await.delivery_ids, [2]);
}

#[tokio::test]
async fn a_session_that_is_over_drops_all_its_handlers() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = lost_with(&mut stage, &[(1, "wait")]).await;
    let none = Welcome {
        resumed: Resumed::None.into(),
        lost_delivery_ids: vec![1],
        ..resumable()
    };
    link.welcomes(none).await;
    assert_eq!(link.heartbeat().await.delivery_ids, [0; 0]);
    // The one before would have answered first.
    link.deliver(2, "wait").await;
    assert_eq!(link.commit().await.delivery_id, 2);
}

#[tokio::test]
async fn a_bot_that_does_not_resume_begins_anew() {
    let mut stage = Stage::new().await;
    let settings = Bot::builder("b").resume_within(Duration::ZERO);
    let _running = run(&stage, settings, handler);
    let mut link = lost_with(&mut stage, &[(1, "hang")]).await;
    let hello = link.welcome().await;
    assert_eq!(hello.resume, None);
    assert_eq!(hello.credit.map(|credit| credit.deliveries), Some(128));
    assert_eq!(link.heartbeat().await.delivery_ids, [0; 0]);
}

#[tokio::test]
async fn a_session_is_given_up_when_its_time_is_over() {
    let mut stage = Stage::new().await;
    let settings = Bot::builder("b").resume_within(Duration::from_millis(300));
    let _running = run(&stage, settings, handler);
    let mut link = lost_with(&mut stage, &[(1, "hang")]).await;
    // This one is not answered in time.
    let Some(BotFrame::Hello(first)) = link.frame().await else {
        panic!("expected a hello");
    };
    assert_eq!(first.resume.unwrap_or_default().delivery_ids, [1]);
    let mut next = stage.bot().await;
    let hello = next.welcome_resumable().await;
    let resume = hello.resume.unwrap_or_default();
    assert_eq!(
        (resume.session_id.as_str(), resume.delivery_ids),
        ("", vec![])
    );
    assert_eq!(next.heartbeat().await.delivery_ids, [0; 0]);
}

#[tokio::test]
async fn a_bot_that_is_told_to_stop_while_it_is_away_says_its_answers_first() {
    let mut stage = Stage::new().await;
    let running = run(&stage, Bot::builder("b"), handler);
    let mut link = lost_with(&mut stage, &[(1, "wait")]).await;
    let Running { stop, bot } = running;
    let _ = stop.send(());
    link.welcomes(resumed(&[])).await;
    assert!(matches!(link.frame().await, Some(BotFrame::Drain(_))));
    assert_eq!(link.commit().await.delivery_id, 1);
    link.acked(1, AckOutcome::Ok).await;
    link.heartbeat().await;
    drop(link);
    assert!(matches!(bot.await, Ok(Ok(()))));
}

#[tokio::test]
async fn within_a_window_answers_are_said_in_order_whichever_handler_is_first() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b").window(2), handler);
    let mut link = stage.bot().await;
    assert_eq!(link.welcome_resumable().await.window, 2);
    link.deliver_in("c1", 1, "wait").await;
    link.deliver_in("c1", 2, "hi").await;
    assert_eq!(link.commit().await.delivery_id, 1);
    link.acked(1, AckOutcome::Ok).await;
    assert_eq!(link.commit().await.delivery_id, 2);
}

#[tokio::test]
async fn within_a_window_a_turn_that_fails_takes_later_ones_back() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b").window(3), handler);
    let mut link = stage.bot().await;
    link.welcome_resumable().await;
    link.deliver_in("c1", 1, "fail later").await;
    link.deliver_in("c1", 2, "hi").await;
    link.deliver_in("c1", 3, "hang").await;
    assert_eq!(link.heartbeat().await.delivery_ids, [1, 2, 3]);
    assert_eq!(link.nack().await.delivery_ids, [1]);
    link.acked(1, AckOutcome::Ok).await;
    link.deliver_in("c2", 9, "hi").await;
    // What was answered to the second is not said any more.
    assert_eq!(link.commit().await.delivery_id, 9);
}
