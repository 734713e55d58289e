//! A repair for clients of etcd 3.4 and older: given an endpoint as a URL, their calls to one member name the
//! whole URL as the `:authority`. Go's server doesn't look at it, hyper's refuses the request with a
//! `PROTOCOL_ERROR`.
//!
//! ```text
//!   HEADERS … 41 90 <Huffman of "http://127.0.0.1:2379">   ──▶   41 10 "eeeeeeeeeeeeeeee"
//! ```
//!
//! The value is overwritten where it stands, as a literal of as many bytes: frames keep their lengths, and the
//! header table's entry only gets shorter than the client's, so that what the client refers to is still there.
//! Nobody uses the authority of a gRPC request. What isn't HTTP/2, any other authority, and a header block that
//! comes in pieces pass as they are.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How every HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The place of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// `http://` and `https://`, plain and in the whole bytes of their Huffman codes.
const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];
const CODED_SCHEMES: [&[u8]; 2] = [&[0x9d, 0x29, 0xae, 0xe3, 0x0c], &[0x9d, 0x29, 0xad, 0x17, 0x18]];

/// What is overwritten becomes this.
const FILLER: u8 = b'e';

/// A stream of bytes from a client, with its authorities repaired.
pub(super) struct Repaired<T> {
    io: T,
    repair: Repair,
}

impl<T> Repaired<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, repair: Repair::Preface(0) }
    }
}

/// Where in its stream a repair is.
#[derive(Debug, PartialEq, Eq)]
enum Repair {
    /// So much of the preface has been seen.
    Preface(usize),
    /// In a frame's header, of which so much has been seen.
    Header([u8; FRAME_HEADER_BYTES], usize),
    /// In a frame, of which so much is to come.
    Frame(usize),
    /// It isn't HTTP/2.
    Off,
}

/// Repairs a connection's bytes, as they come in pieces of `piece` bytes: for `fuzz/`.
#[doc(hidden)]
pub fn repair_authority(bytes: &mut [u8], piece: usize) {
    let mut repair = Repair::Preface(0);
    bytes.chunks_mut(piece).for_each(|piece| repair.pass(piece));
}

impl Repair {
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self {
                Self::Off => return,
                Self::Preface(seen) => {
                    let count = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..count] != PREFACE[*seen..*seen + count] {
                        *self = Self::Off;
                        return;
                    }
                    *seen += count;
                    if *seen == PREFACE.len() {
                        *self = Self::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                    count
                }
                Self::Header(header, seen) => {
                    let count = bytes.len().min(FRAME_HEADER_BYTES - *seen);
                    header[*seen..*seen + count].copy_from_slice(&bytes[..count]);
                    *seen += count;
                    if *seen == FRAME_HEADER_BYTES {
                        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                        if header[3] == HEADERS
                            && let Some(frame) = bytes.get_mut(count..count + length)
                        {
                            let flags = header[4];
                            // One that is none is left to hyper, which says so.
                            let _ = repair_headers(frame, flags);
                        }
                        *self = Self::Frame(length);
                    }
                    count
                }
                Self::Frame(left) => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    if *left == 0 {
                        *self = Self::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                    count
                }
            };
            bytes = &mut bytes[taken..];
        }
    }
}

/// Looks for the authority in a HEADERS frame; None if that ends before it should.
fn repair_headers(frame: &mut [u8], flags: u8) -> Option<()> {
    let mut at = 0;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.first()?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let block = frame.get_mut(at..end)?;
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        let name = match first {
            // A field of the table, or the table's new size.
            0x80.. => {
                integer(block, &mut at, 7)?;
                continue;
            }
            0x20..0x40 => {
                integer(block, &mut at, 5)?;
                continue;
            }
            0x40..0x80 => integer(block, &mut at, 6)?,
            0..0x20 => integer(block, &mut at, 4)?,
        };
        if name == 0 {
            let length = integer(block, &mut at, 7)?;
            at = at.checked_add(length)?;
        }
        let (start, coded) = (at, *block.get(at)? & 0x80 != 0);
        let length = integer(block, &mut at, 7)?;
        let value = block.get_mut(at..at.checked_add(length)?)?;
        at += length;
        let schemes = if coded { CODED_SCHEMES } else { SCHEMES };
        if name == AUTHORITY && schemes.iter().any(|scheme| value.starts_with(scheme)) {
            value.fill(FILLER);
            block[start] &= 0x7f;
        }
    }
    Some(())
}

/// HPACK's integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    // No length is larger than a frame's: three bytes of seven bits are enough.
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl<T: AsyncRead + Unpin> AsyncRead for Repaired<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.repair.pass(&mut buffer.filled_mut()[before..]);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Repaired<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What is left of a connection that is read in parts of `part` bytes.
    fn passed(bytes: &[u8], part: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        repair_authority(&mut bytes, part);
        bytes
    }

    fn connection(block: &[u8]) -> Vec<u8> {
        [PREFACE, &frame(4, 0, &[]), &frame(0, 0, b"data"), &frame(HEADERS, 4, block)].concat()
    }

    /// Its method and scheme, a path, and the authority `http://127.0.0.1:31630` as Go codes them.
    const OLD: &[u8] =
        b"\x83\x86\x44\x02/p\x41\x90\x9d\x29\xae\xe3\x0c\x04\x4e\xae\x05\xc0\xb8\x6e\x32\x17\x19\x07";
    const NEW: &[u8] = b"\x83\x86\x44\x02/p\x41\x10eeeeeeeeeeeeeeee";

    #[test]
    fn a_url_is_no_authority() {
        assert_eq!(passed(&connection(OLD), usize::MAX), connection(NEW));
        let plain = b"\x41\x0bhttps://a:1";
        assert_eq!(passed(&connection(plain), usize::MAX), connection(b"\x41\x0beeeeeeeeeee"));
        // Its frame alone, after what went before.
        let whole = connection(OLD);
        let headers = PREFACE.len() + FRAME_HEADER_BYTES + FRAME_HEADER_BYTES + 4;
        let mut repair = Repair::Preface(0);
        let mut parts = whole.clone();
        let (before, after) = parts.split_at_mut(headers);
        repair.pass(before);
        repair.pass(after);
        assert_eq!(parts, connection(NEW));
    }

    #[test]
    fn padding_and_priority_are_passed_over() {
        let with = |block: &[u8]| {
            [PREFACE, &frame(HEADERS, PADDED | PRIORITY, &[&[2, 0, 0, 0, 0, 9], block, &[0, 0]].concat())]
                .concat()
        };
        assert_eq!(passed(&with(b"\x01\x08http://a"), usize::MAX), with(b"\x01\x08eeeeeeee"));
    }

    #[test]
    fn anything_else_passes_as_it_is() {
        let same = |bytes: &[u8], part| assert_eq!(passed(bytes, part), bytes);
        same(&connection(b"\x83\x86\x41\x06host:1\x40\x01x\x08http://a\x04\x08http://a"), usize::MAX);
        same(b"GET / HTTP/1.1\r\nhost: http://a\r\n\r\n", usize::MAX);
        for part in 1..40 {
            same(&connection(b"\x41\x06host:1"), part);
        }
        // Broken off, and a length that is none.
        same(&connection(b"\x41"), usize::MAX);
        same(&connection(b"\x41\x7f\xff\xff\xff\xff\xff"), usize::MAX);
    }
}
