//! Direct Line 3.0, as its clients meet it: a file for each subject. Uploads aside.

mod bad_input;
mod bots;
mod credentials;
mod history;
mod logs;
mod order;
mod origins;
mod posts;
mod replies;
mod starting;
mod streams;
mod tokens;

use serde_json::Value;
use turnwire::activity::json;
use turnwire::proto::v1;

use crate::harness::{Bot, Gateway, seconds};

/// A gateway whose streams say nothing of their own accord, however far a test moves time.
async fn quiet() -> Gateway {
    let setup = Gateway::setup().config(|config| {
        config.limits.watch_report_interval = seconds(365 * 24 * 3600);
    });
    setup.start().await
}

/// What a bot says, written as JSON.
fn activity(written: &Value) -> v1::Activity {
    json::decode_value(written).expect("an activity")
}

/// What a bot is told, as JSON.
fn heard(delivery: &v1::Delivery) -> Value {
    json::encode(&**delivery.activity.as_ref().expect("an activity"))
}

/// Takes the next delivery, which must be of this type, and is done with it.
async fn hears(bot: &mut Bot, kind: &str) -> Value {
    let delivery = bot.next_delivery().await;
    bot.acks(&delivery).await;
    let heard = heard(&delivery);
    assert_eq!(heard["type"], *kind, "{heard}");
    heard
}
