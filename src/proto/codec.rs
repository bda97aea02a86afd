//! How messages become bytes on the gateway's streams: as everywhere, with smaller buffers.
//!
//! The usual codec gives each stream 8 KiB for what it sends and as much for what it receives before
//! the first byte, which is a fifth of what an attached bot may cost. A frame is a few hundred bytes;
//! buffers grow by themselves where there is more.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a stream's buffer has at first, and what it has again when it was emptied: room for a turn's
/// message, so that it seldom grows while it is filled.
const BUFFER_BYTES: usize = 1 << 10;

/// Frames that are ready are sent together up to this. What is usual.
const BATCH_BYTES: usize = 32 << 10;

/// The codec of every method.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, BATCH_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, BATCH_BYTES))
    }
}
