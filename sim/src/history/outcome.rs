//! What came of a call, and which failures leave that open.

use kontiki::error::{Code, Refusal};

use super::Reply;

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Ok(Reply),
    /// It was refused, and it is certain that it did nothing.
    Refused {
        /// The gRPC code.
        code: i32,
        /// The text.
        message: String,
    },
    /// It failed or was not answered: it may have been done, or may be done later. The text is for the reader.
    Unknown(String),
}

impl Outcome {
    /// The words for a client that went away before it was answered.
    pub const NO_ANSWER: &str = "no answer";

    /// What a failed call's status says. A code that etcd gives for time-outs, lost leaders and lost connections
    /// leaves it open, and so does a code or text that is not known here.
    pub fn from_status(code: i32, message: &str) -> Self {
        const CERTAIN: [Code; 9] = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        // They have the code of everything that etcd did not think of.
        const CERTAIN_TEXTS: [Refusal; 2] = [Refusal::TooManyRequests, Refusal::NotEnoughStartedMembers];
        let certain = CERTAIN.iter().any(|known| *known as i32 == code)
            || CERTAIN_TEXTS.iter().any(|known| known.to_string() == message);
        if certain {
            Self::Refused { code, message: message.to_owned() }
        } else {
            Self::Unknown(message.to_owned())
        }
    }

    /// As [`Outcome::from_status`], for a member that was called without gRPC between.
    pub fn from_refusal(refusal: Refusal) -> Self {
        Self::from_status(refusal.code() as i32, &refusal.to_string())
    }

    /// The answer, if it was one.
    pub const fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Ok(reply) => Some(reply),
            Self::Refused { .. } | Self::Unknown(_) => None,
        }
    }

    /// Whether what the call did is not known.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_unknown() {
        for refusal in [
            Refusal::Timeout,
            Refusal::NoLeader,
            Refusal::LeaderChanged,
            Refusal::DeadlineExceeded,
            Refusal::Stopped,
            Refusal::TimeoutApply,
        ] {
            assert!(Outcome::from_refusal(refusal).is_unknown(), "{refusal}");
        }
        assert!(Outcome::from_status(4, "Deadline expired").is_unknown());
        assert!(Outcome::from_status(13, "broken pipe").is_unknown());
    }

    #[test]
    fn what_was_refused_did_nothing() {
        for refusal in [
            Refusal::EmptyKey,
            Refusal::Compacted,
            Refusal::LeaseNotFound,
            Refusal::TooManyRequests,
            Refusal::NoSpace,
        ] {
            assert!(!Outcome::from_refusal(refusal).is_unknown(), "{refusal}");
        }
    }
}
