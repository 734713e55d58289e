//! Tokens that are signed and not remembered (`--auth-token jwt,…`): JSON web tokens with etcd's claims, the user, the
//! authorization revision, and when they end. A token of an older revision is refused where any other is.
//!
//! Left out: ES512, which the library lacks; a private RSA or ECDSA key without its public one; ECDSA keys that are
//! not in PKCS #8.

use std::{str::FromStr, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{go_duration::parse_go_duration, sessions::TokenSigner};
use crate::error::Fault;

/// How long a token lives if nothing else is asked for.
const TTL_DEFAULT: Duration = Duration::from_secs(300);

/// Who signs tokens by the value of `--auth-token`; None for simple ones.
pub(super) fn of_flag(value: &str) -> Result<Option<Arc<dyn TokenSigner>>, Fault> {
    let refused = |why: String| Fault::Refused(format!("--auth-token: {why}"));
    match value.split_once(',').unwrap_or((value, "")) {
        ("" | "simple", _) => Ok(None),
        ("jwt", options) => Ok(Some(Arc::new(Jwt::of_options(options).map_err(refused)?))),
        (other, _) => Err(refused(format!("unknown kind of token {other:?}: use simple or jwt"))),
    }
}

/// The keys and how they are used.
struct Jwt {
    method: Algorithm,
    /// None if tokens are only read here.
    signing: Option<EncodingKey>,
    verifying: DecodingKey,
    ttl: Duration,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// As etcd writes them, in its order.
#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

/// As anybody may write them.
#[derive(Deserialize)]
struct Told {
    exp: Option<f64>,
    revision: f64,
    username: String,
}

impl Jwt {
    fn of_options(options: &str) -> Result<Self, String> {
        let (mut public, mut private, mut method, mut ttl) = (None, None, None, TTL_DEFAULT);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) =
                option.split_once('=').ok_or_else(|| format!("{option:?} is no option: use name=value"))?;
            match name {
                "pub-key" => public = Some(read(value)?),
                "priv-key" => private = Some(read(value)?),
                "sign-method" => method = Some(value.to_owned()),
                "ttl" => {
                    let nanos = parse_go_duration(value).and_then(|nanos| u64::try_from(nanos).ok());
                    ttl = Duration::from_nanos(
                        nanos.ok_or_else(|| format!("ttl: invalid duration {value:?}"))?,
                    );
                }
                other => tracing::warn!(option = other, "unknown option of --auth-token jwt"),
            }
        }
        let method = method.ok_or("sign-method is missing")?;
        let method = Algorithm::from_str(&method)
            .map_err(|_| format!("the sign-method {method:?} is not known, or not supported"))?;
        let (signing, verifying) = keys(method, public.as_deref(), private.as_deref())?;
        let jwt = Self { method, signing, verifying, ttl };
        // What it has signed it must be able to read.
        match jwt.sign("", 0, 0) {
            Some(token) if jwt.verify(&token, 0).is_none() => {
                Err("priv-key and pub-key do not belong together".into())
            }
            None if jwt.signing.is_some() => {
                Err(format!("nothing can be signed as {method:?} with priv-key"))
            }
            Some(_) | None => Ok(jwt),
        }
    }
}

/// The keys are the operator's files, read once at the start: they are no part of what a member keeps.
#[allow(clippy::disallowed_methods)]
fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{path}: {error}"))
}

/// Reads a key in PEM.
type ReadKey<K> = fn(&[u8]) -> jsonwebtoken::errors::Result<K>;

fn keys(
    method: Algorithm,
    public: Option<&[u8]>,
    private: Option<&[u8]>,
) -> Result<(Option<EncodingKey>, DecodingKey), String> {
    let bad = |what: &str, error: jsonwebtoken::errors::Error| {
        format!("{what} can't be used as a key for {method:?}: {error}")
    };
    let (sign, verify): (ReadKey<EncodingKey>, ReadKey<DecodingKey>) = match method {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            let secret = private.filter(|key| !key.is_empty()).ok_or("priv-key is missing")?;
            return Ok((Some(EncodingKey::from_secret(secret)), DecodingKey::from_secret(secret)));
        }
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => (EncodingKey::from_rsa_pem, DecodingKey::from_rsa_pem),
        Algorithm::ES256 | Algorithm::ES384 => (EncodingKey::from_ec_pem, DecodingKey::from_ec_pem),
        Algorithm::EdDSA => (EncodingKey::from_ed_pem, DecodingKey::from_ed_pem),
    };
    let public =
        public.ok_or("pub-key is missing; it is needed to read tokens, also where they are signed")?;
    let signing = private.map(sign).transpose().map_err(|error| bad("priv-key", error))?;
    Ok((signing, verify(public).map_err(|error| bad("pub-key", error))?))
}

