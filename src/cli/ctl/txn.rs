//! `txn`: compares, then the operations for success, then those for failure, each block ended by an empty line.
//!
//! ```text
//! mod("key1") > "0"
//!
//! put key1 "overwrote-key1"
//!
//! put key1 "created-key1"
//!
//! ```

use std::io::BufRead;

use bytes::Bytes;

use super::{
    Context,
    client::Retry,
    fail::{Exit, Failure, Outcome},
    flags::{Flags, Refused},
    go, kv,
    output::Reply,
    tree::{self, Action},
};
use crate::wire::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op::Request,
};

/// `txn`; it may take as long as it takes.
pub async fn txn(context: Context) -> Outcome {
    if !context.flags.args.is_empty() {
        return Err(Failure::args("txn command does not accept argument"));
    }
    let request = read(&mut std::io::stdin().lock(), context.flags.on("interactive"))?;
    let session = context.connect().await?;
    let response = session
        .client
        .call(None, Retry::Once, request, async |channel, request| {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).txn(request).await
        })
        .await?;
    session.print(&Reply::Txn(response))
}

/// Reads the three blocks.
fn read(input: &mut dyn BufRead, prompt: bool) -> Result<pb::TxnRequest, Failure> {
    let ask = |text: &str| if prompt { super::emit(format!("{text}:\n").into()) } else { Ok(()) };
    ask("compares")?;
    let compare = block(input, parse_compare)?;
    ask("success requests (get, put, del)")?;
    let success = block(input, parse_op)?;
    ask("failure requests (get, put, del)")?;
    let failure = block(input, parse_op)?;
    Ok(pb::TxnRequest { compare, success, failure })
}

/// Reads lines up to an empty one.
fn block<T>(input: &mut dyn BufRead, parse: impl Fn(&str) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?;
        if line.pop() != Some(b'\n') {
            return Err(Failure::new(Exit::BadInput, "EOF"));
        }
        if line.is_empty() {
            return Ok(items);
        }
        items.push(parse(&String::from_utf8_lossy(&line))?);
    }
}

