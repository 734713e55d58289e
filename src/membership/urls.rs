//! URLs of members and listeners, with etcd's rules and sentences.
//!
//! A URL here names where to connect and nothing else: a scheme of four, a host and a port, no path.

use std::fmt;

use thiserror::Error;

/// How the other end is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let known = [Self::Http, Self::Https, Self::Unix, Self::Unixs];
        known.into_iter().find(|scheme| name.eq_ignore_ascii_case(scheme.name()))
    }

    /// Whether it goes over TLS.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether it goes over a unix socket, whose name then is `host:port`.
    pub const fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }
}

/// Where to connect or listen. Ordered and shown as its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// What stands between `//` and the end, `host:port`.
    authority: String,
}

/// Why a text is no such URL; etcd's sentences, with the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// It is no URL at all.
    #[error("parse {0:?}: {1}")]
    Syntax(String, String),
    /// Its scheme is none of the four.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// There is no port, or no host and port to tell apart.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// It goes on behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
    /// A list of URLs holds none.
    #[error("no valid URLs given")]
    Empty,
}

impl Url {
    /// Reads a URL, white space around it apart.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let syntax = |why: &str| UrlError::Syntax(text.into(), why.into());
        if text.contains(|c: char| c.is_ascii_control()) {
            return Err(syntax("net/url: invalid control character in URL"));
        }
        let whole = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = split_scheme(whole).ok_or_else(|| syntax("missing protocol scheme"))?;
        let rest = rest.split('?').next().unwrap_or_default();
        if scheme.is_empty() && rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err(syntax("first path segment in URL cannot contain colon"));
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = authority.rsplit('@').next().unwrap_or_default();
        check_host(host).map_err(|why| syntax(&why))?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| UrlError::Scheme(text.into()))?;
        split_host_port(host).ok_or_else(|| UrlError::HostPort(text.into()))?;
        if !path.is_empty() {
            return Err(UrlError::Path(text.into()));
        }
        Ok(Self { scheme, authority: authority.into() })
    }

    /// Reads URLs with commas between them, and sorts them as etcd does.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    }

    /// How the other end is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, without a user that may stand before it.
    pub fn host_port(&self) -> &str {
        self.authority.rsplit('@').next().unwrap_or_default()
    }

    /// The host, without brackets; may be empty.
    pub fn host(&self) -> &str {
        split_host_port(self.host_port()).map_or("", |(host, _)| host)
    }

    /// The port, as digits; may be empty.
    pub fn port(&self) -> &str {
        split_host_port(self.host_port()).map_or("", |(_, port)| port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority)
    }
}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

/// A list of URLs as members carry it: at least one, each valid, in etcd's spelling and sorted.
pub fn normalize(urls: &[String]) -> Result<Vec<String>, UrlError> {
    if urls.is_empty() {
        return Err(UrlError::Empty);
    }
    let mut urls = urls.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    Ok(urls.iter().map(Url::to_string).collect())
}

/// The scheme and what is behind its colon; without a scheme "" and all. None if it begins with the colon.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let Some((scheme, rest)) = text.split_once(':') else { return Some(("", text)) };
    let mut bytes = scheme.bytes();
    let first = bytes.next()?;
    let is_scheme = first.is_ascii_alphabetic()
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    Some(if is_scheme { (scheme, rest) } else { ("", text) })
}

/// Go's rules for a host that may be followed by a port.
fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(rest) => rest.rsplit_once(']').ok_or("missing ']' in host")?.1,
        None => host.rfind(':').map_or("", |colon| &host[colon..]),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && (digits.len() == port.len() || !digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    if let Some(at) = host.find('%') {
        let escape: String = host[at..].chars().take(3).collect();
        return Err(format!("invalid URL escape {escape:?}"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(bad) => Err(format!("invalid character {:?} in host name", bad.to_string())),
        None => Ok(()),
    }
}

/// Host and port, if there is a colon of the port's, and none in the host but between brackets.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')?));
    }
    let (host, port) = text.split_once(':')?;
    (!port.contains(':') && !host.contains(['[', ']'])).then_some((host, port))
}