impl TokenSigner for Jwt {
    fn sign(&self, user: &str, revision: u64, unix_seconds: u64) -> Option<String> {
        let claims =
            Claims { exp: unix_seconds.saturating_add(self.ttl.as_secs()), revision, username: user };
        jsonwebtoken::encode(&Header::new(self.method), &claims, self.signing.as_ref()?).ok()
    }

    fn verify(&self, token: &str, unix_seconds: u64) -> Option<(String, u64)> {
        let mut rules = Validation::new(self.method);
        // By the member's clock, below.
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        let told = jsonwebtoken::decode::<Told>(token, &self.verifying, &rules).ok()?.claims;
        let over = told.exp.is_some_and(|exp| exp < unix_seconds as f64);
        (!over).then_some((told.username, told.revision as u64))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn with_secret(secret: &str, options: &str) -> Result<Jwt, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, secret).expect("written");
        Jwt::of_options(&format!("priv-key={},{options}", path.display()))
    }

    #[test]
    fn a_token_says_who_until_it_ends() {
        let jwt = with_secret("s", "sign-method=HS256,ttl=1m").expect("good options");
        let token = jwt.sign("u", 7, 1_000).expect("signed");
        assert_eq!(jwt.verify(&token, 1_060), Some(("u".into(), 7)));
        assert_eq!(jwt.verify(&token, 1_061), None);
        assert_eq!(jwt.verify("nonsense", 1_000), None);
        let other = with_secret("t", "sign-method=HS256").expect("good options");
        assert_eq!(other.verify(&token, 1_000), None);
        let longer = with_secret("s", "sign-method=HS512").expect("good options");
        assert_eq!(longer.verify(&token, 1_000), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let why = |options: &str| Jwt::of_options(options).expect_err("it is wrong");
        assert_eq!(why(""), "sign-method is missing");
        assert_eq!(why("sign-method=HS256"), "priv-key is missing");
        assert_eq!(why("x"), "\"x\" is no option: use name=value");
        assert_eq!(why("sign-method=ES512"), "the sign-method \"ES512\" is not known, or not supported");
        assert!(why("sign-method=RS256").starts_with("pub-key is missing"));
        assert!(why("priv-key=/nosuch").starts_with("/nosuch: "));
        let why = with_secret("s", "sign-method=RS256,pub-key=/dev/null").expect_err("these are no keys");
        assert!(why.starts_with("priv-key can't be used as a key for RS256"), "{why}");
        assert!(of_flag("simple").is_ok_and(|signer| signer.is_none()));
        assert!(of_flag("paper").is_err());
    }

    /// A key of Ed25519 that is used nowhere else.
    const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEICxxbMOJO0P/GJOO/gBygG61y68yBY6AvfumKhnBbkN0";
    const PUBLIC: &str = "MCowBQYDK2VwAyEAxTWk+p8cK3OZYXdncctNX6R/nOWIvKNDDO0SL1XcDCA=";
    /// Of another one.
    const STRANGE: &str = "MCowBQYDK2VwAyEAfZJtDAXDFoc8FXN2CV2cjonw+iVQZrarTnzWVCSb5ik=";

    fn with_pair(private: Option<&str>, public: &str) -> Result<Jwt, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = "sign-method=EdDSA".to_owned();
        for (option, what, key) in [("priv-key", "PRIVATE", private), ("pub-key", "PUBLIC", Some(public))] {
            let Some(key) = key else { continue };
            let path = dir.path().join(option);
            let pem = format!("-----BEGIN {what} KEY-----\n{key}\n-----END {what} KEY-----\n");
            std::fs::write(&path, pem).expect("written");
            options += &format!(",{option}={}", path.display());
        }
        Jwt::of_options(&options)
    }

    #[test]
    fn keys_have_to_be_a_pair() {
        let both = with_pair(Some(PRIVATE), PUBLIC).expect("a pair");
        let token = both.sign("u", 7, 1_000).expect("signed");
        let reader = with_pair(None, PUBLIC).expect("one that signs nothing");
        assert_eq!(reader.sign("u", 7, 1_000), None);
        assert_eq!(reader.verify(&token, 1_000), Some(("u".into(), 7)));
        assert_eq!(with_pair(None, STRANGE).expect("as well").verify(&token, 1_000), None);
        let why = with_pair(Some(PRIVATE), STRANGE).expect_err("they are no pair");
        assert_eq!(why, "priv-key and pub-key do not belong together");
    }
}
