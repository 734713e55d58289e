//! A cluster's version, as far as downgrades care.

use std::fmt;

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    major: u64,
    minor: u64,
}

impl Version {
    /// `X.Y` or `X.Y.Z`; what is behind the minor does not count, but has to be sound.
    pub(super) fn of_target(text: &str) -> Option<Self> {
        let numbers = text.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(number);
        let (major, minor) = (parts.next()??, parts.next()??);
        match (parts.next(), parts.next()) {
            (None | Some(Some(_)), None) => Some(Self { major, minor }),
            (None | Some(_), _) => None,
        }
    }

    /// The only version that it may go down to.
    pub(super) fn one_minor_down(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// Digits alone: the standard parser also takes a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_two_or_three_numbers() {
        for text in ["3.4", "3.4.0", "3.4.27", "3.4.0-rc.1"] {
            assert_eq!(Version::of_target(text).map(|v| v.to_string()).as_deref(), Some("3.4.0"), "{text}");
        }
        for text in ["", "3", "3.", "3.4.", "3.4.0.1", "v3.4", "+3.4", "a.b"] {
            assert_eq!(Version::of_target(text), None, "{text}");
        }
    }

    #[test]
    fn goes_down_by_one_minor() {
        let down = Version::of_target("3.5.0").and_then(Version::one_minor_down);
        assert_eq!(down, Version::of_target("3.4"));
        assert_eq!(Version::of_target("4.0").and_then(Version::one_minor_down), None);
    }
}
