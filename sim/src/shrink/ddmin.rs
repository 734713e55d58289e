//! Cutting a list: chunks go as long as what is left still fails.

/// Leaves out of `items` what it can, in chunks that get smaller, as long as `fails` holds of the rest; `fails` gives
/// none when there is no time left. At the end, without a lack of time, no single item can be left out.
pub fn ddmin<T: Clone>(mut items: Vec<T>, mut fails: impl FnMut(&[T]) -> Option<bool>) -> Vec<T> {
    let mut chunk = items.len();
    while chunk > 0 {
        let mut cut = false;
        // From the end on: what is late rarely matters to what is early.
        let mut end = items.len();
        while end > 0 {
            let begin = end.saturating_sub(chunk);
            let rest: Vec<T> = items[..begin].iter().chain(&items[end..]).cloned().collect();
            match fails(&rest) {
                Some(true) => {
                    items = rest;
                    cut = true;
                }
                Some(false) => {}
                None => return items,
            }
            end = begin;
        }
        if chunk == 1 && cut && !items.is_empty() {
            continue;
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2).min(items.len()) };
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays() {
        let needed = [3, 41, 77];
        let mut tries = 0;
        let left = ddmin((0..100).collect(), |rest| {
            tries += 1;
            Some(needed.iter().all(|item| rest.contains(item)))
        });
        assert_eq!(left, needed);
        assert!(tries < 80, "{tries} tries");
    }

    #[test]
    fn nothing_needed_nothing_left() {
        assert!(ddmin((0..100).collect(), |_| Some(true)).is_empty());
        assert!(ddmin(Vec::<u8>::new(), |_| Some(true)).is_empty());
    }

    #[test]
    fn without_time_it_stops_where_it_is() {
        let mut tries = 3;
        let left = ddmin((0..64).collect(), |rest| {
            tries -= 1;
            (tries > 0).then(|| rest.contains(&5))
        });
        assert!(left.len() < 64 && left.contains(&5));
    }
}
