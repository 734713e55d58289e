//! The frames of the two streams (`contract/disk.md`, section 6): bytes in, messages out, and back.
//!
//! Pure: no sockets. A message stream's frame is a length and a message. An append stream's starts with its
//! kind; both ends follow where the log stands, so that an append that continues goes without its head.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;
use thiserror::Error;

use crate::{
    raft::{Body, Message},
    types::NodeId,
    wire::{
        raft::WireError,
        raftpb::{self, MessageType},
    },
};

/// No frame is longer: etcd's limit.
pub const FRAME_BYTES_MAX: usize = 512 << 20;

const LINK_HEARTBEAT: u8 = 0;
const SHORT_APPEND: u8 = 1;
const FULL_MESSAGE: u8 = 2;

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// All but appends: what must never wait.
    Message,
    /// Appends (etcd's "msgappv2").
    Append,
}

impl StreamKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Message, Self::Append];

    /// Its place in an array of both.
    pub(super) fn slot(self) -> usize {
        match self {
            Self::Message => 0,
            Self::Append => 1,
        }
    }

    /// Its name in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Append => "msgapp",
        }
    }
}

/// Why a stream can't go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame announces more than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    TooLong(u64),
    /// An append stream's frame is of no known kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Its bytes are no message.
    #[error("a message that can't be read: {0}")]
    Message(#[from] WireError),
}

/// Writes one stream.
#[derive(Debug)]
pub struct FrameWriter {
    kind: StreamKind,
    /// Where the other end thinks the log stands: the term, and the last index sent.
    term: u64,
    index: u64,
}

impl FrameWriter {
    /// A fresh stream's.
    pub fn new(kind: StreamKind) -> Self {
        Self { kind, term: 0, index: 0 }
    }

    /// Writes a frame that only says that the link lives.
    pub fn heartbeat(&self, out: &mut BytesMut) {
        match self.kind {
            StreamKind::Append => out.put_u8(LINK_HEARTBEAT),
            StreamKind::Message => {
                let heartbeat =
                    raftpb::Message { r#type: MessageType::MsgHeartbeat as u64, ..Default::default() };
                put_framed(&heartbeat, out);
            }
        }
    }

    /// Writes a message.
    pub fn message(&mut self, message: &Message, out: &mut BytesMut) {
        if self.kind == StreamKind::Message {
            return put_framed(&raftpb::Message::from(message), out);
        }
        if let Body::Append { prev, entries, commit } = &message.body {
            let continues =
                prev.index.0 == self.index && prev.term.0 == self.term && prev.term == message.term;
            if continues {
                out.put_u8(SHORT_APPEND);
                out.put_u64(entries.len() as u64);
                for entry in entries {
                    put_framed(&raftpb::Entry::from(entry), out);
                }
                out.put_u64(commit.0);
                self.index += entries.len() as u64;
                return;
            }
        }
        let wire = raftpb::Message::from(message);
        self.term = wire.term;
        self.index = wire.entries.last().map_or(wire.index, |entry| entry.index);
        out.put_u8(FULL_MESSAGE);
        put_framed(&wire, out);
    }
}

/// Writes a length and a message.
pub(super) fn put_framed(message: &impl prost::Message, out: &mut BytesMut) {
    let len = message.encoded_len();
    out.reserve(8 + len);
    out.put_u64(len as u64);
    message.encode(out).expect("a BytesMut grows as needed");
}

/// What a frame was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The link lives.
    Heartbeat,
    /// A message.
    Message(Message),
    /// A message of a kind that is no member's to send, or that only newer members know: it is dropped.
    Ignored,
}

/// Reads one stream.
#[derive(Debug)]
pub struct FrameReader {
    kind: StreamKind,
    from: NodeId,
    to: NodeId,
    term: u64,
    index: u64,
    buffer: BytesMut,
}

impl FrameReader {
    /// A fresh stream's, from whom to whom.
    pub fn new(kind: StreamKind, from: NodeId, to: NodeId) -> Self {
        Self { kind, from, to, term: 0, index: 0, buffer: BytesMut::new() }
    }

