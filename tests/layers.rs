//! The direction of the source tree, as a test: who may use whom, who may name a transport, and how
//! long a file may get.
//!
//! One package cannot fence its modules, so this reads every path in `src/` (`use` lines and inline
//! paths alike, comments and strings left out) and says which edge is new and why it is refused.
//! When an edge is right and a table here is wrong, change the table and say why in the commit.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/lib.rs`. Each may use those of the lines above its own, and no others.
const LAYERS: [&[&str]; 11] = [
    &["proto"],
    &["capacity", "clock", "id", "limits", "metrics", "random"],
    &["activity", "files", "store"],
    &["backup", "engine"],
    &["auth"],
    &["channel"],
    &["status"],
    &["grpc", "http"],
    &["config"],
    &["observability", "server"],
    &["cli"],
];

/// Crates that only some may name.
const FENCES: [Fence; 7] = [
    Fence {
        crates: &[
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
            "axum",
            "http",
            "http_body",
            "hyper",
            "hyper_util",
            "multer",
            "tower",
            "tower_http",
        ],
        // The generated code includes itself with a macro of tonic's, and names the codec.
        allowed: &["proto", "status", "grpc", "http", "server", "cli"],
        why: "the core knows no transport",
    },
    Fence {
        crates: &["prometheus_client"],
        allowed: &["metrics.rs"],
        why: "what is counted is a field of `Metrics`, so that counting looks nothing up",
    },
    Fence {
        crates: &["fjall"],
        allowed: &[
            "store/embedded.rs",
            "store/embedded",
            // What it does by itself is what the gateway is measured by.
            "cli/bench/ceiling/commit.rs",
        ],
        why: "the engine is written against the `Store` trait, not against one store",
    },
    Fence {
        crates: &["async_nats"],
        allowed: &["cli/bench/nats.rs", "cli/bench/nats"],
        why: "it is what the gateway is compared with, and no part of it",
    },
    Fence {
        crates: &["tokio_tungstenite"],
        allowed: &["cli/bench/sockets"],
        why: "the gateway's own sockets are `axum`'s, and this is for clients",
    },
    Fence {
        crates: &["turnwire_client"],
        allowed: &["proto.rs", "cli"],
        why: "the gateway's names for the messages are in `crate::proto`",
    },
    Fence {
        crates: &["prost"],
        // Where stored or stamped bytes are encoded, decoded or measured.
        allowed: &[
            "activity/draft.rs",
            "activity/draft",
            // Stored activities are decoded for clients that read JSON.
            "channel/direct_line/visibility.rs",
            "activity/json/tests.rs",
            // Stored activities are rewritten without someone.
            "activity/erase.rs",
            "activity/outline.rs",
            "activity/validate.rs",
            // Credit is counted in encoded bytes.
            "cli/bench/bot.rs",
            "cli/bench/failover/bot_process.rs",
            "cli/bench/taker.rs",
            "engine/address.rs",
            "engine/conversation.rs",
            "engine/read.rs",
            "engine/schedule.rs",
            "engine/shard/append.rs",
            "engine/shard/change.rs",
            "engine/shard/due.rs",
            "engine/shard/schedule.rs",
            // Pages are bounded in encoded bytes.
            "grpc/admin/letters.rs",
            "grpc/conversations",
            "proto/codec.rs",
            "store/record.rs",
        ],
        why: "elsewhere messages are values, and nobody encodes or decodes them",
    },
];

struct Fence {
    crates: &'static [&'static str],
    /// Files, and folders with all that is in them and the file beside them.
    allowed: &'static [&'static str],
    why: &'static str,
}

/// Most lines of a file. A file that needs more holds two things.
const LINES: usize = 600;

/// Files that may be longer, and how long. No file is added without a reason beside it.
const LONG: [(&str, usize); 1] = [
    // One suite of tests that every store runs.
    ("store/contract.rs", 700),
];

