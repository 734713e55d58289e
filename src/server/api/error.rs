//! The one place where what goes wrong becomes a gRPC status.

use tonic::{Code, Status};

use crate::error::Refusal;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(Code::from_i32(refusal.code() as i32), refusal.to_string())
    }
}

/// A member that answers a command with another command's reply, or breaks off a body: its bug, said plainly.
pub(super) fn internal(what: &'static str) -> Status {
    Status::internal(what)
}

/// The text for a member that answers with another command's reply.
pub(super) const OTHER_REPLY: &str = "the member answered another command";

/// A refusal to a call of the lock and election services. etcd serves them through a client of its own, whose
/// errors have lost their codes.
pub(super) fn without_code(refusal: Refusal) -> Status {
    Status::unknown(refusal.to_string())
}

/// A refusal for want of a permission by those methods of the maintenance service that etcd gives no code for it.
pub(super) fn of_users(refusal: Refusal) -> Status {
    Status::unknown(refusal.to_string().replacen("etcdserver: ", "auth: ", 1))
}

/// How tonic begins its words for a message over the limit.
const TONIC_TOO_LARGE: &str = "Error, decoded message length too large: found ";

/// What tonic refused before or instead of a handler, in the words that etcd's clients know. Anything else
/// stays as it is.
pub(super) fn from_transport(status: Status, message_bytes_max: usize) -> Status {
    match reworded(status.code(), status.message(), message_bytes_max) {
        Some((code, text)) => Status::new(code, text),
        None => status,
    }
}

/// etcd's code and text for one of tonic's own refusals; None if they need no change.
pub(super) fn reworded(code: Code, text: &str, message_bytes_max: usize) -> Option<(Code, String)> {
    if let Some(rest) = text.strip_prefix(TONIC_TOO_LARGE) {
        let found = rest.split(' ').next().unwrap_or_default();
        let text = format!("grpc: received message larger than max ({found} vs. {message_bytes_max})");
        return Some((Code::ResourceExhausted, text));
    }
    if code == Code::Internal && text.starts_with("failed to decode Protobuf message") {
        return Some((code, format!("grpc: error unmarshalling request: {text}")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_text() {
        let status = Status::from(Refusal::TooManyRequests);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: too many requests"));
        let status = Status::from(Refusal::Compacted);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
    }

    #[test]
    fn a_message_over_the_limit_is_refused_in_etcds_words() {
        let tonic =
            "Error, decoded message length too large: found 2200010 bytes, the limit is: 2097152 bytes";
        let status = from_transport(Status::out_of_range(tonic), 2_097_152);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (2200010 vs. 2097152)");
    }

    #[test]
    fn other_statuses_pass() {
        let status = from_transport(Status::cancelled("gone"), 1);
        assert_eq!((status.code(), status.message()), (Code::Cancelled, "gone"));
    }
}
