//! What no client would send: answered as documented, nothing lost, nobody else the worse for it.

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::{heard, hears, quiet};
use crate::harness::{Answer, Frame, Gateway, says, seconds, within};

/// Checks that an ordinary conversation works.
async fn serves(gateway: &Gateway) {
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    chat.says("hi").await;
    loop {
        let delivery = bot.next_delivery().await;
        let told = heard(&delivery);
        if told["conversation"]["id"] == *chat.id && told["type"] == "message" {
            bot.commits(&delivery, &["hello"]).await;
            break;
        }
        bot.acks(&delivery).await;
    }
    stream.expect("hi").await;
    stream.expect("hello").await;
}

/// Checks that it is a refusal with the documented body.
#[track_caller]
fn is_problem(answer: &Answer, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{answer:?}");
    let error = &answer.body["error"];
    let is_documented = error["code"].is_string() && error["message"].is_string();
    assert!(is_documented, "{answer:?}");
}

/// Writes bytes, then no more, and reads what comes until the other side is done.
async fn cut(gateway: &Gateway, request: &[u8]) -> String {
    exchange(gateway, request, true).await
}

/// Writes bytes, and reads what comes.
async fn raw(gateway: &Gateway, request: &[u8]) -> String {
    exchange(gateway, request, false).await
}

