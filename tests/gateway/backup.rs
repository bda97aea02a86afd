//! Backups: everything as of one moment, and nothing that is not whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tonic::Code;
use turnwire::backup::{self, Reader, Record, Summary, Unfinished};
use turnwire::clock::Timestamp;
use turnwire::proto::v1;
use turnwire::proto::v1::backup_response::Part;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{
    Chat, Gateway, Wire, message, name, padded, place_of, refused, said, seconds, within,
};

/// Reads a backup to its end.
async fn back_up(wire: &Wire) -> (Vec<u8>, v1::BackupSummary) {
    let stream = within("a backup", wire.admin().backup(v1::BackupRequest {})).await;
    let mut stream = stream.expect("it begins").into_inner();
    let mut bytes = Vec::new();
    loop {
        let part = within("a part", stream.message()).await.expect("no error");
        match part.and_then(|response| response.part) {
            Some(Part::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
            Some(Part::Summary(summary)) => return (bytes, summary),
            None => panic!("it ended without a summary"),
        }
    }
}

/// Backs a gateway up, and restores that to a folder.
async fn restored(gateway: &Gateway, to: &Path) {
    let (bytes, summary) = back_up(&gateway.wire()).await;
    let time = summary.time.expect("a time");
    let summary = Summary {
        time: Timestamp(time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000),
        records: summary.records,
        files: summary.files,
        bytes: summary.bytes,
        sha256: summary.sha256.as_ref().try_into().expect("32 bytes"),
    };
    let folder = TempDir::new().expect("a folder");
    let kept = folder.path().join("kept");
    let mut unfinished = Unfinished::begin(&kept).expect("it begins");
    unfinished.add(&bytes).expect("it is written");
    unfinished.finish(&summary).expect("it is whole");
    assert_eq!(backup::restore(&kept, to).expect("it is restored"), summary);
}

#[tokio::test]
async fn a_backup_is_all_that_its_summary_says() {
    let gateway = Gateway::setup().on_disk().start().await;
    gateway.user("c1").says("hi").await;
    let (bytes, summary) = back_up(&gateway.wire()).await;
    let mut reader = Reader::new(bytes.as_slice()).expect("a backup");
    let mut records = 0;
    while let Some(record) = reader.read_next().expect("it is whole") {
        records += u64::from(matches!(record, Record::Entry { .. }));
    }
    let read = reader.summary().expect("it was read to its end");
    assert_eq!((records, summary.records), (read.records, read.records));
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.sha256.as_ref(), read.sha256);
    assert_eq!(summary.files, 0);
}

#[tokio::test]
async fn more_backups_than_the_limit_have_to_wait() {
    let setup = Gateway::setup().on_disk();
    let gateway = setup
        .config(|config| config.limits.backups = 1)
        .start()
        .await;
    let user = gateway.user("c1");
    // More than the sockets and the gateway's queue take ahead of a reader.
    for _ in 0..32 {
        user.posts(padded("a lot", 900 * 1024)).await;
    }
    let first = within(
        "a backup",
        gateway.wire().admin().backup(v1::BackupRequest {}),
    )
    .await;
    let first = first.expect("it begins").into_inner();
    let mut admin = gateway.wire().admin();
    let second = within("a refusal", admin.backup(v1::BackupRequest {})).await;
    let facts = refused(second, Code::ResourceExhausted, "TOO_MANY_BACKUPS");
    assert_eq!(facts["limit"], "backups=1");
    // One who goes away makes room.
    drop(first);
    loop {
        match within("a backup", admin.backup(v1::BackupRequest {})).await {
            Ok(_) => break,
            Err(status) => refused::<()>(Err(status), Code::ResourceExhausted, "TOO_MANY_BACKUPS"),
        };
    }
}

