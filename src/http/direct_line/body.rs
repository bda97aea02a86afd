//! Reading a body, bounded in size and time.

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;

use crate::channel::direct_line::{DirectLine, Error};

/// Reads a body of at most as many bytes as an activity may have.
///
/// # Errors
///
/// [`Error::BodyTooLarge`]; [`Error::BodyTimeout`]; [`Error::ArgumentBad`] when it breaks off.
pub(crate) async fn read(line: &DirectLine, body: Body) -> Result<Bytes, Error> {
    let limits = line.engine().limits();
    let clock = line.engine().clock();
    let deadline = clock.now().after(limits.body_timeout);
    tokio::select! {
        read = collect(body, limits.activity_bytes) => read,
        () = clock.sleep_until(deadline) => Err(Error::BodyTimeout(limits.body_timeout)),
    }
}

async fn collect(mut body: Body, allowed: usize) -> Result<Bytes, Error> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::ArgumentBad {
            name: "body",
            problem: format!("broke off: {error}"),
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if read.len() + data.len() > allowed {
            return Err(Error::BodyTooLarge {
                limit: "activity_bytes",
                allowed,
            });
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}