    /// Takes bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; None until more bytes came. After an error the stream is of no use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.kind {
            StreamKind::Message => {
                let Some(len) = framed_len(&self.buffer)? else { return Ok(None) };
                let bytes = self.take(0, len);
                self.whole(bytes)
            }
            StreamKind::Append => self.next_append(),
        }
    }

    fn next_append(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.buffer.first().copied() {
            None => Ok(None),
            Some(LINK_HEARTBEAT) => {
                self.buffer.advance(1);
                Ok(Some(Frame::Heartbeat))
            }
            Some(FULL_MESSAGE) => {
                let Some(len) = framed_len(&self.buffer[1..])? else { return Ok(None) };
                let bytes = self.take(1, len);
                self.whole(bytes)
            }
            Some(SHORT_APPEND) => self.short_append(),
            Some(kind) => Err(FrameError::Kind(kind)),
        }
    }

    /// Cuts a whole frame off, without its first `skip` bytes and its length.
    fn take(&mut self, skip: usize, len: usize) -> Bytes {
        self.buffer.advance(skip + 8);
        self.buffer.split_to(len).freeze()
    }

    fn whole(&mut self, bytes: Bytes) -> Result<Option<Frame>, FrameError> {
        let wire = raftpb::Message::decode(bytes).map_err(WireError::from)?;
        if wire.r#type == MessageType::MsgHeartbeat as u64 && wire.from == 0 && wire.to == 0 {
            return Ok(Some(Frame::Heartbeat));
        }
        self.term = wire.term;
        self.index = wire.entries.last().map_or(wire.index, |entry| entry.index);
        parse(wire)
    }

    fn short_append(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(count) = number(&self.buffer[1..]) else { return Ok(None) };
        if count > (FRAME_BYTES_MAX / 8) as u64 {
            return Err(FrameError::TooLong(count));
        }
        // The frame is cut off only once it is whole: entries, then the commit index.
        let mut end = 9;
        for _ in 0..count {
            let Some(len) = framed_len(&self.buffer[end..])? else { return Ok(None) };
            end += 8 + len;
            if end > FRAME_BYTES_MAX {
                return Err(FrameError::TooLong(end as u64));
            }
        }
        if self.buffer.len() < end + 8 {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(end + 8).freeze();
        frame.advance(9);
        let mut entries = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let len = frame.get_u64() as usize;
            entries.push(raftpb::Entry::decode(frame.split_to(len)).map_err(WireError::from)?);
        }
        let wire = raftpb::Message {
            r#type: MessageType::MsgApp as u64,
            from: self.from.0,
            to: self.to.0,
            term: self.term,
            log_term: self.term,
            index: self.index,
            entries,
            commit: frame.get_u64(),
            ..Default::default()
        };
        self.index = self.index.saturating_add(count);
        parse(wire)
    }
}

