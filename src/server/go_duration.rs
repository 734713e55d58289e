//! Durations as Go writes them, which etcd's options do.

/// Nanoseconds of a duration as Go writes it: `1h30m`, `1.5s`, `-3ms`, `0`. None if it is none or too long.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum: i64 = 0;
    loop {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        sum = sum.checked_add(go_duration_part(number, unit)?)?;
        if tail.is_empty() {
            return Some(sign * sum);
        }
        rest = tail;
    }
}

fn go_duration_part(number: &str, unit: &str) -> Option<i64> {
    let scale: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits below a nanosecond make no difference.
    let (part, _) = fraction
        .bytes()
        .fold((0, scale), |(sum, unit), digit| (sum + unit / 10 * i64::from(digit - b'0'), unit / 10));
    whole.checked_mul(scale)?.checked_add(part)
}