#[test]
fn no_module_uses_one_that_comes_after_it() {
    let refused: Vec<_> = sources().iter().flat_map(refused_edges).collect();
    assert!(refused.is_empty(), "{}", lines(&refused));
}

#[test]
fn fenced_crates_are_named_only_where_they_are_allowed() {
    let refused: Vec<_> = sources().iter().flat_map(refused_crates).collect();
    assert!(refused.is_empty(), "{}", lines(&refused));
}

#[test]
fn every_module_has_a_layer() {
    let map = Source::read(&root().join("lib.rs"));
    let declared: BTreeSet<_> = map
        .tokens
        .windows(2)
        .filter(|pair| pair[0].text == "mod")
        .map(|pair| pair[1].text.clone())
        .collect();
    let layered = LAYERS.iter().flat_map(|layer| layer.iter());
    let layered: BTreeSet<_> = layered.map(|&module| module.to_owned()).collect();
    assert_eq!(declared, layered, "`LAYERS` has the modules of src/lib.rs");
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        // The tests of a file in a file of their own: that file says it.
        .filter(|source| !source.path.ends_with("tests.rs"))
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| format!("src/{} does not begin with a `//!` line", source.path))
        .collect();
    assert!(silent.is_empty(), "{}", lines(&silent));
}

#[test]
fn no_file_is_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter_map(|source| {
            let most = LONG
                .iter()
                .find(|(path, _)| *path == source.path)
                .map_or(LINES, |(_, most)| *most);
            let count = source.text.lines().count();
            let path = source.path;
            (count > most).then(|| format!("src/{path} has {count} lines, more than {most}"))
        })
        .collect();
    assert!(long.is_empty(), "{}", lines(&long));
}

/// The test's own test: what it must refuse, and what it must not.
mod self_check {
    use super::*;

    fn refused(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text);
        let mut refused = refused_edges(&source);
        refused.extend(refused_crates(&source));
        refused.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_edge_against_the_direction_is_refused_with_its_place_and_reason() {
        assert_eq!(
            refused(
                "store/made_up.rs",
                "//! Made up.\n\nuse crate::engine::Engine;\n"
            ),
            [
                "src/store/made_up.rs:3: `store` uses `engine`: `engine` comes after it, so that \
                 `store` can be understood without it"
            ]
        );
    }

    #[test]
    fn modules_of_one_layer_do_not_use_each_other() {
        assert_eq!(refused("grpc.rs", "use crate::http::routes;").len(), 1);
        assert_eq!(refused("store.rs", "use crate::activity::Draft;").len(), 1);
    }