fn parse(wire: raftpb::Message) -> Result<Option<Frame>, FrameError> {
    match Message::try_from(wire) {
        Ok(message) => Ok(Some(Frame::Message(message))),
        Err(WireError::Local(_) | WireError::Unknown { .. }) => Ok(Some(Frame::Ignored)),
        Err(error) => Err(error.into()),
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// The length in front of `bytes`, if all that it announces is there.
fn framed_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(len) = number(bytes) else { return Ok(None) };
    match usize::try_from(len) {
        Ok(size) if size <= FRAME_BYTES_MAX => Ok((bytes.len() - 8 >= size).then_some(size)),
        _ => Err(FrameError::TooLong(len)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        raft::{Entry, LogId, Payload},
        types::{Index, Term},
    };

    const FROM: NodeId = NodeId(0x3745_45c2_18c3_619f);
    const TO: NodeId = NodeId(0x67e3_df23_a87b_4c18);

    /// What etcd 3.5.1 sent down its streams, in hex.
    const ETCD_MESSAGES: &str = "000000000000001e08081000180020002800300040004a0a12080a0228001000180050005800000000000000001e0808\
        1000180020002800300040004a0a12080a0228001000180050005800000000000000002f0811109898edc3bae4f7f167\
        189fc38dc6a1b8d1a2372003280230e62b40004a0a12080a0228001000180050005800000000000000002f0805109898\
        edc3bae4f7f167189fc38dc6a1b8d1a2372003280230e62b40004a0a12080a0228001000180050005800";
    const ETCD_APPENDS: &str = "00000200000000000000390803109898edc3bae4f7f167189fc38dc6a1b8d1a2372003280230e62b3a070800100318e7\
        2b40e62b4a0a12080a02280010001800500058000200000000000000ea0803109898edc3bae4f7f167189fc38dc6a1b8\
        d1a2372003280230e62b3a070800100318e72b3a1e0800100318e82b221522060a0170120131a2060a08e8d3c1ccbabf\
        e8cf613a8e010800100318e92b2284010881beffcdbabfa88c4c12035055541a262f302f6d656d626572732f36376533\
        6466323361383762346331382f6174747269627574657322347b226e616d65223a2242222c22636c69656e7455524c73\
        223a5b22687474703a2f2f3132372e302e302e313a3335333839225d7d28003200380048005000580060006800700078\
        0080010040e62b4a0a12080a022800100018005000580001000000000000000000000000000015e9";

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex");
        digits.chunks(2).map(byte).collect()
    }

    fn read_all(kind: StreamKind, bytes: &[u8], chunk: usize) -> Vec<Frame> {
        let mut reader = FrameReader::new(kind, FROM, TO);
        let mut frames = Vec::new();
        for part in bytes.chunks(chunk) {
            reader.feed(part);
            while let Some(frame) = reader.next_frame().expect("the stream is good") {
                frames.push(frame);
            }
        }
        assert!(reader.buffer.is_empty(), "nothing is left over");
        frames
    }

    fn vote(pre: bool) -> Message {
        let last = LogId { term: Term(2), index: Index(5606) };
        Message { from: FROM, to: TO, term: Term(3), body: Body::Vote { pre, last, transfer: false } }
    }

    fn append(term: u64, prev: (u64, u64), count: u64, commit: u64) -> Message {
        let entries = (1..=count).map(|n| Entry {
            term: Term(term),
            index: Index(prev.1 + n),
            payload: if n == 1 { Payload::Empty } else { Payload::Command(vec![7; n as usize].into()) },
        });
        let prev = LogId { term: Term(prev.0), index: Index(prev.1) };
        let body = Body::Append { prev, entries: entries.collect(), commit: Index(commit) };
        Message { from: FROM, to: TO, term: Term(term), body }
    }

    /// Writes frames as etcd 3.5 would: with the empty snapshot that it puts into each whole message.
    fn write_as_etcd(kind: StreamKind, frames: &[Frame]) -> BytesMut {
        let mut writer = FrameWriter::new(kind);
        let mut all = BytesMut::new();
        for frame in frames {
            let mut out = BytesMut::new();
            match frame {
                Frame::Heartbeat => writer.heartbeat(&mut out),
                Frame::Message(message) => writer.message(message, &mut out),
                Frame::Ignored => unreachable!("etcd sends none"),
            }
            let head = usize::from(kind == StreamKind::Append);
            if out.len() > head && (head == 0 || out[0] == FULL_MESSAGE) {
                let mut wire = raftpb::Message::decode(&out[head + 8..]).expect("it was just written");
                wire.snapshot = Some(raftpb::Snapshot::default());
                out.truncate(head);
                put_framed(&wire, &mut out);
            }
            all.extend_from_slice(&out);
        }
        all
    }

    #[test]
    fn etcds_message_stream_is_read_and_written() {
        let (beat, votes) = (Frame::Heartbeat, [Frame::Message(vote(true)), Frame::Message(vote(false))]);
        let expected = [vec![beat.clone(), beat], votes.to_vec()].concat();
        for chunk in [1, 5, 1000] {
            assert_eq!(read_all(StreamKind::Message, &bytes_of(ETCD_MESSAGES), chunk), expected);
        }
        assert_eq!(write_as_etcd(StreamKind::Message, &expected), bytes_of(ETCD_MESSAGES));
    }

    #[test]
    fn etcds_append_stream_is_read_and_written() {
        let frames = read_all(StreamKind::Append, &bytes_of(ETCD_APPENDS), 1000);
        for chunk in [1, 5] {
            assert_eq!(read_all(StreamKind::Append, &bytes_of(ETCD_APPENDS), chunk), frames);
        }
        // Two signs of life, an append, the same with two more entries, and a short frame that commits them.
        assert_eq!(frames[..2], [Frame::Heartbeat, Frame::Heartbeat]);
        assert_eq!(frames[2], Frame::Message(append(3, (2, 5606), 1, 5606)));
        let Frame::Message(Message { body: Body::Append { prev, entries, .. }, .. }) = &frames[3] else {
            panic!("{:?} is no append", frames[3]);
        };
        assert_eq!((prev.index, entries.len(), entries[2].index), (Index(5606), 3, Index(5609)));
        assert_eq!(frames[4..], [Frame::Message(append(3, (3, 5609), 0, 5609))]);
        assert_eq!(write_as_etcd(StreamKind::Append, &frames), bytes_of(ETCD_APPENDS));
    }

    #[test]
    fn an_append_that_continues_goes_without_its_head() {
        let mut writer = FrameWriter::new(StreamKind::Append);
        let mut out = BytesMut::new();
        writer.message(&append(3, (2, 5606), 1, 5606), &mut out);
        assert_eq!(out[0], FULL_MESSAGE);
        out.clear();
        writer.message(&append(3, (3, 5607), 0, 5607), &mut out);
        assert_eq!(out.as_ref(), bytes_of("01 0000000000000000 00000000000015e7"));
    }

    #[test]
    fn bad_frames_are_errors() {
        let mut reader = FrameReader::new(StreamKind::Append, FROM, TO);
        reader.feed(&[9]);
        assert_eq!(reader.next_frame(), Err(FrameError::Kind(9)));
        let mut reader = FrameReader::new(StreamKind::Message, FROM, TO);
        reader.feed(&u64::MAX.to_be_bytes());
        assert_eq!(reader.next_frame(), Err(FrameError::TooLong(u64::MAX)));
        let mut reader = FrameReader::new(StreamKind::Append, FROM, TO);
        reader.feed(&[1, 0xff, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(reader.next_frame(), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            steps in prop::collection::vec((1_u64..4, 0_u64..3, 0_u64..50, 0_u64..4, any::<bool>()), 1..12),
            chunk in 1_usize..200,
        ) {
            let mut writer = FrameWriter::new(StreamKind::Append);
            let mut out = BytesMut::new();
            let mut sent = Vec::new();
            let mut at = (1, 0);
            for (term, back, index, count, follow) in steps {
                let prev = if follow { at } else { (term.saturating_sub(back), index) };
                let message = append(term.max(prev.0), prev, count, index);
                at = (term.max(prev.0), prev.1 + count);
                writer.message(&message, &mut out);
                sent.push(Frame::Message(message));
            }
            prop_assert_eq!(read_all(StreamKind::Append, &out, chunk), sent);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), append: bool) {
            let kind = if append { StreamKind::Append } else { StreamKind::Message };
            let mut reader = FrameReader::new(kind, FROM, TO);
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }
}