async fn exchange(gateway: &Gateway, request: &[u8], is_cut: bool) -> String {
    let exchange = async {
        let socket = TcpStream::connect(gateway.address()).await;
        let (mut reads, mut writes) = socket.expect("it listens").into_split();
        let write = async {
            // Whoever is refused half-way may be cut off while writing.
            let _ = writes.write_all(request).await;
            if is_cut {
                let _ = writes.shutdown().await;
            }
        };
        let mut response = Vec::new();
        let read = async {
            while !is_whole(&response) {
                match reads.read_buf(&mut response).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
        };
        tokio::join!(write, read);
        String::from_utf8_lossy(&response).into_owned()
    };
    within("an answer", exchange).await
}

/// Whether it is a response with all of its body.
fn is_whole(response: &[u8]) -> bool {
    let response = String::from_utf8_lossy(response);
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

fn status(response: &str) -> Option<u16> {
    response.split(' ').nth(1)?.parse().ok()
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} /v3/directline{path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer site-one\r\n\
         connection: close\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_body_that_is_no_activity_is_refused() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let path = format!("/conversations/{}/activities", chat.id);
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let valued =
        |value: &str| format!(r#"{{"type":"message","from":{{"id":"ann"}},"value":{value}}}"#);
    let bodies: [Bytes; 18] = [
        "".into(),
        " ".into(),
        "{".into(),
        "}".into(),
        "nul".into(),
        "{'type':'message'}".into(),
        r#"{"type":"message","from":{"id":"ann"}} trailing"#.into(),
        r#"{"type":"message","from":{"id":"ann"},}"#.into(),
        r#"{"type":"message","from":{"id":"ann"},"text":"\ud800"}"#.into(),
        Bytes::from_static(
            b"{\"type\":\"message\",\"from\":{\"id\":\"ann\"},\"text\":\"\xff\xfe\"}",
        ),
        Bytes::from_static(b"\xef\xbb\xbf{}"),
        Bytes::from_static(b"\0"),
        "[".repeat(500_000).into(),
        r#"{"a":"#.repeat(100_000).into(),
        deep(100_000).into(),
        valued(&deep(100_000)).into(),
        valued("1e999").into(),
        valued("NaN").into(),
    ];
    for body in bodies {
        let answer = chat.line.call("POST", &path, body).await;
        answer.refused(400, "BadSyntax");
    }
    for body in [
        deep(50),
        valued(&deep(100)),
        "null".to_owned(),
        "true".to_owned(),
    ] {
        let answer = chat.line.call("POST", &path, body).await;
        answer.refused(400, "BadArgument");
    }
    assert_eq!(chat.everything().await, Vec::<Value>::new());
    serves(&gateway).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_on_a_connection_that_ends() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let secret = gateway.line("site-one");
    let large = Bytes::from(vec![b' '; 2 << 20]);
    let post = format!("/conversations/{}/activities", chat.id);
    for (line, path) in [
        (&chat.line, &*post),
        (&secret, "/tokens/generate"),
        (&secret, "/conversations"),
    ] {
        for _ in 0..3 {
            let answer = line.call("POST", path, large.clone()).await;
            answer.refused(413, "MessageSizeTooBig");
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
    assert_eq!(chat.everything().await, Vec::<Value>::new());
    serves(&gateway).await;
}

#[tokio::test]
async fn an_id_leads_to_its_conversation_and_nowhere_else() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    chat.says("private").await;
    let long = "x".repeat(10_000);
    let sneaky = format!("..%2fconversations%2f{}", chat.id);
    let padded = format!("{}%00", chat.id);
    for id in [
        "..",
        ".",
        "%2e%2e",
        "%2e%2e%2f",
        "..%2f..%2fhealthz",
        "%00",
        "a%00b",
        "%ff",
        "%c3%28",
        "%",
        "%zz",
        "a%2fb",
        "%0d%0aset-cookie:x",
        "*",
        "'",
        "a;b",
        "%20",
        &long,
        &sneaky,
        &padded,
    ] {
        for line in [&chat.line, &gateway.line("site-one")] {
            for answer in [
                line.history(id, None).await,
                line.reconnect(id, None).await,
                line.post(id, &says("ann", "hi")).await,
            ] {
                is_problem(&answer, &[400, 403, 404]);
                assert!(answer.header("set-cookie").is_none());
            }
        }
        let url = chat.url.replace(&chat.id, id);
        let path = url.split_once("/v3/directline").expect("the base").1;
        is_problem(&chat.line.call("GET", path, "").await, &[400, 403, 404]);
    }
    assert_eq!(chat.texts().await, ["private"]);
    serves(&gateway).await;
}

#[tokio::test]
async fn what_is_no_operation_is_not_found_and_a_wrong_method_is_said() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let line = &chat.line;
    for path in [
        "",
        "/",
        "//",
        "/none",
        "/tokens",
        "/tokens/generate/",
        "/tokens/none",
        "/conversations/",
        "/Conversations",
        "/conversations/x/none",
        "/conversations/x/activities/y/z",
        "/session",
        "/../../healthz",
    ] {
        for method in ["GET", "POST", "PUT"] {
            let answer = line.call(method, path, "").await;
            assert_eq!(answer.body["error"]["code"], "NotFound", "{method} {path}");
            answer.refused(404, "NotFound");
        }
    }
    let activities = format!("/conversations/{}/activities", chat.id);
    let stream = format!("/conversations/{}/stream", chat.id);
    for (method, path) in [
        ("GET", "/tokens/generate"),
        ("GET", "/tokens/refresh"),
        ("GET", "/conversations"),
        ("PUT", "/conversations"),
        ("DELETE", &*activities),
        ("PATCH", &*activities),
        ("POST", &*stream),
        ("POST", "/session/getsessionid"),
        ("TRACE", "/conversations"),
        ("BREW", "/conversations"),
    ] {
        let answer = line.call(method, path, "").await;
        answer.refused(405, "MethodNotAllowed");
    }
    serves(&gateway).await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let gateway = quiet().await;
    let many: String = (0..5_000)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    let huge = format!("x-huge: {}\r\n", "y".repeat(4 << 20));
    for headers in [&many, &huge] {
        let response = cut(&gateway, head("POST", "/conversations", headers).as_bytes()).await;
        // Whose connection is reset while it still writes may not see the answer.
        assert!(matches!(status(&response), None | Some(431)), "{response}");
    }
    let long = format!("/conversations/{}", "x".repeat(100_000));
    let response = raw(&gateway, head("GET", &long, "").as_bytes()).await;
    assert_eq!(status(&response), Some(414), "{response}");
    serves(&gateway).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_posts_nothing() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let path = format!("/conversations/{}/activities", chat.id);
    let whole = says("ann", "hi").to_string();
    let length = format!("content-length: {}\r\n", whole.len() + 1);
    let chunked = "transfer-encoding: chunked\r\n";
    for (headers, body) in [
        (&*length, whole.clone()),
        (chunked, format!("{:x}\r\n{whole}", whole.len() + 1)),
        (chunked, format!("{:x}\r\n{whole}\r\n", whole.len())),
        (chunked, format!("zz\r\n{whole}\r\n0\r\n\r\n")),
        (
            chunked,
            format!("ffffffffffffffffffff\r\n{whole}\r\n0\r\n\r\n"),
        ),
        ("content-length: 5\r\ncontent-length: 6\r\n", whole.clone()),
        ("content-length: -1\r\n", whole.clone()),
        ("content-length: 99999999999999999999999\r\n", whole.clone()),
    ] {
        let request = format!("{}{body}", head("POST", &path, headers));
        let response = cut(&gateway, request.as_bytes()).await;
        // One who is gone may find nobody to answer.
        assert!(matches!(status(&response), None | Some(400)), "{response}");
    }
    assert_eq!(chat.everything().await, Vec::<Value>::new());
    serves(&gateway).await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let gateway = quiet().await;
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /v3/directline/conversations HTTP/9.9\r\n\r\n",
        b"GET /v3/directline/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ] {
        let response = cut(&gateway, garbage).await;
        let status = status(&response);
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{response}"
        );
    }
    serves(&gateway).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let path = format!("/conversations/{}/activities", chat.id);
    let socket = TcpStream::connect(gateway.address()).await;
    let mut socket = socket.expect("it listens");
    let request = format!(
        "{}{{\"type\"",
        head("POST", &path, "content-length: 100\r\n")
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut response = String::new();
    {
        let mut answer = Box::pin(socket.read_to_string(&mut response));
        let patience = async {
            // The gateway may not have begun to wait when time moves on.
            while answer.as_mut().now_or_never().is_none() {
                gateway.pass(seconds(30)).await;
            }
        };
        within("an end of waiting", patience).await;
    }
    assert_eq!(status(&response), Some(408), "{response}");
    let body = r#"{"error":{"code":"RequestTimeout","message":""#;
    assert!(response.contains(body), "{response}");
    let secret = gateway.line("site-one");
    assert_eq!(secret.everything(&chat.id).await, Vec::<Value>::new());
    serves(&gateway).await;
}

/// Bytes that break the rules of WebSocket.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let mask = [0_u8; 4];
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        let mut frame = vec![first, 0x80 | length];
        frame.extend(mask);
        frame.extend(payload);
        frame
    };
    let long = |first: u8, length: u64| {
        let mut frame = vec![first, 0xff];
        frame.extend(length.to_be_bytes());
        frame.extend(mask);
        frame.extend([0; 1_000]);
        frame
    };
    vec![
        ("not masked", b"\x81\x02hi".to_vec()),
        ("reserved bits", masked(0xf1, b"hi")),
        ("reserved opcode", masked(0x83, b"hi")),
        ("reserved control opcode", masked(0x8b, b"")),
        ("control frame in parts", masked(0x09, b"")),
        ("nothing to continue", masked(0x80, b"hi")),
        ("text that is none", masked(0x81, b"\xff\xfe")),
        ("a close with half a code", masked(0x88, b"\x03")),
        ("a length that nothing has", long(0x81, u64::MAX)),
        ("a frame that is too large", long(0x82, 1 << 30)),
        (
            "no frames at all",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
    ]
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_of_websocket_ends_its_stream_and_no_other() {
    let gateway = quiet().await;
    let mut chat = gateway.chat().await;
    let mut other = chat.back(Some("")).await;
    let mut texts = Vec::new();
    for (what, frame) in broken_frames() {
        let mut stream = chat.back(Some("")).await;
        let written = within(what, stream.raw().write_all(&frame)).await;
        written.expect("it reads");
        let end = stream.end().await;
        assert!(
            matches!(end, Frame::Close(..) | Frame::Gone),
            "{what}: {end:?}"
        );
        chat.says(what).await;
        other.expect(what).await;
        texts.push(what);
    }
    let mut stream = chat.back(None).await;
    // It may be cut off before all of it is written.
    let _ = stream.try_write(Message::text("x".repeat(1 << 20))).await;
    assert!(matches!(stream.end().await, Frame::Close(..) | Frame::Gone));
    chat.says("last").await;
    other.expect("last").await;
    texts.push("last");
    assert_eq!(chat.texts().await, texts);
    serves(&gateway).await;
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let path = chat.url.split_once("/v3/directline").expect("the base").1;
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for headers in [
        String::new(),
        format!("upgrade: websocket\r\nsec-websocket-version: 13\r\n{key}"),
        format!("connection: upgrade\r\nsec-websocket-version: 13\r\n{key}"),
        format!("connection: upgrade\r\nupgrade: h2c\r\nsec-websocket-version: 13\r\n{key}"),
        format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\n{key}"),
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n".to_owned(),
    ] {
        let request =
            format!("GET /v3/directline{path} HTTP/1.1\r\nhost: gateway\r\n{headers}\r\n");
        let response = raw(&gateway, request.as_bytes()).await;
        assert_eq!(status(&response), Some(400), "{response}");
        let body = r#"{"error":{"code":"BadArgument","#;
        assert!(response.contains(body), "{response}");
    }
    chat.stream().await;
    serves(&gateway).await;
}

#[tokio::test]
async fn what_a_caller_calls_the_gateway_gets_into_no_url_but_as_a_host() {
    let gateway = quiet().await;
    for host in ["evil.example/path?", "user@evil.example", "a b", "", "x\\y"] {
        let request = head("POST", "/conversations", "content-length: 0\r\n");
        let request = request.replace("host: gateway", &format!("host: {host}"));
        let response = raw(&gateway, request.as_bytes()).await;
        let body = response.split_once("\r\n\r\n").map_or("", |parts| parts.1);
        let started = serde_json::from_str(body).unwrap_or(Value::Null);
        if let Some(url) = started["streamUrl"].as_str() {
            let here = format!("ws://{}/v3/directline/", gateway.address());
            assert!(url.starts_with(&here), "{url}");
        }
    }
    serves(&gateway).await;
}

#[tokio::test]
async fn members_that_are_there_twice_break_nothing() {
    let gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    hears(&mut bot, "conversationUpdate").await;
    let path = format!("/conversations/{}/activities", chat.id);
    let body = r#"{"type":"trace","type":"event","name":"e","from":{"id":"x"},"from":{"id":"y"}}"#;
    chat.line.call("POST", &path, body).await.is(200);
    let told = hears(&mut bot, "event").await;
    assert_eq!(told["from"], json!({"id": "ann", "role": "user"}));
    bot.expect_nothing().await;
}
