//! `get`, `put`, `del` and `compaction`, and the requests that `txn` shares with them.

use std::io::Read;

use bytes::Bytes;

use super::{
    Context,
    client::Retry,
    fail::{Exit, Failure, Outcome},
    flags::Flags,
    go,
    output::{Format, Reply},
};
use crate::wire::etcdserverpb::{
    self as pb,
    kv_client::KvClient,
    range_request::{SortOrder, SortTarget},
};

/// Where a value that is not on the line comes from.
pub type Stdin<'a> = &'a mut dyn Read;

const ONE_OF: &str = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const TOO_MANY: &str = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
const PUT_ARGS: &str = "put command needs 1 argument and input from stdin or 2 arguments";

/// The end of the range of all keys that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    match kept {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end.into()
        }
        // Nothing comes after those keys: to the end of all keys.
        None => Bytes::from_static(b"\0"),
    }
}

/// Key and range end of the arguments, with `--prefix` and `--from-key`.
fn range_of(flags: &Flags) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.on("prefix"), flags.on("from-key"));
    let key = Bytes::from(flags.args[0].clone());
    if let Some(end) = flags.args.get(1) {
        if prefix || from_key {
            return Err(Failure::args(TOO_MANY));
        }
        return Ok((key, Bytes::from(end.clone())));
    }
    let key_or_first =
        if key.is_empty() && (prefix || from_key) { Bytes::from_static(b"\0") } else { key.clone() };
    let end = match (prefix, from_key) {
        (true, _) if !key.is_empty() => prefix_end(&key),
        (true, _) | (_, true) => Bytes::from_static(b"\0"),
        (false, false) => Bytes::new(),
    };
    Ok((key_or_first, end))
}

