//! The benchmarks, through the real program at a tiny scale: that each runs to its end and tells its
//! results as one document. What they measure here means nothing.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs `turnwire bench` with a gateway of its own.
fn bench(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder for the test");
    Command::new(env!("CARGO_BIN_EXE_turnwire"))
        .arg("bench")
        .args(arguments)
        .arg("--data")
        .arg(folder.path())
        .env_remove("TURNWIRE_GATEWAY")
        .env_remove("TURNWIRE_TOKEN")
        .env_remove("TURNWIRE_SECRET")
        .output()
        .expect("the program runs")
}

/// The rows of a benchmark that must succeed.
fn rows(arguments: &[&str]) -> Vec<Value> {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = bench(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(document["benchmark"], arguments[0]);
    assert!(document["facts"]["cores"].is_u64(), "{document}");
    let rows = document["rows"].as_array().expect("rows").clone();
    assert!(!rows.is_empty(), "{document}");
    rows
}

/// What a usage mistake says.
fn mistake(arguments: &[&str]) -> String {
    let output = bench(arguments);
    assert_eq!(output.status.code(), Some(2), "a mistake has code 2");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(row: &Value, member: &str) -> f64 {
    row[member]
        .as_f64()
        .unwrap_or_else(|| panic!("no `{member}` in {row}"))
}

#[test]
fn fanout_reaches_every_watcher() {
    let rows = rows(&[
        "fanout",
        "--watchers",
        "3,8",
        "--connections",
        "2",
        "--in-flight",
        "4",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    let watchers: Vec<_> = rows.iter().map(|row| number(row, "watchers")).collect();
    assert_eq!(watchers, [3.0, 8.0]);
    for row in &rows {
        assert!(number(row, "receivedPerSecond") > 0.0, "{row}");
        assert!(number(row, "p50Ms") <= number(row, "maxMs"), "{row}");
    }
}

#[test]
fn a_paced_fanout_posts_as_often_as_it_was_told() {
    let rows = rows(&[
        "fanout",
        "--watchers",
        "2",
        "--rate",
        "50",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    let rate = number(&rows[0], "postsPerSecond");
    assert!((20.0..=55.0).contains(&rate), "{rate} posts/s");
}

#[test]
#[cfg(target_os = "linux")]
fn idle_streams_have_a_size() {
    for (sharing, connections) in [(&[][..], 20.0), (&["--connections", "2"][..], 2.0)] {
        let mut arguments = vec!["idle", "--streams", "20", "--seconds", "1"];
        arguments.extend(sharing);
        let rows = rows(&arguments);
        assert_eq!(number(&rows[0], "connections"), connections);
        assert!(number(&rows[0], "afterMib") > 0.0, "{}", rows[0]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn sockets_have_a_size_and_show_everything_once() {
    let rows = rows(&[
        "sockets",
        "--sockets",
        "12",
        "--talking",
        "5",
        "--rate",
        "20",
        "--idle",
        "0",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    let what: Vec<_> = rows.iter().map(|row| row["what"].clone()).collect();
    assert_eq!(what, ["echo", "answer"]);
    for row in &rows {
        assert_eq!(number(row, "sockets"), 12.0);
        assert_eq!(number(row, "talking"), 5.0);
        assert!(number(row, "openedPerSecond") > 0.0, "{row}");
        assert!(number(row, "afterMib") > 0.0, "{row}");
        assert!(number(row, "p50Ms") <= number(row, "maxMs"), "{row}");
        assert_eq!((number(row, "lost"), number(row, "doubled")), (0.0, 0.0));
    }
    assert!(number(&rows[0], "p50Ms") <= number(&rows[1], "p50Ms"));
}

#[test]
fn silent_sockets_have_no_latencies() {
    let rows = rows(&["sockets", "--sockets", "2", "--talking", "0", "--idle", "0"]);
    assert_eq!(rows.len(), 1);
    assert!(rows[0]["what"].is_null(), "{}", rows[0]);
    assert!(rows[0]["p50Ms"].is_null(), "{}", rows[0]);
}

#[test]
fn a_backlog_is_filled_and_drained() {
    let rows = rows(&["backlog", "--pending", "500", "--conversations", "7"]);
    assert_eq!(number(&rows[0], "pending"), 500.0);
    assert!(number(&rows[0], "drainedPerSecond") > 0.0, "{}", rows[0]);
}

#[test]
fn a_grown_log_is_compared_with_an_empty_one() {
    let rows = rows(&[
        "grow",
        "--activities",
        "1000",
        "--windows",
        "1",
        "--conversations",
        "4",
        "--settle",
        "0",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    assert_eq!(rows.len(), 5);
    assert_eq!(number(&rows[0], "activities"), 0.0);
    assert!(number(&rows[4], "activities") >= 1_000.0, "{}", rows[4]);
    assert!(number(&rows[4], "ratio") > 0.0, "{}", rows[4]);
}

#[test]
#[cfg(unix)]
fn a_gateway_is_reopened_after_either_way_to_stop() {
    let rows = rows(&[
        "reopen",
        "--conversations",
        "200",
        "--pending",
        "20",
        "--starts",
        "1",
    ]);
    let stopped: Vec<_> = rows.iter().map(|row| row["stoppedBy"].clone()).collect();
    assert_eq!(stopped, ["SIGTERM", "SIGKILL"]);
    assert!(rows[0]["drainedMs"].is_null(), "{}", rows[0]);
    assert!(number(&rows[1], "drainedMs") > 0.0, "{}", rows[1]);
}

#[test]
fn failover_leaves_nothing_unanswered() {
    let rows = rows(&[
        "failover",
        "--kills",
        "1",
        "--conversations",
        "12",
        "--seconds",
        "2",
        "--warmup",
        "1",
    ]);
    assert!(number(&rows[0], "held") > 0.0, "{}", rows[0]);
    assert!(number(&rows[0], "silenceMs") > 0.0, "{}", rows[0]);
}

#[test]
fn nonsense_is_refused() {
    for nonsense in [
        &["fanout", "--watchers", "0"][..],
        &["idle", "--streams", "0"],
        &["backlog", "--pending", "0"],
        &["grow", "--windows", "0"],
        &["failover", "--processes", "1"],
        &["reopen", "--conversations", "10", "--pending", "11"],
        &["idle", "--streams", "10001", "--connections", "1"],
        &["sockets", "--sockets", "0"],
        &["sockets", "--gateway", "http://127.0.0.1:1"],
        &["sockets", "--secret", "of no gateway"],
    ] {
        let said = mistake(nonsense);
        assert!(said.starts_with("error: "), "{nonsense:?}: {said}");
    }
}

#[test]
fn what_needs_a_gateway_of_its_own_is_not_pointed_at_another() {
    for benchmark in ["idle", "grow", "reopen"] {
        let output = Command::new(env!("CARGO_BIN_EXE_turnwire"))
            .args(["bench", benchmark, "--gateway", "http://127.0.0.1:1"])
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{benchmark}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("--gateway"), "{said}");
    }
}

#[test]
fn a_disk_that_is_too_small_is_said_before_it_is_full() {
    let output = bench(&["backlog", "--pending", "100000000", "--size", "1000000"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--data"), "{said}");
}
