//! Sets of keys as merged spans, and whether a range lies within one.

use bytes::Bytes;

use crate::types::{KeyRange, RangeEnd};

/// A set of keys: spans in order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    spans: Vec<Span>,
}

/// All keys from `start` to before `end`; no end is the end of all keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    fn of(range: &KeyRange) -> Self {
        let end = match &range.end {
            RangeEnd::Single => Some(after(&range.start)),
            RangeEnd::Before(end) => Some(end.clone()),
            RangeEnd::Unbounded => None,
        };
        Self { start: range.start.clone(), end }
    }

    /// Whether another span that starts no earlier begins within it or right at its end.
    fn reaches(&self, start: &Bytes) -> bool {
        self.end.as_ref().is_none_or(|end| end >= start)
    }

    fn ends_before(&self, end: Option<&Bytes>) -> bool {
        match (&self.end, end) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(mine), Some(end)) => mine < end,
        }
    }
}

/// The key right behind another.
fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

impl Spans {
    /// The keys of all the ranges together. Ranges that can hold no key add none.
    pub fn union(ranges: impl IntoIterator<Item = KeyRange>) -> Self {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty());
        let mut parts: Vec<Span> = ranges.map(|range| Span::of(&range)).collect();
        parts.sort();
        let mut spans: Vec<Span> = Vec::new();
        for part in parts {
            match spans.last_mut() {
                Some(last) if last.reaches(&part.start) => {
                    if last.ends_before(part.end.as_ref()) {
                        last.end = part.end;
                    }
                }
                Some(_) | None => spans.push(part),
            }
        }
        Self { spans }
    }

    /// Whether each key that `range` can hold is in the set. A range that can hold none counts as its first key, so
    /// that who has no permission is not told that there is nothing.
    pub fn cover(&self, range: &KeyRange) -> bool {
        let wanted = match range.is_empty() {
            true => Span::of(&KeyRange::single(range.start.clone())),
            false => Span::of(range),
        };
        // The last span that starts no later: no other can hold the start.
        let behind = self.spans.partition_point(|span| span.start <= wanted.start);
        let Some(span) = behind.checked_sub(1).and_then(|at| self.spans.get(at)) else { return false };
        !span.ends_before(wanted.end.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys of up to three of two bytes, and of one byte more, which ends them.
    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..3, 1..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let end = prop_oneof![2 => Just(Bytes::new()), 1 => Just(Bytes::from_static(&[0])), 4 => key()];
        (key(), end).prop_map(|(key, end)| KeyRange::from_wire(key, end))
    }

    /// All keys of up to four bytes of 0 to 3. Each range above differs from another in one of them.
    fn keys() -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        let mut from = 0;
        for _ in 0..4 {
            let to = keys.len();
            for at in from..to {
                for byte in 0..4 {
                    keys.push([keys[at].as_slice(), &[byte]].concat());
                }
            }
            from = to;
        }
        keys.retain(|key| !key.is_empty());
        keys
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn covers_what_a_look_at_each_key_says(
            granted in prop::collection::vec(range(), 0..6),
            wanted in prop::collection::vec(range(), 1..12),
        ) {
            let keys = keys();
            let spans = Spans::union(granted.clone());
            for wanted in wanted {
                let wanted = if wanted.is_empty() { KeyRange::single(wanted.start) } else { wanted };
                let mut held = keys.iter().filter(|key| wanted.contains(key));
                let all = held.all(|key| granted.iter().any(|range| range.contains(key)));
                // What has no end holds keys above all of these, too.
                let open = wanted.end != RangeEnd::Unbounded
                    || granted.iter().any(|range| range.end == RangeEnd::Unbounded);
                prop_assert_eq!(spans.cover(&wanted), all && open, "{:?} by {:?}", wanted, granted);
            }
        }
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let range = |start: &'static str, end: &'static str| {
            KeyRange::from_wire(Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()))
        };
        let spans = Spans::union([range("c", "e"), range("a", "c"), range("k", "")]);
        assert!(spans.cover(&range("a", "e")));
        assert!(spans.cover(&range("b", "")));
        assert!(spans.cover(&range("k", "k\0")));
        assert!(!spans.cover(&range("a", "f")));
        assert!(!spans.cover(&range("a", "\0")));
        assert!(!spans.cover(&range("k", "l")));
        assert!(!spans.cover(&range("z", "a")));
        assert!(spans.cover(&range("b", "a")));
        let open = Spans::union([range("k", "\0")]);
        assert!(open.cover(&range("z", "\0")));
        assert!(!open.cover(&range("\0", "\0")));
        assert!(!Spans::default().cover(&range("a", "")));
    }
}
