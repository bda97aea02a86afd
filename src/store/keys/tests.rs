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
    ) {
        let sequence = Sequence(number);
        let key = Key::Activity { conversation: &conversation, sequence };
        prop_assert_eq!(decode_activity(&key.encode())?, sequence);
        let key = Key::Receipt { conversation: &conversation, sequence };
        prop_assert_eq!(decode_receipt(&key.encode())?, sequence);
        let key = Key::Member { conversation: &conversation, member: &last }.encode();
        prop_assert_eq!(decode_member(&key)?, last.as_str());
        let key = Key::Live { conversation: &conversation };
        prop_assert_eq!(decode_live(&key.encode())?, conversation.clone());
        let key = Key::Idempotency {
            generation, conversation: &conversation, scope: &text, key: &last,
        };
        prop_assert_eq!(decode_generation(&key.encode())?, generation);
        let key = Key::DeadLetter { conversation: &conversation, bot: &text, sequence }.encode();
        prop_assert_eq!(
            decode_dead_letter(&key)?,
            (conversation.clone(), text.as_str(), sequence)
        );
        let start = Timestamp(number);
        let encoded = with_list(&list, |by| {
            Key::Listing { by, start, conversation: &conversation }.encode()
        });
        prop_assert_eq!(decode_listing(&encoded)?, (start, conversation));
    }

    #[test]
    fn the_length_is_known_beforehand(
        conversation in conversation(), text in id(), list in list(), number in number(),
    ) {
        let conversation = &conversation;
        let sequence = Sequence(number);
        with_list(&list, |by| {
            for key in [
                Key::Meta,
                Key::Head { conversation },
                Key::Conversation { conversation },
                Key::Activity { conversation, sequence },
                Key::Member { conversation, member: &text },
                Key::Live { conversation },
                Key::Listing { by, start: Timestamp(number), conversation },
                Key::Idempotency { generation: 1, conversation, scope: &text, key: "k" },
                Key::DeadLetter { conversation, bot: &text, sequence },
                Key::Receipt { conversation, sequence },
            ] {
                assert_eq!(key.encode().len(), key.encoded_len(), "{key:?}");
                assert_eq!(key.encode().first(), Some(&key.table().tag()));
                assert!(contains(&KeyRange::table(key.table()), &key.encode()));
            }
        });
    }

    #[test]
    fn keys_are_in_the_order_of_their_parts(
        a in (conversation(), number()), b in (conversation(), number()),
    ) {
        let order = |x: &(ConversationKey, u64)| {
            let (channel, conversation) = (x.0.channel.as_str(), x.0.conversation.as_str());
            (channel.as_bytes().to_vec(), conversation.as_bytes().to_vec(), x.1)
        };
        let activity = |x: &(ConversationKey, u64)| Key::Activity {
            conversation: &x.0, sequence: Sequence(x.1),
        }.encode();
        prop_assert_eq!(activity(&a).cmp(&activity(&b)), order(&a).cmp(&order(&b)));
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
        of in conversation(), other in conversation(),
        from in number(), to in number(), at in number(),
    ) {
        let range = KeyRange::activities(&of, Sequence(from)..=Sequence(to));
        let key = |conversation| Key::Activity { conversation, sequence: Sequence(at) }.encode();
        prop_assert_eq!(contains(&range, &key(&of)), from <= at && at <= to);
        prop_assert_eq!(contains(&range, &key(&other)), from <= at && at <= to && of == other);
        prop_assert_eq!(range.is_empty(), from > to);
    }

    #[test]
    fn members_are_those_after(of in conversation(), after in id(), member in id()) {
        let key = Key::Member { conversation: &of, member: &member }.encode();
        prop_assert!(contains(&KeyRange::members(&of, None), &key));
        prop_assert_eq!(
            contains(&KeyRange::members(&of, Some(&after)), &key),
            member.as_bytes() > after.as_bytes()
        );
    }

    #[test]
    fn earlier_generations_are_a_range(
        conversation in conversation(), generation: u32, before: u32,
    ) {
        let key = Key::Idempotency {
            generation, conversation: &conversation, scope: "s", key: "k",
        }.encode();
        prop_assert_eq!(
            contains(&KeyRange::idempotency_before(before), &key),
            generation < before
        );
    }

    #[test]
    fn other_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, tag in 0..12_u8) {
        let mut key = vec![tag];
        key.extend(bytes);
        let _ = decode_activity(&key);
        let _ = decode_member(&key);
        let _ = decode_live(&key);
        let _ = decode_listing(&key);
        let _ = decode_generation(&key);
        let _ = decode_dead_letter(&key);
        let _ = decode_receipt(&key);
    }
}

#[test]
fn tags_are_those_on_disk() {
    for (index, table) in Table::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(table.tag()), index + 1);
        assert_eq!(Table::from_tag(table.tag()), Some(table));
    }
    assert_eq!(Table::from_tag(0), None);
    assert_eq!(Table::from_tag(12), None);
}

#[test]
fn bytes_of_a_key_stay_what_they_are() {
    let conversation = ConversationKey {
        channel: "web".into(),
        conversation: "c1".into(),
    };
    let key = Key::Activity {
        conversation: &conversation,
        sequence: Sequence(258),
    };
    assert_eq!(key.encode(), b"\x04web\0c1\0\0\0\0\0\0\0\x01\x02");
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
        conversation: &conversation,
        scope: "s",
        key: "k",
    };
    assert_eq!(key.encode(), b"\x08\0\0\0\x03web\0c1\0s\0k\0");
}

#[test]
fn a_generation_is_a_retention_long() {
    assert_eq!(generation(Timestamp(999), 1_000), 0);
    assert_eq!(generation(Timestamp(1_000), 1_000), 1);
}
