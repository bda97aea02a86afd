//! `turnwire sessions`: who is attached, and whether they work.

use serde_json::{Value, json};
use turnwire_client::proto::session_info::Subscriber;
use turnwire_client::proto::{SessionInfo, SessionState};

use super::connection::Connection;
use super::{escape, output, show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(Args {}: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let found = connection.open().await?.admin().sessions().await?;
    if json {
        for session in &found.sessions {
            output::json(&document(session))?;
        }
        return Ok(());
    }
    if found.sessions.is_empty() {
        return output::line("nobody is attached");
    }
    const HEAD: [&str; 9] = [
        "SUBSCRIBER",
        "INSTANCE",
        "STATE",
        "CREDIT",
        "LEASES",
        "HELD",
        "HELD SINCE",
        "UNDELIVERED",
        "OLDEST",
    ];
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(found.sessions.iter().map(row));
    for line in columns(&rows) {
        output::line(&line)?;
    }
    if found.more {
        output::line("... and more")?;
    }
    Ok(())
}

fn row(session: &SessionInfo) -> [String; 9] {
    let time = |at: &Option<_>| at.as_ref().map_or_else(|| "-".to_owned(), show::time);
    let mut state = state(session).to_owned();
    if session.deaf {
        state.push_str(", deaf");
    }
    [
        whose(session),
        escape::line(&session.instance_id).into_owned(),
        state,
        session.credit_deliveries.to_string(),
        session.leases.to_string(),
        session.held.to_string(),
        time(&session.held_since),
        session.undelivered.to_string(),
        time(&session.oldest_time),
    ]
}

/// Rows with each column as wide as its widest.
fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn whose(session: &SessionInfo) -> String {
    match &session.subscriber {
        Some(Subscriber::BotId(bot)) => format!("bot:{}", escape::line(bot)),
        Some(Subscriber::ChannelId(channel)) => format!("channel:{}", escape::line(channel)),
        None => String::new(),
    }
}

fn state(session: &SessionInfo) -> &'static str {
    match session.state() {
        SessionState::Open => "open",
        SessionState::Away => "away",
        SessionState::Draining => "draining",
        SessionState::Unspecified => "unknown",
    }
}

fn document(session: &SessionInfo) -> Value {
    json!({
        "id": session.session_id,
        "subscriber": whose(session),
        "instance": session.instance_id,
        "state": state(session),
        "since": session.since.as_ref().map(show::time),
        "heardTime": session.heard_time.as_ref().map(show::time),
        "window": session.window,
        "creditDeliveries": session.credit_deliveries,
        "creditBytes": session.credit_bytes,
        "leases": session.leases,
        "held": session.held,
        "heldSince": session.held_since.as_ref().map(show::time),
        "unreadFrames": session.unread_frames,
        "undelivered": session.undelivered,
        "oldestTime": session.oldest_time.as_ref().map(show::time),
        "deaf": session.deaf,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bbb"], ["cccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), ["a     bbb", "cccc  d"]);
    }
}