    #[test]
    fn every_way_to_write_a_path_is_read() {
        for text in [
            "use crate::{grpc, store};",
            "use crate::{store::{Key, keys}, grpc::{self, bots}};",
            "use crate :: {\n    store,\n    grpc,\n};",
            "fn f() { crate::grpc::routes() }",
            "use super::super::grpc;",
            "mod deep { use super::super::super::grpc; }",
            "pub(in crate::grpc) fn f() {}",
        ] {
            assert_eq!(refused("engine/shard.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn edges_along_the_direction_pass() {
        for text in [
            "use crate::store::Key;",
            "use crate::{engine::shard, id};",
            "use super::super::store;",
            "mod tests { use super::*; use super::super::round; }",
        ] {
            assert!(refused("engine/shard.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        for text in [
            "//! See [`Server`](crate::server::Server).",
            "/* use crate::server; /* nested */ use crate::cli; */",
            "const A: &str = \"crate::server \\\" crate::cli\";",
            "const B: &str = r#\"crate::server \" crate::cli\"#;",
            "const C: char = '\"'; // crate::server \"",
            "fn f<'a>(a: &'a str) {} // crate::server",
        ] {
            assert!(refused("store.rs", text).is_empty(), "{text}");
        }
        // And what follows them is.
        let text = "const C: char = '\"'; const D: &[u8] = b\"\\\\\"; use crate::server;";
        assert_eq!(refused("store.rs", text).len(), 1);
    }

    #[test]
    fn a_transport_in_the_core_is_refused() {
        assert_eq!(
            refused("engine/link.rs", "fn f() -> tonic::Status { todo() }"),
            ["src/engine/link.rs:1: names the crate `tonic`: the core knows no transport"]
        );
        assert_eq!(refused("engine.rs", "use axum::http::Uri;").len(), 1);
        assert_eq!(refused("auth/secret.rs", "use http;").len(), 1);
        assert_eq!(refused("engine.rs", "use {bytes, hyper::body};").len(), 1);
        assert!(refused("grpc/bots.rs", "use tonic::Status;").is_empty());
        assert!(refused("http/ops.rs", "use axum::http::Uri;").is_empty());
    }

    #[test]
    fn encoding_away_from_the_borders_is_refused() {
        assert_eq!(refused("engine/round.rs", "use prost::Message;").len(), 1);
        assert!(refused("store/record.rs", "use prost::Message;").is_empty());
        // The messages themselves are everywhere.
        assert!(refused("engine/round.rs", "use prost_types::Struct;").is_empty());
    }

    #[test]
    fn a_name_that_only_looks_like_a_crate_passes() {
        for text in [
            "fn f(http: u16) -> u16 { http }",
            "use crate::engine::tonic::Water;",
            "struct Row { http: u16 }",
        ] {
            assert!(refused("engine.rs", text).is_empty(), "{text}");
        }
    }
}

/// Something that a path in the source must not reach.
struct Refused {
    place: String,
    what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Uses of modules that come after the file's own, or beside it.
fn refused_edges(source: &Source) -> Vec<Refused> {
    let own = source.module();
    // `lib.rs` and `main.rs` have none: they name whom they like.
    let Some(own_layer) = layer(own) else {
        return Vec::new();
    };
    let mut refused = Vec::new();
    for (line, used) in source.own_modules() {
        let Some(used_layer) = layer(&used) else {
            continue;
        };
        if used == own || used_layer < own_layer {
            continue;
        }
        let why = if used_layer == own_layer {
            "they stand side by side, and neither needs the other".to_owned()
        } else {
            format!("`{used}` comes after it, so that `{own}` can be understood without it")
        };
        refused.push(Refused {
            place: source.place(line),
            what: format!("`{own}` uses `{used}`: {why}"),
        });
    }
    refused
}

/// Names of crates that the file may not name.
fn refused_crates(source: &Source) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (line, name) in source.crates() {
        for fence in &FENCES {
            if fence.crates.contains(&name.as_str()) && !source.is_within(fence.allowed) {
                refused.push(Refused {
                    place: source.place(line),
                    what: format!("names the crate `{name}`: {}", fence.why),
                });
            }
        }
    }
    refused
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// A source file.
struct Source {
    /// Below `src/`, with slashes.
    path: String,
    text: String,
    tokens: Vec<Token>,
}

struct Token {
    line: usize,
    /// A name, `::`, or one other character.
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens: tokens(text),
        }
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a source file can be read");
        let below = path.strip_prefix(root()).expect("a file below src");
        let parts = below.components().map(|part| part.as_os_str());
        let parts: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
        Self::new(&parts.join("/"), &text)
    }

    /// The module of `src/lib.rs` that it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn place(&self, line: usize) -> String {
        format!("src/{}:{line}", self.path)
    }

    fn is_within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path == *place
                || self.path == format!("{place}.rs")
                || self.path.starts_with(&format!("{place}/"))
        })
    }

