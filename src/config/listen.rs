//! `listen`: where the listener binds, and who can reach it there.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::file::{Report, Value};

const KEY: &str = "listen";
const FLAG: &str = "--listen";
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7878);

/// Reads the address; the flag wins. `open` says that there are no principals, and then nobody
/// else's machine may reach it.
pub(super) fn read(
    value: Option<Value<'_>>,
    flag: Option<SocketAddr>,
    open: bool,
    report: &Report<'_>,
) -> SocketAddr {
    let written = value.as_ref().and_then(|value| {
        let text = value.text()?;
        let address = text.parse::<SocketAddr>().ok();
        if address.is_none() {
            value.refuse(format!(
                "`{text}` is no address and port: write for example `127.0.0.1:7878`, `0.0.0.0:7878` or `[::1]:7878`"
            ));
        }
        address
    });
    let listen = flag.or(written).unwrap_or(DEFAULT);
    if open && !listen.ip().to_canonical().is_loopback() {
        let message = format!(
            "`{listen}` can be reached from other machines, and without principals everyone may do \
             everything: add a `[[principals]]` table, or listen on `127.0.0.1:{}`",
            listen.port()
        );
        match (flag, &value) {
            (None, Some(value)) => value.refuse(message),
            _ => report.add_flag(FLAG, KEY, message),
        }
    }
    listen
}
