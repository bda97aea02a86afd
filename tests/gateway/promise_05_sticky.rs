//! Promise 5: a conversation stays with its session, and moves only between turns.

use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;

use crate::harness::{Bot, Gateway, seconds};

/// Two sessions, of which the one that is returned first has the conversation `c1`.
async fn holder_and_other(gateway: &Gateway) -> (Bot, Bot, v1::Delivery) {
    let mut holder = gateway.bot("echo").instance("holder").attach().await;
    gateway.user("c1").says("first").await;
    let first = holder.expect("c1", "first", 1).await;
    holder.acks(&first).await;
    let other = gateway.bot("echo").instance("other").attach().await;
    (holder, other, first)
}

#[tokio::test]
async fn a_conversation_stays_with_its_session_while_others_come_and_go() {
    let gateway = Gateway::start().await;
    let (mut holder, mut other, first) = holder_and_other(&gateway).await;
    for instance in ["a", "b", "c", "d"] {
        let passing = gateway.bot("echo").instance(instance).attach().await;
        gateway.user("c1").says(instance).await;
        let delivery = holder.expect("c1", instance, 1).await;
        assert_eq!(delivery.fence, first.fence);
        holder.acks(&delivery).await;
        drop(passing);
        gateway.settle().await;
    }
    other.expect_nothing().await;
}

#[tokio::test]
async fn it_stays_through_ten_idle_minutes_out_of_memory_and_not_longer() {
    let gateway = Gateway::start().await;
    let (mut holder, other, first) = holder_and_other(&gateway).await;
    drop(other);
    // So many others that one of them ranks before the holder.
    let mut others = Vec::new();
    for instance in 0..20 {
        let instance = format!("other-{instance}");
        others.push(gateway.bot("echo").instance(&instance).attach().await);
    }
    gateway.pass_slowly(9 * 60).await;
    gateway.user("c1").says("in time").await;
    let in_time = holder.expect("c1", "in time", 1).await;
    assert_eq!(in_time.fence, first.fence);
    holder.acks(&in_time).await;
    gateway.pass_slowly(11 * 60).await;
    gateway.user("c1").says("late").await;
    holder.expect_nothing().await;
    let mut got = 0;
    for other in &mut others {
        got += other.waiting().await.len();
    }
    assert_eq!(got, 1);
}

#[tokio::test]
async fn it_waits_for_its_session_to_have_room_but_not_for_ever() {
    let gateway = Gateway::start().await;
    let one = gateway.bot("echo").instance("holder").credit(1, 1 << 20);
    let mut holder = one.attach().await;
    gateway.user("c1").says("first").await;
    let first = holder.expect("c1", "first", 1).await;
    holder.acks(&first).await;
    let mut other = gateway.bot("echo").instance("other").attach().await;
    gateway.user("c1").says("second").await;
    other.expect_nothing().await;
    holder.credit(1, 0).await;
    let second = holder.expect("c1", "second", 1).await;
    assert_eq!(second.fence, first.fence);
    holder.acks(&second).await;

    gateway.user("c1").says("third").await;
    gateway.pass(seconds(4)).await;
    other.expect_nothing().await;
    gateway.pass(seconds(1)).await;
    let third = other.expect("c1", "third", 1).await;
    assert!(third.fence > first.fence);
    let revoked = holder.expect_revoked().await;
    assert_eq!(revoked.fence, third.fence);
    other.acks(&third).await;
}

#[tokio::test]
async fn one_that_waits_for_its_session_holds_up_no_other() {
    let gateway = Gateway::start().await;
    let one = gateway.bot("echo").instance("holder").credit(1, 1 << 20);
    let mut holder = one.attach().await;
    gateway.user("c1").says("first").await;
    let first = holder.expect("c1", "first", 1).await;
    holder.acks(&first).await;
    let mut other = gateway.bot("echo").instance("other").attach().await;
    gateway.user("c1").says("waits").await;
    for conversation in ["c2", "c3", "c4"] {
        gateway.user(conversation).says("hi").await;
        let delivery = other.expect(conversation, "hi", 1).await;
        other.acks(&delivery).await;
    }
}

#[tokio::test]
async fn a_release_moves_it_and_the_loser_is_not_told_what_it_wished() {
    let gateway = Gateway::start().await;
    let (mut holder, mut other, first) = holder_and_other(&gateway).await;
    gateway.user("c1").says("second").await;
    let second = holder.expect("c1", "second", 1).await;
    holder.release(&second).await;
    let again = other.expect("c1", "second", 1).await;
    assert!(again.fence > first.fence);
    other.acks(&again).await;
    gateway.user("c1").says("third").await;
    other.expect("c1", "third", 1).await;
    holder.expect_nothing().await;
}

#[tokio::test]
async fn conversations_spread_over_sessions_and_few_move_when_one_comes() {
    let gateway = Gateway::start().await;
    let mut sessions = Vec::new();
    for instance in ["a", "b", "c"] {
        sessions.push(gateway.bot("echo").instance(instance).attach().await);
    }
    const CONVERSATIONS: usize = 60;
    for conversation in 0..CONVERSATIONS {
        gateway.user(&format!("c{conversation}")).says("hi").await;
    }
    let mut shares = Vec::new();
    for session in &mut sessions {
        let deliveries = session.waiting().await;
        shares.push(deliveries.len());
        let ids = deliveries.iter().map(|delivery| delivery.delivery_id);
        session.write(Asked::Ack(v1::Ack {
            delivery_ids: ids.collect(),
            want_result: false,
        }));
        session.barrier().await;
    }
    assert_eq!(shares.iter().sum::<usize>(), CONVERSATIONS);
    assert!(shares.iter().all(|share| *share >= 5), "{shares:?}");
    // Long enough for every lease to end: a fourth session takes its share and no more.
    gateway.pass_slowly(11 * 60).await;
    let mut fourth = gateway.bot("echo").instance("d").attach().await;
    for conversation in 0..CONVERSATIONS {
        gateway
            .user(&format!("c{conversation}"))
            .says("again")
            .await;
    }
    let taken = fourth.waiting().await.len();
    assert!((3..CONVERSATIONS / 2).contains(&taken), "{taken}");
    for (session, share) in sessions.iter_mut().zip(shares) {
        assert!(session.waiting().await.len() <= share, "nothing else moved");
    }
}