/// Parses `TARGET("KEY") OP "VALUE"`; what follows is ignored.
fn parse_compare(line: &str) -> Result<pb::Compare, Failure> {
    let bad = |text: String| Failure::new(Exit::BadInput, text);
    let Some((target, rest)) = line.split_once('(') else {
        return Err(bad(format!("malformed comparison: {line}")));
    };
    let (key, op, value) = scan(rest);
    let Some(value) = value else {
        let (key, op) = (go::quote(&key.unwrap_or_default()), op.unwrap_or_default());
        return Err(bad(format!("malformed comparison: {line}; got {target}({key}) {op} \"\"")));
    };
    let number = || {
        let text = String::from_utf8_lossy(&value);
        go::parse_int(&text, 10).map_err(|_| bad(format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
        // etcdctl crashes on this one, in every version.
        "lease" => return Err(Failure::new(Exit::BadConnection, "bad value: leases can't be compared here")),
        other => return Err(bad(format!("malformed comparison: {line} (unknown target {other})"))),
    };
    let result = match op.unwrap_or_default() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        // Here too, with this exit code.
        other => return Err(Failure::new(Exit::BadConnection, format!("Unknown result op {other}"))),
    };
    Ok(pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.unwrap_or_default().into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

/// Scans `"KEY") OP "VALUE"` as far as it goes.
#[allow(clippy::type_complexity)]
fn scan(text: &str) -> (Option<Vec<u8>>, Option<&str>, Option<Vec<u8>>) {
    let Some((key, rest)) = go::unquote(text) else { return (None, None, None) };
    let Some(rest) = rest.strip_prefix(')').filter(|rest| rest.starts_with(' ')) else {
        return (Some(key), None, None);
    };
    let rest = rest.trim_start_matches(' ');
    let (op, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    let value = rest.starts_with(' ').then(|| go::unquote(rest.trim_start_matches(' '))).flatten();
    (Some(key), Some(op), value.map(|(value, _)| value))
}

/// Parses one operation, in the words of its command.
fn parse_op(line: &str) -> Result<pb::RequestOp, Failure> {
    let bad = |kind: &str| Failure::new(Exit::BadInput, format!("invalid txn {kind}: {line}"));
    let words = split_words(line);
    if words.len() < 2 {
        return Err(bad("compare request"));
    }
    let found = tree::find(&words).map_err(|_| bad("request"))?;
    let flags = Flags::parse(found.flags(), &found.line).map_err(|refused| match refused {
        Refused::Help | Refused::Text(_) => bad("request"),
    })?;
    let request = match found.command().action {
        Some(Action::Get) => Request::RequestRange(kv::range_request(&flags)?),
        Some(Action::Put) => Request::RequestPut(kv::put_request(&flags, &mut std::io::empty())?),
        Some(Action::Del) => Request::RequestDeleteRange(kv::delete_request(&flags)?),
        _ => return Err(bad("request")),
    };
    Ok(pb::RequestOp { request: Some(request) })
}

/// Splits a line at white space; `"…"` with Go's escapes and `'…'` hold a word together.
pub fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some((word, after)) = go::unquote(rest) {
            words.push(String::from_utf8_lossy(&word).into_owned());
            rest = after;
        } else if let Some((word, after)) = rest.strip_prefix('\'').and_then(|text| text.split_once('\'')) {
            words.push(word.into());
            rest = after;
        } else if first == '"' || first == '\'' {
            // A quote that nothing closes holds nothing.
            rest = &rest[1..];
        } else {
            let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
            words.push(word.into());
            rest = after;
        }
        rest = rest.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> (Exit, String) {
        let failure = read(&mut text.as_bytes(), false).expect_err(text);
        (failure.exit, failure.text.expect("a sentence"))
    }

    #[test]
    fn three_blocks_make_a_transaction() {
        let text = "mod(\"k\") > \"5\"\nval(\"a b\") != \"x\\ny\" and so on\n\nput k \"a b\"\ndel x --prefix\n\nget k z\n\n";
        let txn = read(&mut text.as_bytes(), false).expect("a transaction");
        let compares: Vec<_> =
            txn.compare.iter().map(|c| (&c.key[..], c.result, c.target_union.clone())).collect();
        assert_eq!(
            compares,
            [
                (&b"k"[..], CompareResult::Greater as i32, Some(TargetUnion::ModRevision(5))),
                (
                    b"a b",
                    CompareResult::NotEqual as i32,
                    Some(TargetUnion::Value(Bytes::from_static(b"x\ny")))
                ),
            ]
        );
        let put = pb::PutRequest { key: "k".into(), value: "a b".into(), ..Default::default() };
        assert_eq!(txn.success[0].request, Some(Request::RequestPut(put)));
        let del = pb::DeleteRangeRequest { key: "x".into(), range_end: "y".into(), prev_kv: false };
        assert_eq!(txn.success[1].request, Some(Request::RequestDeleteRange(del)));
        assert_eq!(txn.failure.len(), 1);
    }

    #[test]
    fn compares_are_refused_with_what_was_understood() {
        for (line, text) in [
            ("garbage", "malformed comparison: garbage"),
            ("mod(y1) = \"1\"", "malformed comparison: mod(y1) = \"1\"; got mod(\"\")  \"\""),
            ("mod(\"y1\" = \"1\"", "malformed comparison: mod(\"y1\" = \"1\"; got mod(\"y1\")  \"\""),
            ("mod(\"y1\")=\"1\"", "malformed comparison: mod(\"y1\")=\"1\"; got mod(\"y1\")  \"\""),
            ("mod(\"y1\") = 1", "malformed comparison: mod(\"y1\") = 1; got mod(\"y1\") = \"\""),
            ("foo(\"y1\") = \"1\"", "malformed comparison: foo(\"y1\") = \"1\" (unknown target foo)"),
            ("mod(\"y1\") = \"abc\"", "invalid txn compare request: mod(\"y1\") = \"abc\""),
        ] {
            assert_eq!(failure(&format!("{line}\n\n\n\n")), (Exit::BadInput, text.into()));
        }
        assert_eq!(failure("mod(\"y\") ! \"3\"\n\n\n\n").0, Exit::BadConnection);
        assert_eq!(failure("lease(\"y\") = \"0\"\n\n\n\n").0, Exit::BadConnection);
    }

    #[test]
    fn operations_are_refused_with_their_line() {
        assert_eq!(failure("\nfoo bar\n\n\n"), (Exit::BadInput, "invalid txn request: foo bar".into()));
        assert_eq!(failure("\nput\n\n\n"), (Exit::BadInput, "invalid txn compare request: put".into()));
        assert_eq!(
            failure("\nget a --nosuch\n\n\n"),
            (Exit::BadInput, "invalid txn request: get a --nosuch".into())
        );
        assert_eq!(failure("\nput onlykey\n\n\n").0, Exit::BadArgs);
    }

    #[test]
    fn input_that_ends_early_is_refused() {
        for text in ["", "\n", "\n\n", "\nput a b"] {
            assert_eq!(failure(text), (Exit::BadInput, "EOF".into()), "{text:?}");
        }
    }

    #[test]
    fn words_are_held_together_by_quotes() {
        assert_eq!(split_words(r#"put "a b" 'c d' e\n "x\ny""#), ["put", "a b", "c d", "e\\n", "x\ny"]);
        assert_eq!(split_words("  "), Vec::<String>::new());
        assert_eq!(split_words(r#"get "open"#), ["get", "open"]);
    }
}
