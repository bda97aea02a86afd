//! The benchmarks run, and say what they should: nothing is asked of the figures but that there are
//! some.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_turnwire"))
        .arg("bench")
        .args(arguments)
        .args(["--seconds", "1", "--warmup", "0", "--data"])
        .arg(folder.path())
        .env_remove("TURNWIRE_GATEWAY")
        .output()
        .expect("the program runs");
    let left = std::fs::read_dir(folder.path()).expect("the folder is there");
    assert_eq!(left.count(), 0, "a benchmark leaves nothing behind");
    output
}

fn document(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one document")
}

fn systems(document: &Value) -> Vec<&str> {
    let rows = document["rows"].as_array().expect("rows");
    let systems = rows.iter().map(|row| row["system"].as_str());
    systems.map(|system| system.expect("a name")).collect()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn turns_are_told_beside_their_ceilings() {
    let document = document(&bench(&["turns", "--json", "--conversations", "4"]));
    assert_eq!(document["benchmark"], "turns");
    assert_eq!(document["settings"]["bytes"], 450);
    assert!(is_positive(&document["facts"]["cores"]));
    assert!(is_positive(&document["facts"]["fdatasync"]["p50Ms"]));
    assert_eq!(
        systems(&document),
        ["ceiling: echo", "ceiling: commit", "turnwire"]
    );
    for row in document["rows"].as_array().expect("rows") {
        assert_eq!(row["conversations"], 4);
        for key in ["turns", "turnsPerSecond", "p50Ms", "p999Ms", "maxMs"] {
            assert!(is_positive(&row[key]), "{key} of {row}");
        }
    }
    let turnwire = &document["rows"][2];
    assert!(is_positive(&turnwire["shareOfEcho"]));
    assert!(is_positive(&turnwire["shareOfCommit"]));
}

#[test]
fn a_rate_says_what_was_left_at_its_end() {
    let arguments = [
        "rate",
        "--json",
        "--no-ceilings",
        "--conversations",
        "4",
        "--rate",
        "20",
    ];
    let document = document(&bench(&arguments));
    assert_eq!(document["benchmark"], "rate");
    assert_eq!(systems(&document), ["turnwire"]);
    let row = &document["rows"][0];
    assert_eq!(row["offeredPerSecond"], 20.0);
    assert_eq!(row["unanswered"], 0);
    assert!(row["backlog"].is_u64(), "{row}");
    for key in ["turnsPerSecond", "p50Ms", "p90Ms", "p99Ms", "maxMs"] {
        assert!(is_positive(&row[key]), "{key} of {row}");
    }
}

#[test]
fn a_share_of_the_peak_measures_the_peak_first() {
    let arguments = [
        "rate",
        "--json",
        "--no-ceilings",
        "--conversations",
        "2",
        "--share",
        "0.1",
    ];
    let document = document(&bench(&arguments));
    assert_eq!(systems(&document), ["turnwire, peak", "turnwire"]);
    let peak = &document["rows"][0]["turnsPerSecond"];
    let offered = &document["rows"][1]["offeredPerSecond"];
    let share = offered.as_f64().zip(peak.as_f64()).map(|(o, p)| o / p);
    assert!(share.is_some_and(|s| (s - 0.1).abs() < 0.001), "{document}");
}

#[test]
fn people_get_a_table() {
    let output = bench(&["turns", "--no-ceilings", "--conversations", "1,2"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let headings = text.lines().position(|line| line.starts_with("system "));
    let rows = text.lines().skip(headings.expect("headings") + 1);
    let rows: Vec<_> = rows.map(|row| row.split_whitespace().next()).collect();
    assert_eq!(rows, [Some("turnwire"), Some("turnwire")]);
}
