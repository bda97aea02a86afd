//! `GET /conversations/{id}/stream?watermark=&t=`: the stream, by WebSocket (section 3).

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::response::Response;

use super::call::{ConversationId, Query, origin};
use super::problem::Problem;
use crate::channel::direct_line::{ActivitySet, DirectLine, Ending, Error, Stream, Ticket};

/// Buffers of a socket, in bytes: what clients send is next to nothing.
const READ_BUFFER_BYTES: usize = 1 << 10;
const WRITE_BUFFER_BYTES: usize = 1 << 10;
/// Largest message of a client. They send empty ones, to keep the stream alive.
const MESSAGE_BYTES: usize = 64 << 10;
/// How long a client may take to read one frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After how many intervals without a sign of life a client is given up.
const SILENT_INTERVALS: u32 = 4;

/// Opens the stream of the conversation. Its URL is all there is to show: browsers send no headers.
pub(crate) async fn open(
    State(line): State<DirectLine>,
    ConversationId(id): ConversationId,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let token = query.get("t").ok_or(Error::CredentialMissing)?;
    let watermark = query.get("watermark");
    let upgrade = upgrade.map_err(|_| Error::bad("stream", "is opened by WebSocket"))?;
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES);
    // Last, since it ends an older stream of this URL.
    let opened = line.open_stream(&id, watermark, token, origin(&headers));
    let (stream, ticket) = opened.await?;
    Ok(upgrade.on_upgrade(|socket| serve(line, socket, stream, ticket)))
}

/// Sends what comes until either side has enough. There is no queue: while a client does not read,
/// nothing is read for it, and afterwards it goes on from the log.
async fn serve(line: DirectLine, mut socket: WebSocket, mut stream: Stream, mut ticket: Ticket) {
    let clock = line.engine().clock();
    let interval = line.engine().limits().watch_report_interval;
    let mut ended = pin!(ticket.ended(&**clock));
    let mut heard = clock.now();
    let mut alarm = clock.sleep_until(heard.after(interval));
    loop {
        let message = tokio::select! {
            biased;
            ending = &mut ended => {
                say_goodbye(&line, &mut socket, ending).await;
                return;
            }
            received = socket.recv() => match received {
                // Whatever it is, its client is there.
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                    heard = clock.now();
                    continue;
                }
                Some(Ok(Message::Close(_))) => {
                    // The answer to it is sent as more is looked for.
                    let clock = line.engine().clock();
                    tokio::select! {
                        _ = socket.recv() => {}
                        () = clock.sleep_until(clock.now().after(CLOSE_TIMEOUT)) => {}
                    }
                    return;
                }
                Some(Err(_)) | None => return,
            },
            next = stream.next() => match next {
                Ok(set) => text(&set),
                // Its client comes back, and is told then.
                Err(_) => return,
            },
            () = &mut alarm => {
                let now = clock.now();
                if now.since(heard) > interval * SILENT_INTERVALS {
                    return;
                }
                alarm = clock.sleep_until(now.after(interval));
                // Browsers answer a ping by themselves; the empty text is for those who look for it.
                if !send(&line, &mut socket, Message::Ping(Default::default())).await {
                    return;
                }
                Message::Text(Default::default())
            }
        };
        tokio::select! {
            biased;
            sent = send(&line, &mut socket, message) => if !sent { return },
            _ = &mut ended => return,
        }
    }
}

fn text(set: &ActivitySet) -> Message {
    let text = serde_json::to_string(set).expect("activities are JSON");
    Message::Text(text.into())
}

/// Returns whether it was sent in time.
async fn send(line: &DirectLine, socket: &mut WebSocket, message: Message) -> bool {
    let clock = line.engine().clock();
    tokio::select! {
        biased;
        sent = socket.send(message) => sent.is_ok(),
        () = clock.sleep_until(clock.now().after(SEND_TIMEOUT)) => false,
    }
}

async fn say_goodbye(line: &DirectLine, socket: &mut WebSocket, ending: Ending) {
    let (code, reason) = match ending {
        // The public service's word for it.
        Ending::Replaced => (close_code::POLICY, "collision"),
        Ending::Expired => (close_code::POLICY, "token expired"),
        Ending::Revoked => (close_code::POLICY, "token revoked"),
        Ending::Closing => (close_code::AWAY, "shutting down"),
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    send(line, socket, Message::Close(Some(frame))).await;
}
