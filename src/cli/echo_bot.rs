//! The bot of `turnwire dev`: an ordinary client of the gateway, over the network like any other.

use std::time::Duration;

use turnwire_client::Client;
use turnwire_client::bot::{Bot, Reply, Turn, TurnError};
use turnwire_client::proto::{Activity, CancelReason};

/// What asks for a reply that grows, and for one that never gets to its end.
const STREAM: &str = "stream ";
const BREAK_OFF: &str = "break off ";
/// How long the bot takes for a word.
const WORD: Duration = Duration::from_millis(200);

/// Runs the bot until `shutdown` completes.
pub(super) async fn run(
    client: &Client,
    bot_id: &str,
    shutdown: impl Future<Output = ()>,
) -> Result<(), turnwire_client::Error> {
    Bot::builder(bot_id)
        .build(client)
        .run_until(shutdown, answer)
        .await
}

async fn answer(turn: Turn) -> Result<Reply, TurnError> {
    let text = turn.text();
    if let Some(words) = text.strip_prefix(STREAM) {
        Ok(speak(&turn, words).await)
    } else if let Some(words) = text.strip_prefix(BREAK_OFF) {
        // What was begun is dropped without an answer.
        let _ = speak(&turn, words).await;
        Ok(Reply::default())
    } else {
        Ok(reply(turn.into_activity()).into())
    }
}

/// Says the words one after the other, until there are no more or the user has heard enough.
async fn speak(turn: &Turn, words: &str) -> Reply {
    let mut reply = turn.stream();
    reply.push("echo:");
    for word in words.split_whitespace() {
        tokio::time::sleep(WORD).await;
        // That the user said something else meanwhile is no reason to leave a thought unfinished.
        if let Some(CancelReason::UserStopped | CancelReason::Stale) = reply.cancel() {
            break;
        }
        reply.push(&format!(" {word}"));
    }
    reply.into()
}

/// What is said to an activity, if anything.
fn reply(activity: Activity) -> Option<Activity> {
    if activity.is_message() {
        let text = activity.text.as_deref().filter(|text| !text.is_empty());
        return Some(Activity {
            text: text.map(|text| format!("echo: {text}")),
            attachments: activity.attachments,
            ..Activity::of_type("message")
        });
    }
    let bot = activity
        .recipient
        .as_ref()
        .and_then(|bot| bot.id.as_deref());
    let mut members = activity.members_added.iter();
    members
        .any(|member| member.id.as_deref() != bot)
        .then(|| Activity::message("welcome"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwire_client::proto::{Attachment, ChannelAccount};

    fn joined(member: &str) -> Activity {
        Activity {
            recipient: Some(ChannelAccount::with_id("echo")),
            members_added: vec![ChannelAccount::with_id(member)],
            ..Activity::of_type("conversationUpdate")
        }
    }

    #[test]
    fn newcomers_are_welcomed() {
        assert_eq!(reply(joined("ana")), Some(Activity::message("welcome")));
    }

    #[test]
    fn the_bot_does_not_welcome_itself() {
        assert_eq!(reply(joined("echo")), None);
    }

    #[test]
    fn a_message_comes_back_with_its_attachments() {
        let mut message = Activity::message("hi");
        message.attachments.push(Attachment {
            name: Some("cat.png".into()),
            ..Attachment::default()
        });
        let echo = reply(message.clone());
        assert_eq!(
            echo.as_ref().and_then(|e| e.text.as_deref()),
            Some("echo: hi")
        );
        assert_eq!(echo.map(|e| e.attachments), Some(message.attachments));
    }

    #[test]
    fn nothing_else_is_answered() {
        assert_eq!(reply(Activity::of_type("typing")), None);
        assert_eq!(reply(Activity::of_type("event")), None);
    }
}