    fn text_at(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &token.text)
    }

    /// Every module of the library that a path leads to, by way of `crate` or of `super`.
    fn own_modules(&self) -> Vec<(usize, String)> {
        let depth = self.path.trim_end_matches(".rs").split('/').count();
        let mut inline = InlineModules::default();
        let mut found = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            inline.pass(self, index);
            let leads_to_root = match self.text_at(index) {
                "crate" => true,
                "super" if !self.follows_colons(index) => {
                    let mut supers = 1;
                    while self.text_at(index + 1) == "::" && self.text_at(index + 2) == "super" {
                        supers += 1;
                        index += 2;
                    }
                    supers == depth + inline.depth()
                }
                _ => false,
            };
            if leads_to_root && self.text_at(index + 1) == "::" {
                found.extend(self.first_names(index + 2));
            }
            index += 1;
        }
        found
    }

    fn follows_colons(&self, index: usize) -> bool {
        index > 0 && self.text_at(index - 1) == "::"
    }

    /// The name at `index`, or the first name of each path of the group there.
    fn first_names(&self, index: usize) -> Vec<(usize, String)> {
        let name = |index: usize| {
            let token = self.tokens.get(index)?;
            is_name(&token.text).then(|| (token.line, token.text.clone()))
        };
        if self.text_at(index) != "{" {
            return name(index).into_iter().collect();
        }
        let mut names = Vec::new();
        let mut depth = 0;
        for at in index..self.tokens.len() {
            match self.text_at(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(self.text_at(at), "{" | ",") {
                names.extend(name(at + 1));
            }
        }
        names
    }

    /// Every name that begins a path, or is used whole: among them are the crates.
    fn crates(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            if !is_name(&token.text) || self.follows_colons(index) {
                continue;
            }
            let begins_path = self.text_at(index + 1) == "::";
            let used_whole = index > 0 && self.text_at(index - 1) == "use";
            // `crate::{http, grpc}` is the module.
            let of_this_crate = self.is_in_group_of_this_crate(index);
            if (begins_path || used_whole) && !of_this_crate {
                found.push((token.line, token.text.clone()));
            }
        }
        found
    }

    fn is_in_group_of_this_crate(&self, index: usize) -> bool {
        let mut depth = 0;
        for at in (0..index).rev() {
            match self.text_at(at) {
                ";" => return false,
                "}" => depth += 1,
                "{" if depth > 0 => depth -= 1,
                "{" => return at > 1 && matches!(self.text_at(at - 2), "crate" | "super" | "self"),
                _ => {}
            }
        }
        false
    }
}

/// The `mod name { ... }` that one is in.
#[derive(Default)]
struct InlineModules {
    braces: usize,
    /// The braces that were open where each began.
    begun: Vec<usize>,
}

impl InlineModules {
    fn depth(&self) -> usize {
        self.begun.len()
    }

    fn pass(&mut self, source: &Source, index: usize) {
        match source.text_at(index) {
            "{" => {
                if index > 1 && source.text_at(index - 2) == "mod" {
                    self.begun.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.begun.last() == Some(&self.braces) {
                    self.begun.pop();
                }
            }
            _ => {}
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The names and signs of a source text, without comments, strings and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut line = 1;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            character_or_lifetime(rest)
        } else if rest.starts_with("::") {
            tokens.push(Token {
                line,
                text: "::".to_owned(),
            });
            2
        } else {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = if is_part(first) {
                rest.find(|c| !is_part(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push(Token {
                    line,
                    text: rest[..length].to_owned(),
                });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of `r"..."`, `r#"..."#` and the like, if the text begins with one.
fn raw_string(text: &str) -> Option<usize> {
    let body = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let before = text.len() - inner.len();
    let length = inner.find(&end).map_or(inner.len(), |at| at + end.len());
    Some(before + length)
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut after = text.chars().skip(1);
    let (first, second) = (after.next(), after.next());
    if first == Some('\\') || second == Some('\'') {
        quoted(text, '\'')
    } else {
        // A lifetime: its name is of no interest.
        let name = &text[1..];
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
        1 + end.unwrap_or(name.len())
    }
}

/// Every file of `src/`.
fn sources() -> Vec<Source> {
    let mut folders = vec![root()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a source folder can be read") {
            let path = entry.expect("an entry of a source folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(&path));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "src/ has files");
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn lines(refused: &[impl ToString]) -> String {
    let refused: Vec<_> = refused.iter().map(ToString::to_string).collect();
    format!("\n{}", refused.join("\n"))
}
