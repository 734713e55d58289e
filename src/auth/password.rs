//! Passwords: bcrypt, as Go's library writes and reads it.
//!
//! To hash or to compare takes tens of milliseconds, by design: it is done where waiting is nobody else's.

use super::action::Password;

/// The cost that a hash takes if nothing else is asked for; etcd's.
pub const COST_DEFAULT: u32 = 10;

/// The least cost that bcrypt knows.
pub const COST_MIN: u32 = 4;

/// The highest.
pub const COST_MAX: u32 = 31;

/// Hashes a password. The cost is one that bcrypt knows; any other counts as the default.
pub fn hash(password: &str, cost: u32, salt: [u8; 16]) -> String {
    let cost = if (COST_MIN..=COST_MAX).contains(&cost) { cost } else { COST_DEFAULT };
    match bcrypt::hash_with_salt(password, cost, salt) {
        Ok(parts) => parts.format_for_version(bcrypt::Version::TwoA),
        // It refuses costs that it does not know, and passwords with a zero byte: nothing matches an empty hash.
        Err(_) => String::new(),
    }
}

/// Whether a password is the one that was hashed.
pub fn matches(password: &str, hash: &[u8]) -> bool {
    let Ok(hash) = std::str::from_utf8(hash) else { return false };
    bcrypt::verify(password, hash).unwrap_or(false)
}

impl Password {
    /// What the store keeps: the hash, as bytes. A plain password of an old log is hashed with `salt`. None if
    /// the hash is not base64.
    pub(super) fn stored(&self, salt: [u8; 16]) -> Option<Vec<u8>> {
        use base64::Engine as _;
        if !self.plain.is_empty() && self.hashed.is_empty() {
            return Some(hash(&self.plain, COST_DEFAULT, salt).into_bytes());
        }
        base64::engine::general_purpose::STANDARD.decode(&self.hashed).ok()
    }

    /// A hashed password, as it is proposed.
    pub fn hashed(hash: &str) -> Self {
        use base64::Engine as _;
        let hashed = base64::engine::general_purpose::STANDARD.encode(hash);
        Self { plain: String::new(), hashed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_gos() {
        // Of `user add u:pw` in etcd 3.5.1.
        let hash = hash("pw", 4, [7; 16]);
        assert!(hash.starts_with("$2a$04$"), "{hash}");
        assert_eq!(hash.len(), 60);
        assert!(matches("pw", hash.as_bytes()));
        assert!(!matches("pW", hash.as_bytes()));
        assert!(!matches("", hash.as_bytes()));
        assert!(!matches("pw", b""));
        assert!(!matches("pw", b"$2a$04$short"));
    }

    #[test]
    fn an_empty_password_is_one() {
        let hash = hash("", 4, [7; 16]);
        assert!(matches("", hash.as_bytes()));
        assert!(!matches("x", hash.as_bytes()));
    }

    #[test]
    fn a_password_does_not_show() {
        let password = Password { plain: "secret".into(), hashed: String::new() };
        assert_eq!(format!("{password:?}"), "plain");
    }
}
