//! Uploads of Direct Line, and reading them again: over HTTP/1.1 as it is on the wire.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use turnwire::config::Config;

use crate::harness::{Gateway, within};

const SECRET: &str = "uploads-secret";
/// SHA-256 of [`SECRET`].
const CHANNEL: &str = r#"
[[channels]]
id = "page"
kind = "direct_line"
bot = "echo"
secrets_sha256 = "@@"
"#;
const DAY: Duration = Duration::from_secs(24 * 3600);
const MIB: usize = 1 << 20;

/// A gateway with a folder, and a page with a conversation.
struct Place {
    gateway: Gateway,
    folder: Arc<TempDir>,
    conversation: String,
}

/// An answer.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.expect("a response");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("headers are text");
        let status = head.split(' ').nth(1).expect("a status");
        Self {
            status: status.parse().expect("a number"),
            body: bytes[end + 4..].to_vec(),
            head,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn is(&self, status: u16, code: &str) {
        let error = &self.json()["error"];
        assert_eq!(
            (self.status, error["code"].as_str()),
            (status, Some(code)),
            "{error}"
        );
        assert!(error["message"].is_string());
    }
}

impl Place {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = Arc::new(TempDir::new().expect("a folder"));
        let data = folder.path().to_owned();
        let digest = turnwire::auth::secret::Digest::of(SECRET).to_string();
        let setup = Gateway::setup().and(&CHANNEL.replace("@@", &digest));
        let setup = setup.config(move |config| {
            config.data_dir = data;
            config.limits.body_timeout = Duration::from_secs(30);
            change(config);
        });
        let mut place = Self {
            gateway: setup.start().await,
            folder,
            conversation: String::new(),
        };
        place.conversation = place.start(SECRET).await;
        place
    }

    async fn start(&self, credential: &str) -> String {
        let started = self
            .call("POST", "conversations", credential, &[], b"")
            .await;
        assert_eq!(started.status, 201, "{}", started.text());
        let id = &started.json()["conversationId"];
        id.as_str().expect("an id").to_owned()
    }

    /// What `body` is sent with, and sends it.
    async fn call(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let path = format!("/v3/directline/{path}");
        let authorization = format!("Bearer {credential}");
        let mut headers = headers.to_vec();
        headers.push(("authorization", &authorization));
        self.raw(method, &path, &headers, body.len(), body).await
    }

    /// Promises `length` bytes, and sends `body`.
    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        body: &[u8],
    ) -> Reply {
        let asked = async {
            let mut socket = self.send(method, path, headers, length, body).await;
            let mut response = Vec::new();
            let read = socket.read_to_end(&mut response).await;
            read.expect("it answers");
            Reply::read(&response)
        };
        within(path, asked).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        body: &[u8],
    ) -> TcpStream {
        let address = self.gateway.address();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {length}\r\nconnection: close\r\n\r\n");
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        socket.write_all(body).await.expect("it reads");
        socket
    }

    fn upload_path(&self) -> String {
        format!("conversations/{}/upload", self.conversation)
    }

    async fn upload(&self, body: &[u8]) -> Reply {
        let headers = [("content-type", "multipart/form-data; boundary=BB")];
        let path = self.upload_path();
        self.call("POST", &path, SECRET, &headers, body).await
    }

    async fn upload_single(&self, user: &str, content_type: &str, body: &[u8]) -> Reply {
        let path = format!("{}{user}", self.upload_path());
        let headers = [
            ("content-type", content_type),
            ("content-disposition", "name=\"file\"; filename=\"x.bin\""),
        ];
        self.call("POST", &path, SECRET, &headers, body).await
    }

    /// The messages of the conversation.
    async fn messages(&self) -> Vec<Value> {
        let path = format!("conversations/{}/activities", self.conversation);
        let history = self.call("GET", &path, SECRET, &[], b"").await.json();
        let all = history["activities"].as_array().expect("a list").clone();
        all.into_iter().filter(|a| a["type"] == "message").collect()
    }

    /// Uploads one file; returns the path of its URL.
    async fn one(&self, content_type: &str, name: &str, bytes: &[u8]) -> String {
        let body = form(&[ACTIVITY, &part(name, content_type, bytes)]);
        let reply = self.upload(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let messages = self.messages().await;
        let message = messages.last().expect("a message");
        self.path_of(&message["attachments"][0])
    }

    /// A file's URL without where the gateway is.
    fn path_of(&self, attachment: &Value) -> String {
        let url = attachment["contentUrl"].as_str().expect("a URL");
        let base = format!("http://{}", self.gateway.address());
        let path = url.strip_prefix(&base);
        path.unwrap_or_else(|| panic!("{url} is not of {base}"))
            .to_owned()
    }

    /// Gets a URL as a browser does for an image: without a credential.
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.raw("GET", path, headers, 0, b"").await
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        list(&self.folder.path().join("attachments"), &mut found);
        found
    }

    async fn until_files(&self, count: usize) {
        let waited = async {
            while self.files().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(&format!("{count} files"), waited).await;
    }
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            list(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A part with the activity as the documentation has it: without `Content-Disposition`.
const ACTIVITY: &[u8] = b"Content-Type: application/vnd.microsoft.activity\r\n\r\n\
    {\"type\":\"message\",\"from\":{\"id\":\"u1\"},\"text\":\"look\"}";

fn part(name: &str, content_type: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!(
        "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {content_type}\r\n\r\n"
    );
    [head.as_bytes(), bytes].concat()
}

fn form(parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--BB\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--BB--\r\n");
    body
}

#[tokio::test]
async fn what_direct_line_js_sends_becomes_one_message_that_keeps_its_thumbnails() {
    let place = Place::new().await;
    let activity = json!({
        "type": "message", "text": "two", "from": {"id": "u1"},
        "channelData": {"clientActivityID": "x1"},
        "attachments": [
            {"contentType": "image/png", "name": "a.png", "thumbnailUrl": "data:image/png;base64,AA"},
            {"contentType": "text/plain", "name": "b.txt"},
        ],
    });
    let activity = format!(
        "Content-Disposition: form-data; name=\"activity\"; filename=\"blob\"\r\n\
         Content-Type: application/vnd.microsoft.activity\r\n\r\n{activity}"
    );
    let files = [
        part("b.txt", "text/plain", b"bee"),
        part("a.png", "image/png", b"\x89PNG"),
    ];
    let body = form(&[activity.as_bytes(), &files[0], &files[1]]);
    let path = format!("{}?userId=u1", place.upload_path());
    let headers = [("content-type", "multipart/form-data; boundary=BB")];
    let reply = place.call("POST", &path, SECRET, &headers, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());

    let messages = place.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(reply.json(), json!({"id": messages[0]["id"]}));
    assert_eq!(messages[0]["text"], "two");
    assert_eq!(messages[0]["channelData"]["clientActivityID"], "x1");
    let attachments = messages[0]["attachments"].as_array().expect("a list");
    assert_eq!(attachments.len(), 2);
    assert_eq!(attachments[0]["thumbnailUrl"], "data:image/png;base64,AA");
    let image = place.get(&place.path_of(&attachments[0]), &[]).await;
    assert_eq!((image.status, &image.body[..]), (200, &b"\x89PNG"[..]));
    assert_eq!(image.header("content-type"), Some("image/png"));
    let text = place.get(&place.path_of(&attachments[1]), &[]).await;
    assert_eq!(text.text(), "bee");
}

#[tokio::test]
async fn an_activity_is_taken_first_or_last_and_its_files_without_being_listed() {
    let place = Place::new().await;
    let file = part("März \"1\".png", "image/png", b"one");
    for body in [form(&[ACTIVITY, &file]), form(&[&file, ACTIVITY])] {
        assert_eq!(place.upload(&body).await.status, 200);
    }
    for message in place.messages().await {
        assert_eq!(message["text"], "look");
        assert_eq!(message["from"]["id"], "u1");
        let attachment = &message["attachments"][0];
        assert_eq!(attachment["contentType"], "image/png");
        assert!(
            place
                .path_of(attachment)
                .starts_with("/v3/directline/attachments/")
        );
    }
    let twice = place.upload(&form(&[ACTIVITY, &file, ACTIVITY])).await;
    twice.is(400, "BadArgument");
    place.until_files(4).await;
}

#[tokio::test]
async fn a_single_file_becomes_an_otherwise_empty_message_of_the_user() {
    let place = Place::new().await;
    let reply = place
        .upload_single("?userId=u7", "image/jpeg", b"jpeg")
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let message = &place.messages().await[0];
    assert_eq!(message["from"]["id"], "u7");
    assert!(message.get("text").is_none());
    assert_eq!(message["attachments"][0]["name"], "x.bin");
    let path = place.path_of(&message["attachments"][0]);
    assert_eq!(place.get(&path, &[]).await.text(), "jpeg");

    let nobody = place.upload_single("", "image/jpeg", b"jpeg").await;
    nobody.is(400, "MissingProperty");
    let empty = place.upload_single("?userId=u7", "image/jpeg", b"").await;
    empty.is(400, "BadArgument");
    let form_without_activity = form(&[&part("a", "text/plain", b"a")]);
    place
        .upload(&form_without_activity)
        .await
        .is(400, "MissingProperty");
    place.until_files(2).await;
}

#[tokio::test]
async fn a_tokens_user_is_before_what_is_said() {
    let place = Place::new().await;
    let body = br#"{"user":{"id":"dl_a"}}"#;
    let granted = place
        .call("POST", "tokens/generate", SECRET, &[], body)
        .await;
    let granted = granted.json();
    let token = granted["token"].as_str().expect("a token");
    let id = granted["conversationId"].as_str().expect("an id");
    let path = format!("conversations/{id}/upload?userId=dl_b");
    let headers = [("content-type", "text/plain")];
    // Its conversation starts with it.
    let reply = place.call("POST", &path, token, &headers, b"hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let path = format!("conversations/{id}/activities");
    let history = place.call("GET", &path, token, &[], b"").await.json();
    let activities = history["activities"].as_array().expect("a list");
    assert_eq!(activities.last().expect("one")["from"]["id"], "dl_a");

    // And of another conversation it is no token.
    let path = place.upload_path();
    let foreign = place.call("POST", &path, token, &headers, b"hi").await;
    foreign.is(403, "Forbidden");
    place.until_files(2).await;
}

#[tokio::test]
async fn nothing_is_written_for_who_may_not_or_where_nobody_is() {
    let place = Place::new().await;
    let headers = [("content-type", "text/plain")];
    let path = format!("{}?userId=u", place.upload_path());
    let wrong = place.call("POST", &path, "wrong", &headers, b"hi").await;
    wrong.is(403, "Forbidden");
    let unknown = "conversations/nowhere/upload?userId=u";
    let unknown = place.call("POST", unknown, SECRET, &headers, b"hi").await;
    unknown.is(404, "NotFound");
    let post = format!("conversations/{}/activities", place.conversation);
    let end = br#"{"type":"endOfConversation","from":{"id":"u"}}"#;
    assert_eq!(
        place.call("POST", &post, SECRET, &[], end).await.status,
        200
    );
    let ended = place.call("POST", &path, SECRET, &headers, b"hi").await;
    ended.is(409, "BadArgument");
    assert!(place.files().is_empty());
}

#[tokio::test]
async fn what_is_of_neither_form_is_refused() {
    let place = Place::new().await;
    let path = format!("{}?userId=u", place.upload_path());
    for content_type in [
        "multipart/mixed; boundary=BB",
        "application/x-www-form-urlencoded",
        "png",
    ] {
        let headers = [("content-type", content_type)];
        let refused = place.call("POST", &path, SECRET, &headers, b"hi").await;
        refused.is(415, "BadArgument");
    }
    place
        .call("POST", &path, SECRET, &[], b"hi")
        .await
        .is(415, "BadArgument");
    let headers = [("content-type", "multipart/form-data")];
    let boundless = place.call("POST", &path, SECRET, &headers, b"hi").await;
    boundless.is(400, "BadArgument");
    for body in [&b"--BB--\r\n"[..], b"", b"no parts", &form(&[ACTIVITY])] {
        place.upload(body).await.is(400, "BadArgument");
    }
    let headers = part("a", "text/plain", b"a");
    let long = [b"X-Long: ".as_slice(), &vec![b'a'; MIB], b"\r\n", &headers].concat();
    place.upload(&form(&[&long])).await.is(400, "BadArgument");
    place.until_files(0).await;
}

#[tokio::test]
async fn an_empty_file_is_one() {
    let place = Place::new().await;
    let path = place.one("text/plain", "empty.txt", b"").await;
    let reply = place.get(&path, &[]).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-length"), Some("0"));
}

#[tokio::test]
async fn files_are_taken_up_to_the_limits_and_not_above() {
    let place = Place::with(|config| {
        config.limits.attachment_bytes = 3 * MIB;
        config.limits.attachment_files = 3;
        config.limits.activity_bytes = 1024;
    })
    .await;
    let big = vec![7; 3 * MIB];
    let path = place.one("application/octet-stream", "big", &big).await;
    assert!(place.get(&path, &[]).await.body == big);
    let one_more = part("b", "text/plain", b"b");
    let above = form(&[ACTIVITY, &part("big", "image/png", &big), &one_more]);
    place.upload(&above).await.is(413, "MessageSizeTooBig");
    let single = place
        .upload_single("?userId=u", "image/png", &[7; 3 * MIB + 1])
        .await;
    single.is(413, "MessageSizeTooBig");

    let three = form(&[&one_more, &one_more, ACTIVITY, &one_more]);
    assert_eq!(place.upload(&three).await.status, 200);
    let four = form(&[&one_more, &one_more, ACTIVITY, &one_more, &one_more]);
    place.upload(&four).await.is(400, "BadArgument");

    let long = [ACTIVITY, &[b' '; 1024]].concat();
    let long = place.upload(&form(&[&one_more, &long])).await;
    long.is(413, "MessageSizeTooBig");
    place.until_files(8).await;
    assert_eq!(place.messages().await.len(), 2);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let place = Place::new().await;
    let file = part("a.bin", "application/octet-stream", &[7; 300_000]);
    let body = form(&[ACTIVITY, &file, &file]);
    let headers = [
        ("content-type", "multipart/form-data; boundary=BB"),
        ("authorization", "Bearer uploads-secret"),
    ];
    let path = format!("/v3/directline/{}", place.upload_path());
    let cut = &body[..500_000];
    let socket = place.send("POST", &path, &headers, body.len(), cut).await;
    // The second file has begun.
    place.until_files(2).await;
    drop(socket);
    place.until_files(0).await;
    assert!(place.messages().await.is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_given_up_and_one_that_does_is_not() {
    let place = Place::new().await;
    let body = form(&[
        ACTIVITY,
        &part("a.bin", "application/octet-stream", &[7; 4_000]),
    ]);
    let headers = [
        ("content-type", "multipart/form-data; boundary=BB"),
        ("authorization", "Bearer uploads-secret"),
    ];
    let path = format!("/v3/directline/{}", place.upload_path());
    let mut socket = place
        .send("POST", &path, &headers, body.len(), &body[..1_000])
        .await;
    place.until_files(1).await;
    place.gateway.pass(Duration::from_secs(29)).await;
    // It says something, and has as long again.
    socket
        .write_all(&body[1_000..2_000])
        .await
        .expect("it reads");
    let file = &place.files()[0];
    let grown = async {
        while std::fs::metadata(file).is_ok_and(|file| file.len() < 1_000) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the file grows", grown).await;
    place.gateway.pass(Duration::from_secs(29)).await;
    assert_eq!(place.files().len(), 1);
    place.gateway.pass(Duration::from_secs(2)).await;
    let mut response = Vec::new();
    let read = within("the answer", socket.read_to_end(&mut response)).await;
    read.expect("it answers");
    Reply::read(&response).is(408, "RequestTimeout");
    place.until_files(0).await;
}

#[tokio::test]
async fn files_are_read_whole_or_in_part_and_not_again_when_they_are_known() {
    let place = Place::new().await;
    let path = place.one("video/mp4", "v.mp4", b"0123456789").await;
    let whole = place.get(&path, &[]).await;
    assert_eq!((whole.status, whole.text()), (200, "0123456789"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let etag = whole.header("etag").expect("a tag").to_owned();

    let head = place.raw("HEAD", &path, &[], 0, b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("10"));
    assert_eq!(head.header("etag"), Some(&*etag));
    assert_eq!(head.header("content-type"), Some("video/mp4"));

    let known = place.get(&path, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let other = place.get(&path, &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status, 200);

    for (range, part, described) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let reply = place.get(&path, &[("range", range)]).await;
        assert_eq!((reply.status, reply.text()), (206, part), "{range}");
        assert_eq!(reply.header("content-range"), Some(described));
        assert_eq!(reply.header("content-type"), Some("video/mp4"));
    }
    let beyond = place.get(&path, &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));

    let same = [("range", "bytes=2-4"), ("if-range", &*etag)];
    assert_eq!(place.get(&path, &same).await.status, 206);
    let changed = [("range", "bytes=2-4"), ("if-range", "\"other\"")];
    let changed = place.get(&path, &changed).await;
    assert_eq!((changed.status, changed.text()), (200, "0123456789"));
}

#[tokio::test]
async fn what_could_run_is_a_download_and_nothing_runs() {
    let place = Place::new().await;
    for (content_type, name, shown) in [
        ("image/png", "a.png", "inline; filename*=UTF-8''a.png"),
        (
            "text/html",
            "a b.html",
            "attachment; filename*=UTF-8''a%20b.html",
        ),
        (
            "image/svg+xml",
            "ä.svg",
            "attachment; filename*=UTF-8''%C3%A4.svg",
        ),
        ("not a type", "../../x", "attachment; filename*=UTF-8''x"),
    ] {
        let path = place.one(content_type, name, b"<script>").await;
        let reply = place
            .get(&path, &[("origin", "https://page.example")])
            .await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-disposition"), Some(shown));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("sandbox; default-src 'none';"),
            "{policy}"
        );
        let age = reply.header("cache-control").expect("an age");
        assert!(
            age.starts_with("private, max-age=") && age.ends_with(", immutable"),
            "{age}"
        );
        assert_eq!(
            reply.header("cross-origin-resource-policy"),
            Some("cross-origin")
        );
        // The page that sent it reads it again to send it again.
        let allowed = reply.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://page.example"));
    }
}

#[tokio::test]
async fn no_path_leads_elsewhere() {
    let place = Place::with(|config| config.limits.attachment_retention = Duration::ZERO).await;
    let good = place.one("text/plain", "a.txt", b"a").await;
    std::fs::write(place.folder.path().join("outside"), b"outside").expect("written");
    let id = good.split('/').nth_back(1).expect("an id");
    let (day, random) = id.split_once('-').expect("an id");
    for path in [
        "../outside".to_owned(),
        "..%2foutside/a".to_owned(),
        "%2e%2e/outside".to_owned(),
        "..%00/a".to_owned(),
        format!("{day}%2f{random}/a"),
        format!("{day}/{random}"),
        format!("{id}.json/a"),
        format!("{id}%00/a"),
        format!("{id}%ff/a"),
        format!("{}-{}/a", day, "A".repeat(43)),
        format!("{id}/../../outside"),
        "a/b/c".to_owned(),
        "/".to_owned(),
    ] {
        let reply = place
            .get(&format!("/v3/directline/attachments/{path}"), &[])
            .await;
        assert!(!reply.text().contains("outside\""), "{path}");
        reply.is(404, "NotFound");
    }
    // The name in a URL is for people.
    let other_name = format!("/v3/directline/attachments/{id}/..%2f%00");
    assert_eq!(place.get(&other_name, &[]).await.text(), "a");
}

#[tokio::test]
async fn a_url_is_good_after_a_restart_and_until_its_day_is_swept() {
    let mut place = Place::with(|config| config.limits.attachment_retention = 2 * DAY).await;
    let path = place.one("text/plain", "a.txt", b"kept").await;
    let left = place.folder.path().join("attachments/incoming/left");
    std::fs::write(&left, b"half").expect("written");
    place.gateway.restart().await;
    assert_eq!(place.get(&path, &[]).await.text(), "kept");
    assert!(!left.exists());

    place.gateway.pass(2 * DAY).await;
    assert_eq!(place.get(&path, &[]).await.text(), "kept");
    place.gateway.pass(DAY).await;
    place.get(&path, &[]).await.is(404, "NotFound");
    place.until_files(0).await;
}

#[tokio::test]
async fn what_is_uploaded_again_is_the_same_activity_with_the_files_of_the_first_time() {
    let place = Place::new().await;
    let activity =
        b"Content-Type: application/vnd.microsoft.activity\r\n\r\n{\"type\":\"message\",\
        \"from\":{\"id\":\"u1\"},\"channelData\":{\"clientActivityID\":\"again\"}}";
    let body = form(&[activity, &part("a.txt", "text/plain", b"a")]);
    let first = place.upload(&body).await;
    let second = place.upload(&body).await;
    assert_eq!((first.status, first.json()), (200, second.json()));
    let messages = place.messages().await;
    assert_eq!(messages.len(), 1);
    let path = place.path_of(&messages[0]["attachments"][0]);
    place.until_files(2).await;
    assert_eq!(place.get(&path, &[]).await.text(), "a");
}

#[tokio::test]
async fn a_refused_activity_takes_its_files_along() {
    let place = Place::new().await;
    let file = part("a.txt", "text/plain", b"a");
    for (activity, status, code) in [
        (&b"{"[..], 400, "BadSyntax"),
        (b"[]", 400, "BadArgument"),
        (br#"{"from":{"id":"u"}}"#, 400, "MissingProperty"),
        (br#"{"type":"message"}"#, 400, "MissingProperty"),
        (br#"{"type":"trace","from":{"id":"u"}}"#, 400, "BadArgument"),
        (
            br#"{"type":"message","from":{"id":"u"},"attachments":{}}"#,
            400,
            "BadArgument",
        ),
    ] {
        let head = b"Content-Type: application/vnd.microsoft.activity\r\n\r\n";
        let activity = [&head[..], activity].concat();
        place
            .upload(&form(&[&file, &activity]))
            .await
            .is(status, code);
    }
    place.until_files(0).await;
}

#[tokio::test]
async fn a_full_disk_takes_no_files() {
    let place = Place::new().await;
    place.gateway.memory().set_free_bytes(1);
    let full = place.upload_single("?userId=u", "image/png", b"png").await;
    full.is(507, "ServiceError");
    assert!(full.header("retry-after").is_some());
    assert!(place.files().is_empty());
}
