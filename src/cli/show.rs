//! Activities as people read them. Everything returned is safe to print.

use prost_types::Timestamp;
use turnwire_client::proto::{Activity, Author, LogEntry, Receipt, ReceiptState};

use super::escape;

/// What was said or done, on one line; `None` for what there is nothing to see of.
pub(super) fn what(activity: &Activity) -> String {
    describe(activity, |text| escape::line(text).into_owned())
}

/// The same, with the lines of a text kept, each after the first set in by `indent`.
pub(super) fn what_in_lines(activity: &Activity, indent: &str) -> String {
    describe(activity, |text| escape::block(text, indent))
}

fn describe(activity: &Activity, text: impl Fn(&str) -> String) -> String {
    let mut parts = Vec::new();
    if activity.is_message() {
        parts.extend(activity.text.as_deref().map(text));
    } else {
        let mut label = format!("({}", escape::line(activity.r#type()));
        for part in [&activity.name, &activity.code, &activity.text]
            .into_iter()
            .flatten()
        {
            label.push(' ');
            label.push_str(&escape::line(part));
        }
        for (verb, members) in [
            ("+", &activity.members_added),
            ("-", &activity.members_removed),
        ] {
            for member in members {
                label.push_str(&format!(" {verb}{}", escape::line(member.id())));
            }
        }
        parts.push(label + ")");
    }
    for attachment in &activity.attachments {
        let name = attachment.name.as_deref().unwrap_or("attachment");
        let kind = escape::line(attachment.content_type());
        parts.push(format!("[{} {kind}]", escape::line(name)));
    }
    if let Some(suggested) = &activity.suggested_actions {
        let titles: Vec<_> = suggested
            .actions
            .iter()
            .map(|action| escape::line(action.title()).into_owned())
            .collect();
        parts.push(format!("[{}]", titles.join(" | ")));
    }
    parts.join(" ")
}

/// Who did it: a name, or else an id.
pub(super) fn who(activity: &Activity) -> String {
    let from = activity.from.as_ref();
    let name = from.map(|from| {
        if from.name().is_empty() {
            from.id()
        } else {
            from.name()
        }
    });
    escape::line(name.filter(|name| !name.is_empty()).unwrap_or("?")).into_owned()
}

/// Whether a bot, or a backend for it, said this.
pub(super) fn is_from_bot(entry: &LogEntry) -> bool {
    matches!(entry.author(), Author::Bot | Author::Backend)
}

/// What became of an activity on its channel: a word, and what the channel says about it.
pub(super) fn receipt(receipt: &Receipt) -> String {
    let detail = match receipt.state() {
        ReceiptState::Delivered => &receipt.channel_activity_id,
        _ => &receipt.reason,
    };
    match detail.as_str() {
        "" => state(receipt).to_owned(),
        detail => format!("{} ({})", state(receipt), escape::line(detail)),
    }
}

/// The word for what became of an activity.
pub(super) fn state(receipt: &Receipt) -> &'static str {
    match receipt.state() {
        ReceiptState::Accepted => "accepted",
        ReceiptState::Delivered => "delivered",
        ReceiptState::Failed => "failed",
        ReceiptState::Unknown | ReceiptState::Unspecified => "unknown",
    }
}

/// A point in time as RFC 3339 has it, in UTC and to the millisecond.
pub(super) fn time(time: &Timestamp) -> String {
    jiff::Timestamp::new(time.seconds, time.nanos)
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwire_client::proto::{Attachment, ChannelAccount};

    #[test]
    fn a_message_is_its_text_and_what_hangs_on_it() {
        let mut message = Activity::message("look:\n\u{1b}[2J");
        message.attachments.push(Attachment {
            content_type: Some("image/png".into()),
            name: Some("cat\u{7}.png".into()),
            ..Attachment::default()
        });
        assert_eq!(
            what(&message),
            "look:\\n\\u{1b}[2J [cat\\u{7}.png image/png]"
        );
        assert!(what_in_lines(&message, "  ").starts_with("look:\n  \\u{1b}[2J"));
    }

    #[test]
    fn anything_else_is_its_type_and_what_it_is_about() {
        let mut update = Activity::of_type("conversationUpdate");
        update.members_added.push(ChannelAccount::with_id("ana"));
        assert_eq!(what(&update), "(conversationUpdate +ana)");
    }

    #[test]
    fn a_receipt_is_a_word_and_what_the_channel_says() {
        let mut delivered = Receipt {
            channel_activity_id: "t\u{7}1".to_owned(),
            ..Receipt::default()
        };
        delivered.set_state(ReceiptState::Delivered);
        assert_eq!(receipt(&delivered), "delivered (t\\u{7}1)");
        let mut failed = Receipt {
            reason: "blocked".to_owned(),
            ..Receipt::default()
        };
        failed.set_state(ReceiptState::Failed);
        assert_eq!(receipt(&failed), "failed (blocked)");
        let mut accepted = Receipt::default();
        accepted.set_state(ReceiptState::Accepted);
        assert_eq!(receipt(&accepted), "accepted");
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        let shown = time(&Timestamp {
            seconds: 1_700_000_000,
            nanos: 120_000_000,
        });
        assert_eq!(shown, "2023-11-14T22:13:20.120Z");
    }
}
