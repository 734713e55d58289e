//! Whether ranges together hold another.

use bytes::Bytes;

use super::kv::Span;

/// From the first key to before the second; none for no end.
pub(super) type Bounds = (Bytes, Option<Bytes>);

/// Of a span.
pub(super) fn bounds(span: &Span) -> Bounds {
    let end = match span.end.as_ref() {
        [] => Some([&span.key[..], &[0]].concat().into()),
        [0] => None,
        _ => Some(span.end.clone()),
    };
    (span.key.clone(), end)
}

/// Whether ranges together hold all of another. One that holds nothing is not judged: it counts as held.
pub(super) fn cover(mut ranges: Vec<Bounds>, (key, end): Bounds) -> bool {
    if end.as_ref().is_some_and(|end| *end <= key) {
        return true;
    }
    ranges.sort();
    let mut reached = key;
    for (from, to) in ranges {
        if from > reached {
            break;
        }
        match to {
            None => return true,
            Some(to) => reached = reached.max(to),
        }
        if end.as_ref().is_some_and(|end| *end <= reached) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> Bounds {
        bounds(&Span::new(&Bytes::from_static(key.as_bytes()), &Bytes::from_static(end.as_bytes())))
    }

    #[test]
    fn ranges_add_up() {
        let held = || vec![range("a", "c"), range("c", "e"), range("k", "")];
        assert!(cover(held(), range("a", "e")));
        assert!(cover(held(), range("b", "d")));
        assert!(cover(held(), range("k", "")));
        assert!(!cover(held(), range("a", "f")));
        assert!(!cover(held(), range("k", "l")));
        assert!(!cover(held(), range("a", "\0")));
        assert!(cover(vec![range("m", "\0")], range("z", "\0")));
    }
}
