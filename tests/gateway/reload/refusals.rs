//! All or nothing.

use std::fs;

use turnwire::config::Overrides;
use turnwire::server::ReloadError;

use crate::harness::{Gateway, Logs, seconds, within};

/// What a file says when it is like this.
async fn reload_file(gateway: &Gateway, text: &str) -> Result<String, ReloadError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("turnwire.toml");
    fs::write(&path, text).expect("a file");
    let reloader = gateway.reloader();
    let overrides = Overrides::default();
    let reloaded = within("a reload", reloader.reload_file(&path, &overrides)).await;
    reloaded.map(|changes| changes.to_string())
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_every_mistake_is_named() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let text = r#"
        [[bots]]
        id = "new"
        [[channels]]
        id = "web"
        kind = "grpc"
        bot = "nobody"
        [limits]
        sessions = 0
    "#;
    let refused = reload_file(&gateway, text).await.expect_err("it is wrong");
    let said = refused.to_string();
    for part in [
        "turnwire.toml:7:",
        "channels[0].bot",
        "turnwire.toml:9:",
        "limits.sessions",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let unknown = gateway.bot("new").try_attach().await;
    crate::harness::refused(unknown.map(drop), tonic::Code::NotFound, "BOT_UNKNOWN");
    assert_eq!(gateway.metric(REFUSED).await, 1.0);
    assert_eq!(gateway.metric(APPLIED).await, 0.0);
}

const APPLIED: &str = "turnwire_reloads_total{result=\"applied\"}";
const REFUSED: &str = "turnwire_reloads_total{result=\"refused\"}";

#[tokio::test]
async fn a_file_that_is_not_there_changes_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let nowhere = std::path::Path::new("/nowhere/turnwire.toml");
    let overrides = Overrides::default();
    let reloaded = gateway.reloader().reload_file(nowhere, &overrides).await;
    let said = reloaded.expect_err("there is none").to_string();
    assert!(said.contains("/nowhere/turnwire.toml"), "{said}");
    bot.barrier().await;
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_named_and_nothing_else_changes_either() {
    let logs = Logs::default();
    let mut gateway = Gateway::setup().logged(&logs).start().await;
    let mut bot = gateway.bot("other").attach().await;
    let refused = gateway
        .reload(|config| {
            config
                .replace("127.0.0.1:0", "127.0.0.1:1")
                .replace("[[bots]]\nid = \"other\"\n", "")
                .replace("bot = \"other\"", "bot = \"echo\"")
        })
        .await
        .expect_err("it needs a restart");
    assert_eq!(
        refused.to_string(),
        "`listen` from 127.0.0.1:0 to 127.0.0.1:1 needs a restart"
    );
    let limits = gateway
        .relimit(|limits| {
            limits.frame_bytes *= 2;
            limits.shard_commands += 1;
            limits.idempotency_retention += seconds(1);
            limits.sessions = 1;
        })
        .await;
    let said = limits.expect_err("it needs a restart").to_string();
    for limit in ["frame_bytes", "shard_commands", "idempotency_retention"] {
        assert!(said.contains(&format!("`limits.{limit}` from")), "{said}");
    }
    assert!(!said.contains("sessions"), "{said}");
    gateway.user("s1").on("second").says("hi").await;
    bot.expect("s1", "hi", 1).await;
    gateway.bot("echo").attach().await.barrier().await;
    let text = logs.text();
    assert!(text.contains("`listen` from 127.0.0.1:0 to 127.0.0.1:1 needs a restart"));
    assert_eq!(gateway.metric(REFUSED).await, 2.0);
}

#[tokio::test]
async fn the_log_says_what_changed_and_no_secret() {
    let logs = Logs::default();
    let mut gateway = Gateway::setup().logged(&logs).start().await;
    let old = "7b1b763ee8f62eb88e4742a760f912d0b19bcd58b2b948999784bacc15a7f4d7";
    let changes = gateway
        .reload(|config| {
            let config = config.replace(old, &old.replace("7b1b", "0000"));
            format!("{config}\n[[bots]]\nid = \"helper\"\n")
        })
        .await
        .expect("it is in force");
    assert_eq!(
        changes.to_string(),
        "bots added: `helper`; channels changed: `elsewhere`"
    );
    gateway
        .relimit(|limits| limits.delivery_attempts = 9)
        .await
        .expect("it is in force");
    let text = logs.text();
    let line = |part: &str| text.lines().any(|line| line.contains(part));
    assert!(
        line("bots added: `helper`; channels changed: `elsewhere`"),
        "{text}"
    );
    assert!(line("`limits.delivery_attempts` from 5 to 9"), "{text}");
    assert!(
        !text.contains("7b1b") && !text.contains("0000763e"),
        "{text}"
    );
    assert_eq!(gateway.metric(APPLIED).await, 2.0);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let changes = gateway.reload(str::to_owned).await.expect("it is in force");
    assert!(changes.is_empty(), "{changes}");
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
}