/// The request of a `get` line.
pub fn range_request(flags: &Flags) -> Result<pb::RangeRequest, Failure> {
    if flags.args.is_empty() {
        return Err(Failure::args(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    }
    if flags.on("prefix") && flags.on("from-key") {
        return Err(Failure::args(ONE_OF));
    }
    if flags.on("keys-only") && flags.on("count-only") {
        return Err(Failure::args(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = match flags.text("consistency") {
        "l" => false,
        "s" => true,
        other => {
            return Err(Failure::new(
                Exit::BadFeature,
                format!("unknown consistency flag {}", go::quote(other.as_bytes())),
            ));
        }
    };
    let (key, range_end) = range_of(flags)?;
    let order = match flags.text("order").to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Failure::new(Exit::BadFeature, format!("bad sort order {}", flags.text("order")))),
    };
    let target = match flags.text("sort-by").to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => {
            return Err(Failure::new(Exit::BadFeature, format!("bad sort target {}", flags.text("sort-by"))));
        }
    };
    // Keys come in ascending order anyway; a server that is asked to sort reads the whole range first.
    let order = if target == SortTarget::Key && order == SortOrder::Ascend { SortOrder::None } else { order };
    Ok(pb::RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: order as i32,
        sort_target: target as i32,
        serializable,
        keys_only: flags.on("keys-only"),
        count_only: flags.on("count-only"),
        ..Default::default()
    })
}

/// The request of a `put` line.
pub fn put_request(flags: &Flags, stdin: Stdin<'_>) -> Result<pb::PutRequest, Failure> {
    let (ignore_value, ignore_lease) = (flags.on("ignore-value"), flags.on("ignore-lease"));
    let Some(key) = flags.args.first() else { return Err(Failure::args(PUT_ARGS)) };
    if ignore_value && flags.args.len() > 1 {
        return Err(Failure::args("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match flags.args.get(1) {
        _ if ignore_value => Bytes::new(),
        Some(value) => Bytes::from(value.clone()),
        None => {
            let mut value = Vec::new();
            stdin.read_to_end(&mut value).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
            if value.is_empty() {
                return Err(Failure::args(PUT_ARGS));
            }
            value.into()
        }
    };
    let lease = go::parse_int(flags.text("lease"), 16)
        .map_err(|why| Failure::args(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(pb::PutRequest {
        key: Bytes::from(key.clone()),
        value,
        lease,
        prev_kv: flags.on("prev-kv"),
        ignore_value,
        ignore_lease,
    })
}

/// The request of a `del` line.
pub fn delete_request(flags: &Flags) -> Result<pb::DeleteRangeRequest, Failure> {
    if flags.args.is_empty() || flags.args.len() > 2 {
        return Err(Failure::args(
            "del command needs one argument as key and an optional argument as range_end",
        ));
    }
    if flags.on("prefix") && flags.on("from-key") {
        return Err(Failure::args(ONE_OF));
    }
    let (key, range_end) = range_of(flags)?;
    Ok(pb::DeleteRangeRequest { key, range_end, prev_kv: flags.on("prev-kv") })
}

/// `get`.
pub async fn get(context: Context) -> Outcome {
    let request = range_request(&context.flags)?;
    let (count_only, value_only) = (request.count_only, context.flags.on("print-value-only"));
    let session = context.connect().await?;
    let response = session
        .call(Retry::Repeatable, request, async |channel, request| {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).range(request).await
        })
        .await?;
    if count_only && session.printer.format() != Format::Fields {
        return Err(Failure::args("--count-only is only for `--write-out=fields`"));
    }
    if value_only && session.printer.format() != Format::Simple {
        return Err(Failure::args("print-value-only is only for `--write-out=simple`"));
    }
    session.print(&Reply::Get { response, value_only })
}

/// `put`.
pub async fn put(context: Context) -> Outcome {
    let request = put_request(&context.flags, &mut std::io::stdin())?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Once, request, async |channel, request| KvClient::new(channel).put(request).await)
        .await?;
    session.print(&Reply::Put(response))
}

/// `del`.
pub async fn del(context: Context) -> Outcome {
    let request = delete_request(&context.flags)?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Once, request, async |channel, request| {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).delete_range(request).await
        })
        .await?;
    session.print(&Reply::Del(response))
}

/// `compaction`: one sentence in every format.
pub async fn compaction(context: Context) -> Outcome {
    let [revision] = context.flags.args.as_slice() else {
        return Err(Failure::args("compaction command needs 1 argument"));
    };
    let revision = go::parse_int(revision, 10).map_err(|why| Failure::new(Exit::Error, why))?;
    let request = pb::CompactionRequest { revision, physical: context.flags.on("physical") };
    let session = context.connect().await?;
    session
        .call(Retry::Once, request, async |channel, request| KvClient::new(channel).compact(request).await)
        .await?;
    super::emit(format!("compacted revision {revision}\n").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::tree;

    fn flags(line: &[&str]) -> Flags {
        let found = tree::find(&line.iter().map(|w| w.to_string()).collect::<Vec<_>>()).expect("a command");
        Flags::parse(found.flags(), &found.line).expect("a good line")
    }

    #[test]
    fn prefixes_end_before_the_next_one() {
        assert_eq!(prefix_end(b"/a/"), &b"/a0"[..]);
        assert_eq!(prefix_end(b"a\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff\xff"), &b"\0"[..]);
        assert_eq!(prefix_end(b""), &b"\0"[..]);
    }

    #[test]
    fn ranges_follow_the_flags() {
        let range = |line: &[&str]| {
            let request = range_request(&flags(line)).expect("a good line");
            (request.key.to_vec(), request.range_end.to_vec())
        };
        assert_eq!(range(&["get", "a"]), (b"a".to_vec(), vec![]));
        assert_eq!(range(&["get", "a", "c"]), (b"a".to_vec(), b"c".to_vec()));
        assert_eq!(range(&["get", "a", "--prefix"]), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(range(&["get", "a", "--from-key"]), (b"a".to_vec(), vec![0]));
        assert_eq!(range(&["get", "", "--prefix"]), (vec![0], vec![0]));
        assert_eq!(range(&["get", "", "--from-key"]), (vec![0], vec![0]));
        assert_eq!(range(&["get", ""]), (vec![], vec![]));
    }

    #[test]
    fn bad_lines_are_refused_as_etcdctl_refuses_them() {
        for (line, exit, text) in [
            (
                &["get"][..],
                Exit::BadArgs,
                "get command needs one argument as key and an optional argument as range_end",
            ),
            (&["get", "a", "b", "--prefix"], Exit::BadArgs, TOO_MANY),
            (&["get", "a", "--prefix", "--from-key"], Exit::BadArgs, ONE_OF),
            (&["get", "a", "--order=x"], Exit::BadFeature, "bad sort order x"),
            (&["get", "a", "--sort-by=x"], Exit::BadFeature, "bad sort target x"),
            (&["get", "a", "--consistency=x"], Exit::BadFeature, "unknown consistency flag \"x\""),
        ] {
            assert_eq!(range_request(&flags(line)), Err(Failure::new(exit, text)), "{line:?}");
        }
        assert_eq!(
            put_request(&flags(&["put", "a", "b", "--lease=zz"]), &mut &b""[..]),
            Err(Failure::args(
                "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex"
            ))
        );
        assert_eq!(put_request(&flags(&["put", "a"]), &mut &b""[..]), Err(Failure::args(PUT_ARGS)));
        assert!(delete_request(&flags(&["del", "a", "b", "c"])).is_err());
    }

    #[test]
    fn a_value_comes_from_standard_input_as_it_is() {
        let request = put_request(&flags(&["put", "a"]), &mut &b"v\n"[..]).expect("a value");
        assert_eq!(request.value, &b"v\n"[..]);
    }
}
