//! What an activity costs on its way in and out, apart from the disk: JSON to the model and back, the
//! rules and the draft, the writer's stamp.
//!
//! The documents are fixtures of the tests, from a short text to a card. JSON is what channels with
//! an HTTP border speak; a gRPC stream has only the draft.

use std::fmt;
use std::time::Duration;

use divan::counter::BytesCount;
use divan::{Bencher, Divan, black_box};
use turnwire::activity::{self, Draft, Stamp, json};
use turnwire::clock::Timestamp;
use turnwire::limits::Limits;
use turnwire::proto::v1::{Activity, ChannelAccount, ConversationAccount};

/// A document, by the name of its file.
#[derive(Clone, Copy)]
struct Fixture {
    name: &'static str,
    text: &'static str,
}

const FIXTURES: [Fixture; 4] = [
    Fixture {
        name: "text",
        text: include_str!("../tests/fixtures/activities/text.json"),
    },
    Fixture {
        name: "mention",
        text: include_str!("../tests/fixtures/activities/mention.json"),
    },
    Fixture {
        name: "adaptive-card",
        text: include_str!("../tests/fixtures/activities/adaptive-card.json"),
    },
    Fixture {
        name: "unknown-members",
        text: include_str!("../tests/fixtures/activities/unknown-members.json"),
    },
];

/// What the table calls it.
impl fmt::Display for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Fixture {
    fn bytes(self) -> BytesCount {
        BytesCount::of_str(self.text)
    }

    fn activity(self) -> Activity {
        json::decode(self.text).expect("a fixture is an activity")
    }

    /// As a channel posts it: it says who speaks, and where.
    fn posted(self) -> Activity {
        let mut activity = self.activity();
        activity
            .from
            .get_or_insert_with(user)
            .id
            .get_or_insert_with(|| "user-1".to_owned());
        activity
            .conversation
            .get_or_insert_with(conversation)
            .id
            .get_or_insert_with(|| "conversation-1".to_owned());
        activity
    }
}

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each takes microseconds at most: a hundred samples, which is the usual, would be over too soon to
/// say anything.
const MIN_TIME: Duration = Duration::from_millis(100);

fn main() {
    Divan::default()
        .min_time(MIN_TIME)
        .config_with_args()
        .main();
}

#[divan::bench(args = FIXTURES)]
fn json_decode(bencher: Bencher<'_, '_>, fixture: Fixture) {
    bencher
        .counter(fixture.bytes())
        .bench(|| json::decode::<Activity>(black_box(fixture.text)));
}

#[divan::bench(args = FIXTURES)]
fn json_encode(bencher: Bencher<'_, '_>, fixture: Fixture) {
    let activity = fixture.activity();
    bencher
        .counter(fixture.bytes())
        .bench(|| json::to_string(black_box(&activity)));
}

/// Checks and encodes what a channel posts.
#[divan::bench(args = FIXTURES)]
fn draft_inbound(bencher: Bencher<'_, '_>, fixture: Fixture) {
    let limits = Limits::default();
    let activity = fixture.posted();
    bencher
        .with_inputs(|| activity.clone())
        .bench_refs(|activity| activity::inbound(activity, &limits).expect("it keeps the rules"));
}

/// Checks and encodes what a bot sends.
#[divan::bench(args = FIXTURES)]
fn draft_outbound(bencher: Bencher<'_, '_>, fixture: Fixture) {
    let limits = Limits::default();
    let activity = fixture.activity();
    bencher
        .with_inputs(|| activity.clone())
        .bench_refs(|activity| activity::outbound(activity, &limits).expect("it keeps the rules"));
}

/// What the one writer of a conversation does with a user's draft.
#[divan::bench(args = FIXTURES)]
fn finish_inbound(bencher: Bencher<'_, '_>, fixture: Fixture) {
    let draft = activity::inbound(&mut fixture.posted(), &Limits::default());
    finish(bencher, &draft.expect("it keeps the rules"), &bot(), None);
}

/// The same with a bot's, which gets more of its fields from the gateway.
#[divan::bench(args = FIXTURES)]
fn finish_outbound(bencher: Bencher<'_, '_>, fixture: Fixture) {
    let draft = activity::outbound(&mut fixture.activity(), &Limits::default());
    let draft = draft.expect("it keeps the rules");
    finish(bencher, &draft, &user(), Some("conversation-1|0000041"));
}

fn finish(
    bencher: Bencher<'_, '_>,
    draft: &Draft,
    recipient: &ChannelAccount,
    reply_to_id: Option<&str>,
) {
    let (conversation, bot) = (conversation(), bot());
    let stamp = Stamp {
        id: "conversation-1|0000042",
        timestamp: Timestamp(1_790_000_000_000),
        channel: "channel-1",
        conversation: &conversation,
        from: Some(&bot),
        recipient: Some(recipient),
        reply_to_id,
        locale: Some("en-GB"),
        service_url: Some("https://gateway.example/"),
    };
    bencher.bench(|| black_box(draft).finish(black_box(&stamp)));
}

fn user() -> ChannelAccount {
    account("user-1", "A user")
}

fn bot() -> ChannelAccount {
    account("bot-1", "A bot")
}

fn account(id: &str, name: &str) -> ChannelAccount {
    ChannelAccount {
        id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn conversation() -> ConversationAccount {
    ConversationAccount {
        id: Some("conversation-1".to_owned()),
        ..Default::default()
    }
}
