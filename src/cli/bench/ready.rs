//! Whether a gateway takes work: `GET /readyz`, as an orchestrator asks it.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long a gateway that listens may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until the gateway says that it is ready.
pub(super) async fn wait(gateway: &str) -> anyhow::Result<()> {
    let address = gateway.strip_prefix("http://").unwrap_or(gateway);
    let asking = async {
        while !is_ready(address).await.unwrap_or(false) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .context("the gateway was not ready in time")
}

async fn is_ready(address: &str) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut status = String::new();
    BufReader::new(socket).read_line(&mut status).await?;
    Ok(is_ok(&status))
}

fn is_ok(status: &str) -> bool {
    status.split(' ').nth(1) == Some("200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_ready() {
        assert!(is_ok("HTTP/1.1 200 OK\r\n"));
        assert!(!is_ok("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(!is_ok(""));
    }
}