#[tokio::test]
async fn a_backup_that_is_not_read_is_cut_off() {
    let gateway = Gateway::setup().on_disk().start().await;
    let user = gateway.user("c1");
    for _ in 0..32 {
        user.posts(padded("a lot", 900 * 1024)).await;
    }
    let stream = within(
        "a backup",
        gateway.wire().admin().backup(v1::BackupRequest {}),
    )
    .await;
    let mut stream = stream.expect("it begins").into_inner();
    let errors = "turnwire_rpc_errors_total{reason=\"BACKUP_STALLED\"}";
    while gateway.try_metric(errors).await != Some(1.0) {
        gateway.pass(seconds(61)).await;
    }
    let status = loop {
        match within("a part", stream.message()).await {
            Ok(Some(response)) => assert!(matches!(response.part, Some(Part::Chunk(_)))),
            Ok(None) => panic!("it ended as if it were whole"),
            Err(status) => break status,
        }
    };
    refused::<()>(Err(status), Code::DeadlineExceeded, "BACKUP_STALLED");
}

#[tokio::test]
async fn a_backup_under_load_is_one_moment_and_nothing_acked_comes_again() {
    const CONVERSATIONS: usize = 8;
    let folder = TempDir::new().expect("a folder");
    let [data, new] = ["data", "new"].map(|name| folder.path().join(name));
    let gateway = Gateway::setup().in_folder(&data).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let posted = Arc::new(Mutex::new([0_u64; CONVERSATIONS]));
    let users: Vec<_> = (0..CONVERSATIONS)
        .map(|index| {
            let user = gateway.user(&format!("c{index}"));
            let (stop, posted) = (Arc::clone(&stop), Arc::clone(&posted));
            tokio::spawn(async move {
                for n in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    user.says(&n.to_string()).await;
                    posted.lock().expect("no panic")[index] = n;
                }
            })
        })
        .collect();
    let mut bot = gateway.bot("echo").attach().await;
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let answering = {
        let (stop, acked) = (Arc::clone(&stop), Arc::clone(&acked));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let delivery = bot.next_delivery().await;
                bot.commits(&delivery, &[&format!("re: {}", said(&delivery))])
                    .await;
                let turn = (place_of(&delivery), said(&delivery));
                acked.lock().expect("no panic").insert(turn);
            }
        })
    };
    let count = || acked.lock().expect("no panic").len();
    let at_least = async |many| {
        while count() < many {
            tokio::task::yield_now().await;
        }
    };
    within("some turns", at_least(50)).await;
    let acked_before = acked.lock().expect("no panic").clone();
    let posted_before = *posted.lock().expect("no panic");
    restored(&gateway, &new).await;
    within("more turns", at_least(count() + 20)).await;
    stop.store(true, Ordering::Relaxed);
    for task in users.into_iter().chain([answering]) {
        within("the end of the load", task).await.expect("no panic");
    }

    let copy = Gateway::setup().in_folder(&new).start().await;
    let mut unanswered = BTreeMap::new();
    for (index, posted_before) in posted_before.iter().enumerate() {
        let conversation = format!("c{index}");
        let log = copy.log(&conversation).await;
        let sequences: Vec<u64> = log.iter().map(|entry| entry.sequence).collect();
        let dense: Vec<u64> = (1..=log.len() as u64).collect();
        assert_eq!(sequences, dense, "of {conversation}");
        let texts = copy.texts(&conversation).await;
        for n in 1..=*posted_before {
            assert!(texts.contains(&n.to_string()), "{n} of {conversation}");
        }
        // An answer is there with the acknowledgement that it came with.
        let left = texts.iter().filter(|text| !text.starts_with("re: "));
        let left = left.filter(|text| !texts.contains(&format!("re: {text}")));
        unanswered.insert(conversation, left.cloned().collect::<Vec<_>>());
    }
    let left: usize = unanswered.values().map(Vec::len).sum();
    let mut bot = copy.bot("echo").attach().await;
    let mut came: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for _ in 0..left {
        let delivery = bot.next_delivery().await;
        let turn = (place_of(&delivery), said(&delivery));
        assert!(!acked_before.contains(&turn), "{turn:?} was acked");
        came.entry(turn.0).or_default().push(turn.1);
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
    unanswered.retain(|_, texts| !texts.is_empty());
    assert_eq!(came, unanswered);
}

