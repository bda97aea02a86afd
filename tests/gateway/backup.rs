//! Backups: everything as of one moment, and nothing that is not whole.

use tonic::Code;
use turnwire::backup::{Reader, Record};
use turnwire::proto::v1;
use turnwire::proto::v1::backup_response::Part;

use crate::harness::{Gateway, Wire, padded, refused, seconds, within};

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

#[tokio::test]
async fn a_backup_is_all_that_its_summary_says() {
    let gateway = Gateway::setup().on_disk().start().await;
    gateway.user("c1").says("hi").await;
    let (bytes, summary) = back_up(&gateway.wire()).await;
    let mut reader = Reader::new(bytes.as_slice()).expect("a backup");
    let mut records = 0;
    while let Some(record) = reader.next().expect("it is whole") {
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
