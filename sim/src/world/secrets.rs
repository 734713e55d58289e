//! Tokens and passwords at the price of a simulation: nobody attacks them here.

use std::{collections::BTreeMap, sync::Mutex};

use kontiki::server::{Bcrypt, PasswordHasher, TokenSigner};

use crate::lock::lock;

/// Tokens that say whose they are and of which authorization revision. Nobody forges them here.
#[derive(Debug)]
pub(super) struct PlainSigner;

impl TokenSigner for PlainSigner {
    fn sign(&self, user: &str, revision: u64, _unix_seconds: u64) -> Option<String> {
        Some(format!("{user} {revision}"))
    }

    fn verify(&self, token: &str, _unix_seconds: u64) -> Option<(String, u64)> {
        let (user, revision) = token.rsplit_once(' ')?;
        Some((user.to_owned(), revision.parse().ok()?))
    }
}

/// Bcrypt, at the least cost that it has, which remembers what it has hashed: to compare takes as long as to hash, and
/// is done more often. What is stored is what members store.
#[derive(Debug, Default)]
pub(super) struct Remembering(Mutex<BTreeMap<String, String>>);

const BCRYPT: Bcrypt = Bcrypt(4);

impl PasswordHasher for Remembering {
    fn hash(&self, password: &str, salt: [u8; 16]) -> String {
        let hash = BCRYPT.hash(password, salt);
        lock(&self.0).insert(hash.clone(), password.to_owned());
        hash
    }

    fn matches(&self, password: &str, hash: &[u8]) -> bool {
        let known = std::str::from_utf8(hash).ok().and_then(|hash| lock(&self.0).get(hash).cloned());
        known.map_or_else(|| BCRYPT.matches(password, hash), |known| known == password)
    }
}
