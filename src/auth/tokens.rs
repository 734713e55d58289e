//! Simple tokens: 16 letters, a dot, and the index of the entry that gave it.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Session;
use crate::types::{Index, Instant};

/// How long an idle token lives if nothing else is asked for, in milliseconds; etcd's 300 s.
const TTL_DEFAULT_MS: u64 = 300_000;

/// How many tokens are kept; past that, the one that was idle the longest goes.
const TOKENS_MAX: usize = 1 << 20;

/// A use is noted when the end moves by this much, in milliseconds: many uses a second cost one note.
const NOTE_MS: u64 = 500;

/// The tokens that a member has heard of. Each lives while it is used.
#[derive(Clone, Debug)]
pub struct Tokens {
    ttl_ms: u64,
    tokens_max: usize,
    tokens: BTreeMap<String, Held>,
    ends: BTreeSet<(Instant, String)>,
}

#[derive(Clone, Debug)]
struct Held {
    user: String,
    end: Instant,
}

impl Tokens {
    /// None yet. A token lives for `ttl_ms` after its last use; 0 for the default.
    pub fn new(ttl_ms: u64) -> Self {
        let ttl_ms = if ttl_ms == 0 { TTL_DEFAULT_MS } else { ttl_ms };
        Self { ttl_ms, tokens_max: TOKENS_MAX, tokens: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// Does what an applied entry says about tokens.
    pub fn note(&mut self, session: Session, now: Instant) {
        match session {
            Session::Issued { token, user } => self.issue(token, user, now),
            Session::Ended(user) => {
                self.tokens.retain(|_, held| held.user != user);
                self.ends.retain(|(_, token)| self.tokens.contains_key(token));
            }
            Session::AllEnded => self.clear(),
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.ends.clear();
    }

    fn issue(&mut self, token: String, user: String, now: Instant) {
        self.sweep(now);
        if self.tokens.len() >= self.tokens_max
            && let Some((_, idle)) = self.ends.pop_first()
        {
            self.tokens.remove(&idle);
        }
        let end = now.after(self.ttl_ms);
        if let Some(held) = self.tokens.insert(token.clone(), Held { user, end }) {
            self.ends.remove(&(held.end, token.clone()));
        }
        self.ends.insert((end, token));
    }

    /// The user that a token stands for, whose life begins anew.
    pub fn user_of(&mut self, token: &str, now: Instant) -> Option<String> {
        self.sweep(now);
        let held = self.tokens.get_mut(token)?;
        let end = now.after(self.ttl_ms);
        if end.since(held.end) >= NOTE_MS {
            self.ends.remove(&(held.end, token.to_owned()));
            held.end = end;
            self.ends.insert((end, token.to_owned()));
        }
        Some(held.user.clone())
    }

    fn sweep(&mut self, now: Instant) {
        while let Some((end, _)) = self.ends.first()
            && *end < now
        {
            if let Some((_, token)) = self.ends.pop_first() {
                self.tokens.remove(&token);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// The index of the entry that gave a token; None if that is no token.
pub fn index_of(token: &str) -> Option<Index> {
    let (_, index) = token.split_once('.')?;
    index.bytes().all(|byte| byte.is_ascii_digit()).then(|| index.parse().ok().map(Index))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(token: &str, user: &str) -> Session {
        Session::Issued { token: token.into(), user: user.into() }
    }

    #[test]
    fn a_token_lives_while_it_is_used() {
        let mut tokens = Tokens::new(1_000);
        tokens.note(issued("a.1", "u"), Instant(0));
        for now in [600, 1_200, 2_000] {
            assert_eq!(tokens.user_of("a.1", Instant(now)).as_deref(), Some("u"), "at {now}");
        }
        assert_eq!(tokens.user_of("a.1", Instant(3_001)), None);
        assert!(tokens.is_empty());
        assert!(tokens.ends.is_empty());
    }

    #[test]
    fn tokens_end_with_their_user_or_all_at_once() {
        let mut tokens = Tokens::new(0);
        for (token, user) in [("a.1", "u"), ("b.2", "v"), ("c.3", "u"), ("d.4", "w")] {
            tokens.note(issued(token, user), Instant(5));
        }
        tokens.note(Session::Ended("u".into()), Instant(5));
        assert_eq!(tokens.user_of("a.1", Instant(5)), None);
        assert_eq!(tokens.user_of("b.2", Instant(5)).as_deref(), Some("v"));
        assert_eq!((tokens.len(), tokens.ends.len()), (2, 2));
        tokens.note(Session::AllEnded, Instant(5));
        assert!(tokens.is_empty() && tokens.ends.is_empty());
    }

    #[test]
    fn the_idle_one_makes_room() {
        let mut tokens = Tokens { tokens_max: 2, ..Tokens::new(10_000) };
        tokens.note(issued("a.1", "u"), Instant(0));
        tokens.note(issued("b.2", "u"), Instant(1));
        assert!(tokens.user_of("a.1", Instant(5_000)).is_some());
        tokens.note(issued("c.3", "u"), Instant(5_001));
        assert_eq!(tokens.user_of("b.2", Instant(5_001)), None);
        assert!(tokens.user_of("a.1", Instant(5_001)).is_some());
        assert_eq!((tokens.len(), tokens.ends.len()), (2, 2));
    }

    #[test]
    fn a_token_names_its_entry() {
        assert_eq!(index_of("IPYFgnYQqSffALtC.108"), Some(Index(108)));
        for wrong in ["", "abc", "a.b", "a.1.2", "a.", "a.-1", "a.+1", "a.99999999999999999999999"] {
            assert_eq!(index_of(wrong), None, "{wrong}");
        }
    }
}
