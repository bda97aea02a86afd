//! Looking after a gateway from the command line, with the real program: backup, restore, erase, export.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"
[log]
filter = "error"
[[bots]]
id = "echo"
[[channels]]
id = "web"
kind = "grpc"
bot = "echo"
outbound = "watch"
"#;

/// A folder for everything, and the program run in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("turnwire.toml"), CONFIG).expect("a file");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_turnwire"));
        program
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("TURNWIRE_GATEWAY")
            .env_remove("TURNWIRE_TOKEN")
            .env_remove("TURNWIRE_CONFIG")
            .stdin(Stdio::null());
        program
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().expect("the program runs")
    }

    /// Runs what must succeed, and returns the one document that it prints.
    fn document(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("one document")
    }

    /// Runs what must fail with this code, and returns what it says.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    /// Starts a gateway on a data folder.
    fn serve(&self, data: &str) -> Gateway {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", data];
        let mut program = self.program(&arguments);
        let mut process = program.stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = process.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ");
        let address = address.expect("an address").to_owned();
        Gateway { process, address }
    }

    /// Says something as a user.
    fn says(&self, gateway: &Gateway, conversation: &str, text: &str) {
        let mut program =
            self.program(&["chat", "--channel", "web", "--user", "ann", "--wait", "0"]);
        let chat = program
            .args([
                "--conversation",
                conversation,
                "--gateway",
                &gateway.address,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut chat = chat.expect("it starts");
        let mut stdin = chat.stdin.take().expect("it was piped");
        std::io::Write::write_all(&mut stdin, format!("{text}\n").as_bytes()).expect("it reads");
        drop(stdin);
        // Nobody answers, which it ends with 1 for.
        chat.wait().expect("it ends");
    }
}

/// Killed when dropped.
struct Gateway {
    process: Child,
    address: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_gateway_that_runs_is_backed_up_and_restored() {
    let place = Place::new();
    let gateway = place.serve("data");
    place.says(&gateway, "c1", "kept");
    let listed = |gateway: &Gateway| {
        place.document(&["conversations", "--json", "--gateway", &gateway.address])
    };
    let then = listed(&gateway);
    let saved = place.document(&["backup", "kept", "--json", "--gateway", &gateway.address]);
    place.says(&gateway, "c1", "too late");
    assert_ne!(listed(&gateway), then);
    drop(gateway);
    assert_eq!(
        names(&place.path("kept")),
        ["backup.turnwire", "manifest.json"]
    );
    let manifest = fs::read(place.path("kept/manifest.json")).expect("it is there");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    for member in ["time", "records", "files", "bytes", "sha256"] {
        assert_eq!(manifest[member], saved[member], "{member}");
    }

    let restored = place.document(&["restore", "kept", "--data-dir", "new", "--json"]);
    assert_eq!(restored["sha256"], saved["sha256"]);
    let copy = place.serve("new");
    assert_eq!(listed(&copy), then);
}

#[test]
fn a_gateway_that_does_not_run_is_backed_up_from_its_folder() {
    let place = Place::new();
    let gateway = place.serve("data");
    place.says(&gateway, "c1", "kept");
    let said = place.refused(&["backup", "kept", "--data-dir", "data"], 1);
    assert!(
        said.contains("in use") && said.contains("leave `--data-dir` out"),
        "{said}"
    );
    drop(gateway);
    let said = place.refused(&["backup", "kept", "--data-dir", "nowhere"], 2);
    assert!(said.contains("no data folder"), "{said}");
    assert!(!place.path("nowhere").exists() && !place.path("kept").exists());
    let saved = place.document(&["backup", "kept", "--data-dir", "data", "--json"]);
    let restored = place.document(&["restore", "kept", "--data-dir", "new", "--json"]);
    assert_eq!(restored["records"], saved["records"]);
}

#[test]
fn a_folder_that_has_something_is_left_alone() {
    let place = Place::new();
    let gateway = place.serve("data");
    place.says(&gateway, "c1", "kept");
    let address = gateway.address.as_str();
    fs::create_dir(place.path("mine")).expect("a folder");
    fs::write(place.path("mine/letter"), "mine").expect("a file");
    let said = place.refused(&["backup", "mine", "--gateway", address], 1);
    assert!(said.contains("`mine` is not empty"), "{said}");
    place.document(&["backup", "kept", "--json", "--gateway", address]);
    let said = place.refused(&["backup", "kept", "--gateway", address], 1);
    assert!(said.contains("`kept` is not empty"), "{said}");
    let said = place.refused(&["restore", "kept", "--data-dir", "mine"], 1);
    assert!(said.contains("`mine` is not empty"), "{said}");
    let said = place.refused(&["restore", "kept", "--data-dir", "data"], 1);
    assert!(said.contains("`data` is not empty"), "{said}");
    assert_eq!(names(&place.path("mine")), ["letter"]);
}

#[test]
fn a_backup_that_is_damaged_or_cut_short_is_refused() {
    let place = Place::new();
    let gateway = place.serve("data");
    place.says(&gateway, "c1", "kept");
    place.document(&["backup", "kept", "--json", "--gateway", &gateway.address]);
    drop(gateway);
    let file = place.path("kept/backup.turnwire");
    let whole = fs::read(&file).expect("it is there");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x10;
    for (what, bytes) in [
        ("flipped", &damaged[..]),
        ("cut", &whole[..whole.len() - 40]),
    ] {
        fs::write(&file, bytes).expect("it is written");
        let said = place.refused(&["restore", "kept", "--data-dir", "new"], 1);
        assert!(said.contains("the backup is damaged"), "{what}: {said}");
        assert!(!place.path("new").exists(), "{what}");
    }
    // Nothing is left behind, under whatever name.
    assert_eq!(names(place.0.path()), ["data", "kept", "turnwire.toml"]);
    let said = place.refused(&["restore", "data", "--data-dir", "new"], 1);
    assert!(said.contains("has no manifest.json"), "{said}");
}

#[test]
fn a_person_is_erased_by_name_and_not_by_accident() {
    let place = Place::new();
    let gateway = place.serve("data");
    place.says(&gateway, "c1", "kept");
    let address = gateway.address.as_str();
    let erase = [
        "erase",
        "--channel",
        "web",
        "--user",
        "ann",
        "--gateway",
        address,
    ];
    let said = place.refused(&erase, 2);
    assert!(said.contains("say `--yes`"), "{said}");
    let erased = place.document(&[&erase[..], &["--yes", "--json"]].concat());
    assert!(erased["activities"].as_u64() > Some(0), "{erased}");
    assert_eq!(erased["conversations"], 1);
    let again = place.document(&[&erase[..], &["--yes", "--json"]].concat());
    assert_eq!(
        (&again["activities"], &again["conversations"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn a_conversation_is_exported_as_the_emulator_opens_it() {
    let place = Place::new();
    let gateway = place.serve("data");
    let address = gateway.address.as_str();
    // More than a page.
    let lines: Vec<String> = (0..250).map(|n| format!("line {n}")).collect();
    place.says(&gateway, "c1", &lines.join("\n"));
    let export = ["export", "web/c1", "--gateway", address];
    let transcript = place.document(&export);
    let activities = transcript.as_array().expect("an array");
    let texts = activities
        .iter()
        .filter_map(|activity| activity["text"].as_str());
    assert_eq!(texts.collect::<Vec<_>>(), lines);
    for activity in activities {
        assert_eq!(activity["from"]["role"], "user");
        assert_eq!(activity["recipient"]["role"], "bot");
        assert_eq!(activity["conversation"]["id"], "c1");
        assert!(activity["timestamp"].is_string() && activity["type"].is_string());
    }
    // The same in a file, which is nobody else's.
    let told = place.document(&[&export[..], &["--out", "c1.transcript", "--json"]].concat());
    assert_eq!(told["activities"], activities.len());
    let file = fs::read(place.path("c1.transcript")).expect("it is there");
    let same: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(same, transcript);
    let said = place.refused(&[&export[..], &["--out", "c1.transcript"]].concat(), 1);
    assert!(said.contains("is there already"), "{said}");
}

#[test]
fn several_conversations_are_exported_to_a_folder_with_safe_names() {
    let place = Place::new();
    let gateway = place.serve("data");
    let address = gateway.address.as_str();
    for conversation in ["c1", "../../up", "C1"] {
        place.says(&gateway, conversation, "hi");
    }
    let all = ["export", "--gateway", address];
    let said = place.refused(&all, 2);
    assert!(said.contains("--out"), "{said}");
    let output = place.run(&[&all[..], &["--out", "all", "--json"]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told = String::from_utf8(output.stdout).expect("text");
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 3);
    assert_eq!(names(&place.path("all")), ["web"]);
    let files = names(&place.path("all/web"));
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.contains(&"c1.transcript".to_owned()), "{files:?}");
    for document in &told {
        let file = document["file"].as_str().expect("a path");
        let file = fs::read(place.path(file)).expect("it is there");
        let transcript: Value = serde_json::from_slice(&file).expect("JSON");
        assert_eq!(
            document["activities"],
            transcript.as_array().expect("an array").len()
        );
    }
    let said = place.refused(&[&all[..], &["--out", "all"]].concat(), 1);
    assert!(said.contains("`all` is not empty"), "{said}");
    // Only those of one, and those of nobody.
    let user = ["--channel", "web", "--user", "ann", "--out", "hers"];
    assert!(place.run(&[&all[..], &user].concat()).status.success());
    assert_eq!(names(&place.path("hers/web")).len(), 3);
    let nobody = ["--channel", "web", "--user", "bob", "--out", "his"];
    assert!(place.run(&[&all[..], &nobody].concat()).status.success());
    assert_eq!(names(&place.path("his")), [""; 0]);
}
