//! Which file is which of an activity's attachments.
//!
//! DirectLineJS lists the attachments of what it uploads, without `contentUrl` and in the order of the
//! files; others list none. What they list may have members that nobody else knows: `thumbnailUrl` above
//! all.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::channel::direct_line::{BASE, Error};
use crate::files::{About, FileId, clean_name};

/// What a name in a URL is written without.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The last part of the URL of a file without a name.
const NAMELESS: &str = "file";

/// A file that came with an activity.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub content_type: String,
    pub content_url: String,
    /// As it is kept.
    pub name: Option<String>,
    /// As it was sent, which is what an activity lists.
    pub sent_name: Option<String>,
}

/// The URL of a file: readable without headers, and known to who was told only.
pub(super) fn url(base: &str, id: &FileId, about: &About) -> String {
    let name = about.name.as_deref().unwrap_or(NAMELESS);
    let name = utf8_percent_encode(name, ESCAPED);
    format!("{base}{BASE}/attachments/{id}/{name}")
}

/// Puts files among the attachments of an activity: into the listed ones that wait for a file, by name
/// and then by order, and the rest behind them.
///
/// # Errors
///
/// [`Error::ArgumentBad`] when `attachments` is not a list of objects.
pub(super) fn attach(activity: &mut Map<String, Value>, files: Vec<File>) -> Result<(), Error> {
    let listed = activity.entry("attachments").or_insert(Value::Null);
    if listed.is_null() {
        *listed = Value::Array(Vec::new());
    }
    let listed = listed
        .as_array_mut()
        .filter(|listed| listed.iter().all(Value::is_object))
        .ok_or_else(|| Error::bad("attachments", "must be a list of objects"))?;
    let mut waiting: Vec<_> = (0..listed.len())
        .filter(|at| waits_for_file(&listed[*at]))
        .collect();
    let mut unmatched = Vec::new();
    for file in files {
        match waiting.iter().position(|at| is_named(&listed[*at], &file)) {
            Some(found) => fill(&mut listed[waiting.remove(found)], &file),
            None => unmatched.push(file),
        }
    }
    let mut waiting = waiting.into_iter();
    for file in unmatched {
        match waiting.next() {
            Some(at) => fill(&mut listed[at], &file),
            None => {
                let mut attachment = Value::Object(Map::new());
                fill(&mut attachment, &file);
                listed.push(attachment);
            }
        }
    }
    Ok(())
}

/// A card has its content, and a link leads elsewhere. A `blob:` is of the page that made it.
fn waits_for_file(attachment: &Value) -> bool {
    let is_there = |name| attachment.get(name).is_some_and(|value| !value.is_null());
    let url = attachment.get("contentUrl").and_then(Value::as_str);
    let leads_elsewhere = url.is_some_and(|url| {
        let scheme = url.split(':').next().unwrap_or_default();
        !url.is_empty() && !scheme.eq_ignore_ascii_case("blob")
    });
    !is_there("content") && !leads_elsewhere
}

fn is_named(attachment: &Value, file: &File) -> bool {
    let Some(name) = attachment.get("name").and_then(Value::as_str) else {
        return false;
    };
    file.sent_name.as_deref() == Some(name)
        || (file.name.is_some() && clean_name(name) == file.name)
}

/// What is listed stays as it is, but for where the file is.
fn fill(attachment: &mut Value, file: &File) {
    let Some(members) = attachment.as_object_mut() else {
        return;
    };
    say(members, "contentType", Some(&file.content_type));
    members.insert("contentUrl".to_owned(), file.content_url.as_str().into());
    say(members, "name", file.name.as_ref());
}

/// Sets a member that says nothing yet.
fn say(members: &mut Map<String, Value>, name: &str, value: Option<&String>) {
    let Some(value) = value else { return };
    let member = members.entry(name).or_insert(Value::Null);
    if member.is_null() || member == "" {
        *member = value.as_str().into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(name: &str) -> File {
        File {
            content_type: "image/png".to_owned(),
            content_url: format!("http://g/{name}"),
            name: clean_name(name),
            sent_name: Some(name.to_owned()),
        }
    }

    fn attached(listed: Value, files: &[&str]) -> Value {
        let mut activity = Map::new();
        activity.insert("attachments".to_owned(), listed);
        let files = files.iter().map(|name| file(name)).collect();
        attach(&mut activity, files).expect("good");
        activity["attachments"].take()
    }

    #[test]
    fn listed_attachments_are_found_by_name_and_keep_their_members() {
        let listed = json!([
            {"contentType": "image/jpeg", "name": "a", "thumbnailUrl": "data:a", "x": 1},
            {"contentType": "image/png", "name": "b"},
        ]);
        assert_eq!(
            attached(listed, &["b", "a"]),
            json!([
                {"contentType": "image/jpeg", "name": "a", "thumbnailUrl": "data:a", "x": 1,
                    "contentUrl": "http://g/a"},
                {"contentType": "image/png", "name": "b", "contentUrl": "http://g/b"},
            ])
        );
    }

    #[test]
    fn files_that_no_name_finds_are_taken_in_order() {
        let listed = json!([{"thumbnailUrl": "data:1"}, {"name": "b"}, {"name": "c"}]);
        assert_eq!(
            attached(listed, &["blob", "b", "blob"]),
            json!([
                {"thumbnailUrl": "data:1", "contentType": "image/png", "contentUrl": "http://g/blob",
                    "name": "blob"},
                {"name": "b", "contentType": "image/png", "contentUrl": "http://g/b"},
                {"name": "c", "contentType": "image/png", "contentUrl": "http://g/blob"},
            ])
        );
    }

    #[test]
    fn files_of_the_same_name_are_taken_in_order_and_the_rest_is_added() {
        let both = attached(
            json!([{"name": "a", "n": 1}, {"name": "a", "n": 2}]),
            &["a"; 3],
        );
        let numbers: Vec<_> = both.as_array().unwrap().iter().map(|a| &a["n"]).collect();
        assert_eq!(numbers, [&json!(1), &json!(2), &Value::Null]);
        let added = json!([{"contentType": "image/png", "contentUrl": "http://g/a", "name": "a"}]);
        assert_eq!(attached(Value::Null, &["a"]), added);
    }

    #[test]
    fn cards_and_links_are_no_places_for_files() {
        let listed = json!([
            {"contentType": "application/vnd.microsoft.card.hero", "content": {}},
            {"contentType": "image/png", "contentUrl": "https://elsewhere/a", "name": "a"},
            {"contentType": "image/png", "contentUrl": "blob:http://page/1", "name": "a"},
            {"contentType": "image/png", "contentUrl": null, "content": null, "name": "z"},
        ]);
        let both = attached(listed.clone(), &["a", "b"]);
        assert_eq!(both[0], listed[0]);
        assert_eq!(both[1], listed[1]);
        assert_eq!(both[2]["contentUrl"], "http://g/a");
        assert_eq!(both[3]["contentUrl"], "http://g/b");
        assert_eq!(both[3]["name"], "z");
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for listed in [json!({}), json!("a"), json!([1]), json!([null])] {
            let mut activity = Map::new();
            activity.insert("attachments".to_owned(), listed);
            let refused = attach(&mut activity, vec![file("a")]);
            assert!(matches!(refused, Err(Error::ArgumentBad { .. })));
        }
    }
}
