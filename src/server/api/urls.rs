//! Peer URLs as etcd takes them when a member is added.

/// The URLs, sorted; None if there are none or any is not `http(s)://host:port` without a path, or a unix one.
pub(super) fn parse(urls: &[String]) -> Option<Vec<String>> {
    if urls.is_empty() {
        return None;
    }
    let mut parsed = urls.iter().map(|url| one(url.trim())).collect::<Option<Vec<_>>>()?;
    parsed.sort_unstable();
    Some(parsed)
}

fn one(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if url.chars().any(char::is_control) {
        return None;
    }
    match scheme.as_str() {
        "unix" | "unixs" => {}
        "http" | "https" => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, behind) = rest.split_at(end);
            if behind.starts_with('/') || !has_port(authority.rsplit('@').next().unwrap_or(authority)) {
                return None;
            }
        }
        _ => return None,
    }
    Some(format!("{scheme}://{rest}"))
}

/// Whether it is a host and, behind one colon, the digits of a port, of which there may be none.
fn has_port(host_port: &str) -> bool {
    let Some((host, port)) = host_port.rsplit_once(':') else {
        return false;
    };
    let host_is_sound = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.ends_with(']') && !bracketed[..bracketed.len() - 1].contains(['[', ']']),
        None => !host.contains([':', '[', ']']),
    };
    host_is_sound
        && !host.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}'])
        && port.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(url: &str) -> Option<Vec<String>> {
        parse(&[url.to_owned()])
    }

    #[test]
    fn takes_what_etcd_takes() {
        for url in [
            "http://1.2.3.4:1",
            "https://[::1]:2380",
            "http://:2380",
            "http://a:",
            "unix://a",
            "unixs://a:1/x",
        ] {
            assert_eq!(parse_one(url), Some(vec![url.to_owned()]), "{url}");
        }
        assert_eq!(parse_one(" HTTP://a:1 "), Some(vec!["http://a:1".to_owned()]));
        let urls = ["http://b:1".to_owned(), "http://a:1".to_owned()];
        assert_eq!(parse(&urls), Some(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]));
    }

    #[test]
    fn refuses_what_etcd_refuses() {
        assert_eq!(parse(&[]), None);
        for url in [
            "",
            "x",
            "http://1.2.3.4",
            "http://1.2.3.4:1/path",
            "http://a:1/",
            "ftp://1.2.3.4:1",
            "http://a:b",
            "http://::1:1",
        ] {
            assert_eq!(parse_one(url), None, "{url}");
        }
        assert_eq!(parse(&["http://a:1".to_owned(), "x".to_owned()]), None);
    }
}
