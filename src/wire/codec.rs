//! How messages of gRPC become bytes, with buffers as large as the message needs.
//!
//! The usual codec starts each message with 8 KiB and doubles: too much for the many small answers, and for a
//! large one all that was written is copied again and again. This one asks the message for its length first.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, EncodeBuf, Encoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a buffer starts with: room for most small messages with their head.
const BUFFER_BYTES: usize = 256;

/// A stream's messages are put together until they have this many bytes; tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// The codec of all our services and clients; `build.rs` puts its name into the generated code.
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
    type Encoder = Sized<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Sized<T> {
        Sized(ProstEncoder::new(settings()))
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(settings())
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Makes room for a message as a whole before it encodes it.
#[derive(Debug)]
pub struct Sized<T>(ProstEncoder<T>);

impl<T: Message> Encoder for Sized<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        self.0.encode(message, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
