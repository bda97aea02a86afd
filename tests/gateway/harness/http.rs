//! HTTP/1.1, by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// Gets a path: the status and the body.
pub(super) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = async {
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let sent = socket.write_all(request.as_bytes()).await;
        sent.expect("it reads");
        let mut response = String::new();
        let read = socket.read_to_string(&mut response).await;
        read.expect("it answers");
        response
    };
    let response = within(path, asked).await;
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}
