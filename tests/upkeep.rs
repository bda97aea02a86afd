//! Looking after a gateway from the command line, with the real program: backup, restore, erase.

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
