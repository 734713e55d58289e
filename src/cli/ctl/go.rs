//! Go's text forms, which etcdctl's inputs and outputs are written in: numbers and their error texts,
//! durations, quoted strings, human sizes.

use std::{fmt::Write, time::Duration};

/// Parses as `strconv.ParseInt(text, base, 64)`; base 0 takes the base from the prefix.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let invalid = || format!("strconv.ParseInt: parsing {}: invalid syntax", quote(text.as_bytes()));
    let range = || format!("strconv.ParseInt: parsing {}: value out of range", quote(text.as_bytes()));
    let magnitude = match magnitude(digits, base) {
        Ok(value) => value,
        Err(Bad::Syntax) => return Err(invalid()),
        Err(Bad::Range) => return Err(range()),
    };
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| range())
}

/// Parses as `strconv.ParseUint(text, base, 64)`.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    magnitude(text, base).map_err(|bad| {
        let what = match bad {
            Bad::Syntax => "invalid syntax",
            Bad::Range => "value out of range",
        };
        format!("strconv.ParseUint: parsing {}: {what}", quote(text.as_bytes()))
    })
}

enum Bad {
    Syntax,
    Range,
}

fn magnitude(text: &str, base: u32) -> Result<u64, Bad> {
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match base {
        0 => match lower.get(..2) {
            Some("0x") => (&lower[2..], 16),
            Some("0b") => (&lower[2..], 2),
            Some("0o") => (&lower[2..], 8),
            _ if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
            _ => (lower.as_str(), 10),
        },
        base => (lower.as_str(), base),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(Bad::Syntax);
    }
    u64::from_str_radix(digits, base).map_err(|_| Bad::Range)
}

/// Parses as `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text.as_bytes()))),
    }
}

/// Parses as `time.ParseDuration`, with its error texts. A negative one counts as zero, which is what it
/// means to each of the flags.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let quoted = quote(text.as_bytes());
    let invalid = || format!("time: invalid duration {quoted}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let nanos = match unit {
            "" => return Err(format!("time: missing unit in duration {quoted}")),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => {
                return Err(format!("time: unknown unit {} in duration {quoted}", quote(other.as_bytes())));
            }
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * nanos;
        rest = after;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_nanos(total.round() as u64) })
}

/// Writes a duration as Go's `Duration.String` does: `2.390185ms`, `1m30s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| format!("{}{name}", decimal(nanos, unit));
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            const SECOND: u128 = 1_000_000_000;
            let minutes = nanos / (60 * SECOND);
            let seconds = decimal(nanos % (60 * SECOND), SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` in decimal, without trailing zeros.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let digits = unit.to_string().len() - 1;
    format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0'))
}

/// Quotes bytes as Go's `%q` does a string: bytes that are not UTF-8 become `\xNN`.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    let _ = match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\x07' => out.write_str("\\a"),
        '\x08' => out.write_str("\\b"),
        '\x0c' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\x0b' => out.write_str("\\v"),
        c if printable(c) => out.write_char(c),
        c if c < ' ' || c == '\x7f' => write!(out, "\\x{:02x}", c as u32),
        c if (c as u32) < 0x1_0000 => write!(out, "\\u{:04x}", c as u32),
        c => write!(out, "\\U{:08x}", c as u32),
    };
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Inside a string, Rust's escape_debug leaves alone exactly the printable ones; at its start it would
    // escape combining marks as well, hence the letter before it.
    let text: String = ['a', c].iter().collect();
    text.escape_debug().count() == 2
}

/// Reads a Go string literal in double quotes at the start of `text`: its bytes, and what follows it.
/// `None` if there is no complete literal.
pub fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((out, rest)),
            '\n' => return None,
            '\\' => rest = unescape(rest, &mut out)?,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Reads what follows a backslash.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let hex = |len: usize| -> Option<(u32, &'a str)> {
        let digits = rest.get(..len)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        Some((u32::from_str_radix(digits, 16).ok()?, &rest[len..]))
    };
    let simple = match c {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            let (value, rest) = hex(2)?;
            out.push(value as u8);
            return Some(rest);
        }
        'u' | 'U' => {
            let (value, rest) = hex(if c == 'u' { 4 } else { 8 })?;
            out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        '0'..='7' => {
            let digits = text.get(..3)?;
            out.push(u8::from_str_radix(digits, 8).ok()?);
            return Some(&text[3..]);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

/// A size for people, in powers of 1000: `512 B`, `2.1 MB`, `33 kB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut exponent = 0;
    let mut scale = 1u64;
    while exponent + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        exponent += 1;
    }
    let value = (bytes as f64 / scale as f64 * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expect) in [
            ("5s", Ok(Duration::from_secs(5))),
            ("1m30s", Ok(Duration::from_secs(90))),
            ("1.5h", Ok(Duration::from_secs(5400))),
            ("250ms", Ok(Duration::from_millis(250))),
            ("0", Ok(Duration::ZERO)),
            ("-3s", Ok(Duration::ZERO)),
            ("1", Err("time: missing unit in duration \"1\"")),
            ("abc", Err("time: invalid duration \"abc\"")),
            ("", Err("time: invalid duration \"\"")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"")),
            ("1s2", Err("time: missing unit in duration \"1s2\"")),
            (".s", Err("time: invalid duration \".s\"")),
        ] {
            assert_eq!(parse_duration(text), expect.map_err(String::from), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, expect) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (2_390_185, "2.390185ms"),
            (5_001_101_584, "5.001101584s"),
            (60_000_000_000, "1m0s"),
            (3_690_000_000_000, "1h1m30s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), expect);
        }
    }

    #[test]
    fn numbers_fail_with_go_texts() {
        assert_eq!(parse_int("1f", 16), Ok(31));
        assert_eq!(parse_int("-5", 10), Ok(-5));
        assert_eq!(parse_int("0x10", 0), Ok(16));
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int("zz", 16), Err("strconv.ParseInt: parsing \"zz\": invalid syntax".into()));
        assert_eq!(
            parse_int("9223372036854775808", 10),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".into())
        );
        assert_eq!(parse_uint("-1", 16), Err("strconv.ParseUint: parsing \"-1\": invalid syntax".into()));
        assert_eq!(parse_uint("ffffffffffffffff", 16), Ok(u64::MAX));
    }

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        for (bytes, expect) in [
            (&b"plain"[..], r#""plain""#),
            (b"v\x00\xff", r#""v\x00\xff""#),
            (b"a\"b\\c\n\t\x07\x7f", r#""a\"b\\c\n\t\a\x7f""#),
            (
                "é世\u{a0}\u{301}\u{1f600}\u{feff}\u{e0001}".as_bytes(),
                "\"é世\\u00a0\u{301}😀\\ufeff\\U000e0001\"",
            ),
        ] {
            assert_eq!(quote(bytes), expect);
        }
    }

    #[test]
    fn string_literals_are_read_back() {
        let (bytes, rest) = unquote(r#""x\ny\x41\101\u00e9\"" tail"#).expect("a literal");
        assert_eq!((bytes.as_slice(), rest), ("x\nyAA\u{e9}\"".as_bytes(), " tail"));
        for bad in ["plain", "\"open", r#""\q""#, r#""\x4""#] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, expect) in [
            (0, "0 B"),
            (9, "9 B"),
            (512, "512 B"),
            (20_480, "20 kB"),
            (32_768, "33 kB"),
            (2_100_000, "2.1 MB"),
        ] {
            assert_eq!(human_size(bytes), expect);
        }
    }
}
