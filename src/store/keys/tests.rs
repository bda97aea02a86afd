use proptest::prelude::*;

use super::*;

fn id() -> impl Strategy<Value = String> {
    // Short and of few characters, so that prefixes of each other are common.
    "[\u{1}a-cé\u{10FFFF}]{0,4}"
}

fn conversation() -> impl Strategy<Value = ConversationKey> {
    (id(), id()).prop_map(|(channel, conversation)| ConversationKey {
        channel: channel.into(),
        conversation: conversation.into(),
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, any::<u64>(), (u64::MAX - 5)..=u64::MAX]
}

/// A list, owned.
fn list() -> impl Strategy<Value = (u8, String, String)> {
    (0..4_u8, id(), id())
}

fn with_list<T>(list: &(u8, String, String), then: impl FnOnce(ListBy<'_>) -> T) -> T {
    let channel = ChannelId::from(list.1.as_str());
    let bot = BotId::from(list.1.as_str());
    then(match list.0 {
        0 => ListBy::All,
        1 => ListBy::Channel(&channel),
        2 => ListBy::Bot(&bot),
        _ => ListBy::User(&channel, &list.2),
    })
}

/// What a document is about, owned: which kind, and the user in it.
fn about() -> impl Strategy<Value = (u8, ConversationKey, String)> {
    (0..4_u8, conversation(), id())
}

fn with_about<T>(
    (kind, conversation, user): &(u8, ConversationKey, String),
    then: impl FnOnce(About<'_>) -> T,
) -> T {
    then(match kind {
        0 => About::Bot,
        1 => About::User(&conversation.channel, user),
        2 => About::Conversation(conversation),
        _ => About::ConversationUser(conversation, user),
    })
}

fn contains(range: &KeyRange, key: &[u8]) -> bool {
    range.start() <= key && key < range.end()
}

proptest! {
    #[test]
    fn scanned_keys_come_back(
        conversation in conversation(),
        number in number(),
        text in id(),
        last in "\\PC*|\u{0}a\u{0}",
        generation: u32,
        list in list(),
        about in about(),
    ) {
        let bot = BotId::from(text.as_str());
        let key = with_about(&about, |about| Key::State { bot: &bot, about, name: &last }.encode());
        prop_assert_eq!(decode_state(&key)?, last.as_str());
        let sequence = Sequence(number);
        let of = ConversationNumber(number);
        let key = Key::Activity { conversation: of, sequence };
        prop_assert_eq!(decode_activity(&key.encode())?, sequence);
        let key = Key::Receipt { conversation: of, sequence };
        prop_assert_eq!(decode_receipt(&key.encode())?, sequence);
        let key = Key::Member { conversation: of, member: &last }.encode();
        prop_assert_eq!(decode_member(&key)?, last.as_str());
        let key = Key::Live { conversation: &conversation };
        prop_assert_eq!(decode_live(&key.encode())?, conversation.clone());
        let digest = OnceDigest::new(of, &text, &last);
        let key = Key::Idempotency { generation, digest };
        prop_assert_eq!(decode_generation(&key.encode())?, generation);
        let key = Key::DeadLetter { conversation: of, bot: &text, sequence }.encode();
        prop_assert_eq!(decode_dead_letter(&key)?, (of, text.as_str(), sequence));
        let id = ScheduleId { due_ms: number, number: generation.into() };
        let key = Key::Scheduled { conversation: of, id };
        prop_assert_eq!(decode_scheduled(&key.encode())?, id);
        let key = Key::ScheduledDue { id, conversation: &conversation };
        prop_assert_eq!(decode_scheduled_due(&key.encode())?, (id, conversation.clone()));
        let start = Timestamp(number);
        let encoded = with_list(&list, |by| {
            Key::Listing { by, start, conversation: &conversation }.encode()
        });
        prop_assert_eq!(decode_listing(&encoded)?, (start, conversation));
    }

    #[test]
    fn the_length_is_known_beforehand(
        conversation in conversation(), text in id(), list in list(), number in number(),
        about in about(),
    ) {
        let bot = BotId::from(text.as_str());
        with_about(&about, |about| {
            let key = Key::State { bot: &bot, about, name: &text };
            assert_eq!(key.encode().len(), key.encoded_len(), "{key:?}");
            assert!(contains(&KeyRange::table(Table::State), &key.encode()));
        });
        let conversation = &conversation;
        let (of, sequence) = (ConversationNumber(number), Sequence(number));
        with_list(&list, |by| {
            for key in [
                Key::Meta,
                Key::Head { conversation: of },
                Key::Conversation { conversation },
                Key::Activity { conversation: of, sequence },
                Key::Member { conversation: of, member: &text },
                Key::Live { conversation },
                Key::Listing { by, start: Timestamp(number), conversation },
                Key::Idempotency { generation: 1, digest: OnceDigest::new(of, &text, "k") },
                Key::DeadLetter { conversation: of, bot: &text, sequence },
                Key::Receipt { conversation: of, sequence },
                Key::SigningKey,
                Key::Scheduled {
                    conversation: of,
                    id: ScheduleId { due_ms: number, number: 1 },
                },
                Key::ScheduledDue {
                    id: ScheduleId { due_ms: number, number: 1 },
                    conversation,
                },
            ] {
                assert_eq!(key.encode().len(), key.encoded_len(), "{key:?}");
                assert_eq!(key.encode().first(), Some(&key.table().tag()));
                assert!(contains(&KeyRange::table(key.table()), &key.encode()));
            }
        });
    }

    #[test]
    fn keys_are_in_the_order_of_their_parts(
        a in (number(), number()), b in (number(), number()),
    ) {
        let activity = |(conversation, sequence)| Key::Activity {
            conversation: ConversationNumber(conversation), sequence: Sequence(sequence),
        }.encode();
        prop_assert_eq!(activity(a).cmp(&activity(b)), a.cmp(&b));
    }

    #[test]
    fn listings_are_newest_first_and_only_of_their_list(
        lists in (list(), list()),
        a in (conversation(), number()),
        b in (conversation(), number()),
    ) {
        let key = |list, x: &(ConversationKey, u64)| with_list(list, |by| {
            Key::Listing { by, start: Timestamp(x.1), conversation: &x.0 }.encode()
        });
        if a.1 > b.1 {
            prop_assert!(key(&lists.0, &a) < key(&lists.0, &b));
        }
        let range = with_list(&lists.0, |by| KeyRange::listing(by, None));
        prop_assert!(contains(&range, &key(&lists.0, &a)));
        let same = with_list(&lists.0, |x| with_list(&lists.1, |y| x == y));
        prop_assert_eq!(contains(&range, &key(&lists.1, &a)), same);

        let rest = with_list(&lists.0, |by| {
            KeyRange::listing(by, Some((Timestamp(a.1), &a.0)))
        });
        prop_assert_eq!(
            contains(&rest, &key(&lists.0, &b)),
            key(&lists.0, &b) > key(&lists.0, &a)
        );
    }

    #[test]
    fn activities_are_those_between_both_ends(
        of in number(), other in number(),
        from in number(), to in number(), at in number(),
    ) {
        let (of, other) = (ConversationNumber(of), ConversationNumber(other));
        let range = KeyRange::activities(of, Sequence(from)..=Sequence(to));
        let key = |conversation| Key::Activity { conversation, sequence: Sequence(at) }.encode();
        prop_assert_eq!(contains(&range, &key(of)), from <= at && at <= to);
        prop_assert_eq!(contains(&range, &key(other)), from <= at && at <= to && of == other);
        prop_assert_eq!(range.is_empty(), from > to);
    }

    #[test]
    fn members_are_those_after(of in number(), after in id(), member in id()) {
        let of = ConversationNumber(of);
        let key = Key::Member { conversation: of, member: &member }.encode();
        prop_assert!(contains(&KeyRange::members(of, None), &key));
        prop_assert_eq!(
            contains(&KeyRange::members(of, Some(&after)), &key),
            member.as_bytes() > after.as_bytes()
        );
    }

    #[test]
    fn documents_are_those_about_one_thing_after_a_name(
        bots in (id(), id()), abouts in (about(), about()), names in (id(), id()),
    ) {
        let (own, other) = (BotId::from(bots.0.as_str()), BotId::from(bots.1.as_str()));
        let key = with_about(&abouts.1, |about| {
            Key::State { bot: &other, about, name: &names.1 }.encode()
        });
        let (all, rest) = with_about(&abouts.0, |about| (
            KeyRange::state(&own, about, None),
            KeyRange::state(&own, about, Some(&names.0)),
        ));
        let same = own == other
            && with_about(&abouts.0, |x| with_about(&abouts.1, |y| x == y));
        prop_assert_eq!(contains(&all, &key), same);
        prop_assert_eq!(
            contains(&rest, &key),
            same && names.1.as_bytes() > names.0.as_bytes()
        );
    }

    #[test]
    fn earlier_generations_are_a_range(digest: [u8; 15], generation: u32, before: u32) {
        let key = Key::Idempotency { generation, digest: OnceDigest(digest) }.encode();
        prop_assert_eq!(
            contains(&KeyRange::idempotency_before(before), &key),
            generation < before
        );
    }

    #[test]
    fn what_is_due_is_what_is_due_up_to_a_time(
        conversation in conversation(), due in number(), of in number(), until in number(),
    ) {
        let id = ScheduleId { due_ms: due, number: of };
        let key = Key::ScheduledDue { id, conversation: &conversation }.encode();
        let range = KeyRange::scheduled_due(Timestamp(until));
        prop_assert_eq!(contains(&range, &key), due <= until);
    }

    #[test]
    fn scheduled_sends_are_those_of_a_conversation_after_one_in_order_of_time(
        of in number(), other in number(), a in (number(), number()), b in (number(), number()),
    ) {
        let (of, other) = (ConversationNumber(of), ConversationNumber(other));
        let id = |(due, number)| ScheduleId { due_ms: due, number };
        let key = |conversation, id| Key::Scheduled { conversation, id }.encode();
        prop_assert_eq!(key(of, id(a)).cmp(&key(of, id(b))), a.cmp(&b));
        let all = KeyRange::scheduled(of, None);
        prop_assert_eq!(contains(&all, &key(other, id(a))), of == other);
        let rest = KeyRange::scheduled(of, Some(id(a)));
        prop_assert_eq!(contains(&rest, &key(of, id(b))), b > a);
    }

    #[test]
    fn other_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, tag in 0..16_u8) {
        let mut key = vec![tag];
        key.extend(bytes);
        let _ = decode_activity(&key);
        let _ = decode_member(&key);
        let _ = decode_live(&key);
        let _ = decode_listing(&key);
        let _ = decode_generation(&key);
        let _ = decode_dead_letter(&key);
        let _ = decode_receipt(&key);
        let _ = decode_state(&key);
        let _ = decode_scheduled(&key);
        let _ = decode_scheduled_due(&key);
    }
}

#[test]
fn tags_are_those_on_disk() {
    let tags = Table::ALL.map(Table::tag);
    assert_eq!(tags, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    for table in Table::ALL {
        assert_eq!(Table::from_tag(table.tag()), Some(table));
    }
    for free in [0, 16] {
        assert_eq!(Table::from_tag(free), None);
    }
}

#[test]
fn bytes_of_a_key_stay_what_they_are() {
    let conversation = ConversationKey {
        channel: "web".into(),
        conversation: "c1".into(),
    };
    let key = Key::Activity {
        conversation: ConversationNumber(772),
        sequence: Sequence(258),
    };
    assert_eq!(
        key.encode(),
        b"\x04\0\0\0\0\0\0\x03\x04\0\0\0\0\0\0\x01\x02"
    );
    let key = Key::Listing {
        by: ListBy::Bot(&BotId::from("b")),
        start: Timestamp(1),
        conversation: &conversation,
    };
    assert_eq!(
        key.encode(),
        b"\x07\x02b\0\xff\xff\xff\xff\xff\xff\xff\xfeweb\0c1\0"
    );
    let key = Key::Idempotency {
        generation: 3,
        digest: OnceDigest([9; 15]),
    };
    assert_eq!(
        key.encode(),
        b"\x08\0\0\0\x03\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t"
    );
    let key = Key::State {
        bot: &BotId::from("b"),
        about: About::ConversationUser(&conversation, "ann"),
        name: "n",
    };
    assert_eq!(key.encode(), b"\x0db\0\x03web\0c1\0ann\0n\0");
}

#[test]
fn what_every_turn_writes_has_short_keys() {
    let conversation = ConversationNumber(u64::MAX);
    let sequence = Sequence(u64::MAX);
    let digest = OnceDigest([255; 15]);
    for key in [
        Key::Head { conversation },
        Key::Activity {
            conversation,
            sequence,
        },
        Key::Idempotency {
            generation: u32::MAX,
            digest,
        },
    ] {
        assert!(key.encoded_len() <= 20, "{key}");
    }
}

#[test]
fn keys_of_another_scope_or_conversation_are_others() {
    let (a, b) = (ConversationNumber(1), ConversationNumber(2));
    let digest = OnceDigest::new(a, "scope", "key");
    assert_eq!(digest, OnceDigest::new(a, "scope", "key"));
    assert_ne!(digest, OnceDigest::new(b, "scope", "key"));
    assert_ne!(digest, OnceDigest::new(a, "scop", "ekey"));
}

#[test]
fn a_generation_is_a_retention_long() {
    assert_eq!(generation(Timestamp(999), 1_000), 0);
    assert_eq!(generation(Timestamp(1_000), 1_000), 1);
}