#[tokio::test]
async fn what_the_original_handed_out_is_stale_to_the_restored() {
    let folder = TempDir::new().expect("a folder");
    let [data, new] = ["data", "new"].map(|name| folder.path().join(name));
    let mut gateway = Gateway::setup().in_folder(&data).start().await;
    gateway.user("c1").says("before").await;
    let mut bot = gateway.bot("echo").attach().await;
    let before = bot.expect("c1", "before", 1).await;
    restored(&gateway, &new).await;
    // The original runs on, and is opened some more times.
    bot.acks(&before).await;
    drop(bot);
    for _ in 0..3 {
        gateway.restart().await;
    }
    gateway.user("c1").says("after").await;
    let mut bot = gateway.bot("echo").attach().await;
    let after = bot.expect("c1", "after", 1).await;

    let copy = Gateway::setup().in_folder(&new).start().await;
    let mut bot = copy.bot("echo").attach().await;
    let again = bot.expect("c1", "before", 2).await;
    assert!(again.delivery_id > after.delivery_id && again.fence > after.fence);
    for old in [&before, &after] {
        assert_eq!(bot.ack(old).await, v1::AckOutcome::Stale);
    }
    bot.acks(&again).await;
}

#[tokio::test]
async fn a_restored_gateway_goes_on_with_everything() {
    let folder = TempDir::new().expect("a folder");
    let [data, new] = ["data", "new"].map(|name| folder.path().join(name));
    let gateway = Gateway::setup().in_folder(&data).start().await;
    let user = gateway.user("c1");
    user.says("poison").await;
    user.says("attempted").await;
    let mut bot = gateway.bot("echo").attach().await;
    let poison = bot.expect("c1", "poison", 1).await;
    assert_eq!(bot.poison(&poison, "no").await, v1::AckOutcome::Ok);
    let attempted = bot.expect("c1", "attempted", 1).await;
    let send = v1::SendActivityRequest {
        request_id: "once".to_owned(),
        target: Some(Target::Conversation(name("web", "c1"))),
        activity: Some(message("sent once").into()),
        ..Default::default()
    };
    let mut conversations = gateway.wire().conversations();
    let sent = within("a send", conversations.send_activity(send.clone())).await;
    let sent = sent.expect("it is sent").into_inner().appended;
    let chat: Chat = gateway.chat().await;
    chat.says("over Direct Line").await;
    let uploading = chat.line.header("content-type", "text/plain");
    let uploading = uploading.header("content-disposition", "attachment; filename=\"a.txt\"");
    let path = format!("/conversations/{}/upload?userId=ann", chat.id);
    uploading.call("POST", &path, "a file's text").await.is(200);

    restored(&gateway, &new).await;
    drop(bot);
    drop(gateway);
    let copy = Gateway::setup().in_folder(&new).start().await;

    // Dead letters, cursors and attempts: what was poison stays away, and what was tried is tried again.
    let mut bot = copy.bot("echo").attach().await;
    let again = loop {
        let delivery = bot.next_delivery().await;
        if place_of(&delivery) == "c1" {
            break delivery;
        }
    };
    assert_eq!((said(&again).as_str(), again.attempt), ("attempted", 2));
    assert!(again.after_gap, "of the dead letter");
    assert!(again.delivery_id > attempted.delivery_id);
    // Idempotency.
    let mut conversations = copy.wire().conversations();
    let repeated = within("a send", conversations.send_activity(send)).await;
    let repeated = repeated.expect("it is known").into_inner();
    assert!(repeated.repeated_send);
    assert_eq!(repeated.appended, sent);
    // The key that tokens are signed with, the log, and the files.
    let chat = chat.at(&copy);
    assert!(chat.texts().await.contains(&"over Direct Line".to_owned()));
    let said = chat.everything().await;
    let url = said.iter().find_map(|activity| {
        let attachments = activity["attachments"].as_array()?;
        attachments.first()?["contentUrl"].as_str()
    });
    let url = url.expect("the upload is in the log");
    let path = &url[url.find("/v3/").expect("a path of Direct Line")..];
    assert_eq!(copy.get(path).await, (200, "a file's text".to_owned()));
}
