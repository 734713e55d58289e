//! Streams of frames, for what is too large to be written or sent as one message.
//!
//! ```text
//!   stream  magic, frame…, end
//!   frame   length of the payload u32 | CRC-32C u32 | payload        numbers little endian
//!   end     0 u32 | CRC-32C u32
//! ```
//!
//! The CRC runs through the whole stream: a frame's covers all payloads up to its own, so a frame that is lost,
//! doubled or swapped shows, as does a stream that was cut. What the payloads say is others' matter.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A magic is this long.
pub const MAGIC_BYTES: usize = 8;
const HEAD_BYTES: usize = 8;
/// A frame above this is refused unread.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// The start of a stream, and the checksum to go on with.
pub fn start(magic: &'static [u8; MAGIC_BYTES]) -> (Bytes, u32) {
    (Bytes::from_static(magic), crc32c::crc32c(magic))
}

/// A frame with the payload that `fill` writes, which is not empty.
pub fn frame(checksum: &mut u32, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::zeroed(HEAD_BYTES);
    fill(&mut out);
    *checksum = crc32c::crc32c_append(*checksum, &out[HEAD_BYTES..]);
    let length = u32::try_from(out.len() - HEAD_BYTES).expect("a frame is a few megabytes");
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out.freeze()
}

/// The end of a stream.
pub fn end(checksum: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_u32_le(0);
    out.put_u32_le(checksum);
    out.freeze()
}

/// Reads a stream that comes in pieces of any size.
#[derive(Debug)]
pub struct Frames {
    magic: &'static [u8; MAGIC_BYTES],
    buffer: BytesMut,
    checksum: Option<u32>,
    ended: bool,
}

impl Frames {
    /// A reader at the start of a stream.
    pub fn new(magic: &'static [u8; MAGIC_BYTES]) -> Self {
        Self { magic, buffer: BytesMut::new(), checksum: None, ended: false }
    }

    /// The next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// The next frame's payload; None if it has not come in whole, or at the end.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Broken> {
        let checksum = match self.checksum {
            Some(checksum) => checksum,
            None if self.buffer.len() < MAGIC_BYTES => return Ok(None),
            None if self.buffer.starts_with(self.magic) => {
                self.buffer.advance(MAGIC_BYTES);
                *self.checksum.insert(crc32c::crc32c(self.magic))
            }
            None => return Err(Broken("it does not start as one")),
        };
        if self.ended {
            return if self.buffer.is_empty() { Ok(None) } else { Err(Broken("it goes on behind its end")) };
        }
        let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
        let (length, expected) = (head.get_u32_le() as usize, head.get_u32_le());
        if length > FRAME_BYTES_MAX {
            return Err(Broken("a frame is too large"));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        let checksum = crc32c::crc32c_append(checksum, &payload);
        if checksum != expected {
            return Err(Broken("a checksum is wrong"));
        }
        self.checksum = Some(checksum);
        if length == 0 {
            self.ended = true;
            return self.next_frame();
        }
        Ok(Some(payload))
    }

    /// The checksum of the whole stream; an error if it was cut.
    pub fn finish(&self) -> Result<u32, Broken> {
        match self.checksum {
            Some(checksum) if self.ended && self.buffer.is_empty() => Ok(checksum),
            Some(_) | None => Err(Broken("it was cut")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; MAGIC_BYTES] = b"frames!!";

    fn stream(payloads: &[&'static [u8]]) -> Vec<u8> {
        let (begin, mut checksum) = start(MAGIC);
        let mut out = begin.to_vec();
        for payload in payloads {
            out.extend_from_slice(&frame(&mut checksum, |out| out.put_slice(payload)));
        }
        out.extend_from_slice(&end(checksum));
        out
    }

    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Bytes>, u32), Broken> {
        let mut frames = Frames::new(MAGIC);
        let mut payloads = Vec::new();
        for piece in bytes.chunks(step) {
            frames.push(piece);
            while let Some(payload) = frames.next_frame()? {
                payloads.push(payload);
            }
        }
        Ok((payloads, frames.finish()?))
    }

    #[test]
    fn what_went_in_comes_out_and_nothing_else_does() {
        let bytes = stream(&[b"one", b"another", b"3"]);
        let whole = read(&bytes, bytes.len()).expect("it is whole");
        assert_eq!(whole.0, [&b"one"[..], b"another", b"3"]);
        for step in 1..20 {
            assert_eq!(read(&bytes, step).as_ref(), Ok(&whole));
        }
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at], 5).is_err(), "cut at {at}");
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            assert!(read(&wrong, 5).is_err(), "byte {at}");
        }
        assert!(read(&[&bytes[..], b"x"].concat(), 5).is_err(), "more behind the end");
    }

    #[test]
    fn a_frame_has_a_size_at_most() {
        let head = |length: u32| {
            let mut frames = Frames::new(MAGIC);
            frames.push(MAGIC);
            frames.push(&[length.to_le_bytes(), [0; 4]].concat());
            frames.next_frame()
        };
        assert_eq!(head(FRAME_BYTES_MAX as u32), Ok(None));
        let mut other = Frames::new(MAGIC);
        other.push(b"another!");
        assert_eq!(other.next_frame(), Err(Broken("it does not start as one")));
        assert_eq!(head(FRAME_BYTES_MAX as u32 + 1), Err(Broken("a frame is too large")));
    }

    #[test]
    fn the_end_is_what_has_nothing_behind_it() {
        let mut frames = Frames::new(MAGIC);
        frames.push(&stream(&[b"one"]));
        assert_eq!(frames.finish(), Err(Broken("it was cut")), "nobody has read it");
        while frames.next_frame().expect("it is whole").is_some() {}
        assert!(frames.finish().is_ok());
        frames.push(b"x");
        assert_eq!(frames.finish(), Err(Broken("it was cut")));
    }

    #[test]
    fn frames_that_are_lost_or_swapped_show() {
        let [ab, ba] = [stream(&[b"aa", b"bb"]), stream(&[b"bb", b"aa"])];
        let first = MAGIC_BYTES..MAGIC_BYTES + HEAD_BYTES + 2;
        let lost = [&ab[..first.start], &ab[first.end..]].concat();
        let other = [&ba[..first.end], &ab[first.end..]].concat();
        for wrong in [lost, other] {
            assert_eq!(read(&wrong, 100), Err(Broken("a checksum is wrong")));
        }
    }
}
