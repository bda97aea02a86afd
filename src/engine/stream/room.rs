//! Room for the texts of the replies that a session is making.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::error::Error;
use crate::limits::Limits;

/// What the texts of a session take, in bytes. Shards share it, as they do the credit, and a session that
/// is resumed has that of its earlier stream.
#[derive(Debug, Default)]
pub(crate) struct Texts(AtomicUsize);

/// What one text takes of that, held as long as the text is.
#[derive(Debug)]
pub(crate) struct TextRoom {
    texts: Arc<Texts>,
    bytes: usize,
}

impl TextRoom {
    /// Room for nothing yet.
    pub(crate) fn new(texts: &Arc<Texts>) -> Self {
        Self {
            texts: Arc::clone(texts),
            bytes: 0,
        }
    }

    /// Takes room for a text that has so many bytes now.
    ///
    /// # Errors
    ///
    /// [`Error::StreamsFull`] when there is not enough; the room stays.
    pub(crate) fn resize(&mut self, bytes: usize, limits: &Limits) -> Result<(), Error> {
        let limit = limits.session_stream_bytes;
        let resized = |all: usize| Some(all - self.bytes + bytes).filter(|all| *all <= limit);
        let order = Ordering::Relaxed;
        match self.texts.0.fetch_update(order, order, resized) {
            Ok(_) => self.bytes = bytes,
            Err(_) => {
                return Err(Error::StreamsFull {
                    limit: "session_stream_bytes",
                    allowed: limit,
                });
            }
        }
        Ok(())
    }
}

impl Drop for TextRoom {
    fn drop(&mut self) {
        self.texts.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_share_their_room_and_leave_it_when_they_end() {
        let limits = Limits {
            session_stream_bytes: 10,
            ..Limits::default()
        };
        let texts = Arc::new(Texts::default());
        let mut one = TextRoom::new(&texts);
        let mut other = TextRoom::new(&texts);
        one.resize(6, &limits).unwrap();
        assert!(other.resize(5, &limits).is_err());
        other.resize(4, &limits).unwrap();
        one.resize(2, &limits).unwrap();
        other.resize(8, &limits).unwrap();
        drop(other);
        one.resize(10, &limits).unwrap();
    }
}
