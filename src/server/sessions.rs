//! What a member knows of users: the roles as applied here, the tokens it has heard of, and the workers that hash and
//! compare passwords, which takes too long for anybody else to wait behind it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::options::Options;
use crate::{
    auth::{Session, Store, Tokens, password},
    error::Refusal,
    runtime::{Entropy, Runtime},
    types::Instant,
};

/// How many passwords are looked at at a time.
const PASSWORD_WORKERS: usize = 4;

/// How many may wait; who comes then is refused.
const PASSWORDS_WAITING_MAX: usize = 4_096;

/// The letters that a simple token begins with.
const NONCE_LETTERS: usize = 16;

/// [`Sessions::revision`] while authorization is off.
const OFF: u64 = 0;

/// The same while all state is being replaced.
const MOVING: u64 = u64::MAX;

/// Makes and reads tokens that need not be remembered (`--auth-token jwt`).
pub trait TokenSigner: std::fmt::Debug + Send + Sync {
    /// A token for a user at an authorization revision; None if there is no key to sign with.
    fn sign(&self, user: &str, revision: u64, unix_seconds: u64) -> Option<String>;

    /// The user and the revision of a token; None if it is not ours, or too old.
    fn verify(&self, token: &str, unix_seconds: u64) -> Option<(String, u64)>;
}

/// How passwords are hashed and compared.
pub trait PasswordHasher: std::fmt::Debug + Send + Sync {
    /// The hash of a password, as users are stored with it.
    fn hash(&self, password: &str, salt: [u8; 16]) -> String;

    /// Whether a password is the one that was hashed.
    fn matches(&self, password: &str, hash: &[u8]) -> bool;
}

/// As etcd does it, at a cost (`--bcrypt-cost`).
#[derive(Clone, Copy, Debug)]
pub struct Bcrypt(pub u32);

impl PasswordHasher for Bcrypt {
    fn hash(&self, password: &str, salt: [u8; 16]) -> String {
        password::hash(password, self.0, salt)
    }

    fn matches(&self, password: &str, hash: &[u8]) -> bool {
        password::matches(password, hash)
    }
}

/// See the module's page.
pub(super) struct Sessions {
    /// [`OFF`], [`MOVING`], or the authorization revision: what each request looks at, and most only that.
    revision: AtomicU64,
    store: watch::Sender<Arc<Store>>,
    tokens: Mutex<Tokens>,
    passwords: Passwords,
    signer: Option<Arc<dyn TokenSigner>>,
}

impl Sessions {
    /// At a start, with the users and roles of the tables.
    pub fn new<R: Runtime>(runtime: &R, config: Config, store: Arc<Store>) -> Self {
        let revision = AtomicU64::new(shown(&store));
        let tokens = Mutex::new(Tokens::new(config.token_ttl_ms));
        let passwords = Passwords::start(runtime, &config.hasher);
        Self { revision, store: watch::Sender::new(store), tokens, passwords, signer: config.signer }
    }

    /// The authorization revision, which changes with what is permitted; None while authorization is off.
    pub fn revision(&self) -> Option<u64> {
        match self.revision.load(SeqCst) {
            OFF => None,
            revision => Some(revision),
        }
    }

    /// The users and roles, once they are not being replaced.
    pub async fn settled(&self) -> Arc<Store> {
        let mut stores = self.store.subscribe();
        // The sender is here.
        let _ = stores.wait_for(|_| self.revision.load(SeqCst) != MOVING).await;
        self.store()
    }

    /// The users and roles.
    pub fn store(&self) -> Arc<Store> {
        self.store.borrow().clone()
    }

    /// Does what applied entries said about tokens. Before [`Sessions::set_store`]: a token that has ended must not
    /// be taken for one of the newer revision.
    pub fn note(&self, sessions: Vec<Session>, now: Instant) {
        if sessions.is_empty() {
            return;
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.into_iter().for_each(|session| tokens.note(session, now));
    }

    /// Shows other users and roles.
    pub fn set_store(&self, store: Arc<Store>) {
        if !store.enabled() {
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let revision = shown(&store);
        self.store.send_modify(|shown| {
            *shown = store;
            self.revision.store(revision, SeqCst);
        });
    }

    /// All state is about to be replaced: until users and roles are set again, nobody is told what they may do.
    pub fn begin_replace(&self) {
        self.revision.store(MOVING, SeqCst);
    }

    /// Who signs tokens, if they are not simple.
    pub fn signer(&self) -> Option<&dyn TokenSigner> {
        self.signer.as_deref()
    }

    /// The user that a simple token stands for.
    pub fn user_of(&self, token: &str, now: Instant) -> Option<String> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).user_of(token, now)
    }

    /// The hash of a password.
    pub async fn hash(&self, password: String, entropy: &impl Entropy) -> Result<String, Refusal> {
        let (one, two) = (entropy.next_u64(), entropy.next_u64());
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&one.to_le_bytes());
        salt[8..].copy_from_slice(&two.to_le_bytes());
        self.passwords.ask(|reply| PasswordJob::Hash { password, salt, reply }).await
    }

    /// Whether a password is the one that was hashed.
    pub async fn matches(&self, password: String, hash: Bytes) -> Result<bool, Refusal> {
        self.passwords.ask(|reply| PasswordJob::Compare { password, hash, reply }).await
    }
}

fn shown(store: &Store) -> u64 {
    if store.enabled() { store.revision() } else { OFF }
}

/// How a member's sessions are kept.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// How long an idle token lives; 0 for the default.
    pub token_ttl_ms: u64,
    /// Who hashes passwords.
    pub hasher: Arc<dyn PasswordHasher>,
    /// Who signs tokens, if they are not simple.
    pub signer: Option<Arc<dyn TokenSigner>>,
}

impl From<&Options> for Config {
    fn from(options: &Options) -> Self {
        Self {
            token_ttl_ms: options.token_ttl.as_millis() as u64,
            hasher: options.password_hasher.clone(),
            signer: options.token_signer.clone(),
        }
    }
}

enum PasswordJob {
    Hash { password: String, salt: [u8; 16], reply: oneshot::Sender<String> },
    Compare { password: String, hash: Bytes, reply: oneshot::Sender<bool> },
}

/// Workers, each with a queue.
struct Passwords {
    workers: Vec<mpsc::UnboundedSender<PasswordJob>>,
    next: AtomicUsize,
    waiting: Arc<AtomicUsize>,
}

impl Passwords {
    fn start<R: Runtime>(runtime: &R, hasher: &Arc<dyn PasswordHasher>) -> Self {
        let start = |_| {
            let (sender, inbox) = mpsc::unbounded_channel();
            let hasher = hasher.clone();
            let work = move |jobs: Vec<PasswordJob>| jobs.into_iter().for_each(|job| job.work(&*hasher));
            runtime.spawn_worker("password", inbox, 1, work);
            sender
        };
        let workers = (0..PASSWORD_WORKERS).map(start).collect();
        Self { workers, next: AtomicUsize::new(0), waiting: Arc::default() }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> PasswordJob) -> Result<T, Refusal> {
        let _waiting = Waiting::begin(&self.waiting).ok_or(Refusal::TooManyRequests)?;
        let (reply, done) = oneshot::channel();
        let worker = self.next.fetch_add(1, Relaxed) % self.workers.len();
        self.workers[worker].send(job(reply)).map_err(|_| Refusal::Stopped)?;
        done.await.map_err(|_| Refusal::Stopped)
    }
}

impl PasswordJob {
    fn work(self, hasher: &dyn PasswordHasher) {
        match self {
            // Who has gone needs no answer, nor the work.
            Self::Hash { reply, .. } if reply.is_closed() => {}
            Self::Compare { reply, .. } if reply.is_closed() => {}
            Self::Hash { password, salt, reply } => {
                let _ = reply.send(hasher.hash(&password, salt));
            }
            Self::Compare { password, hash, reply } => {
                let _ = reply.send(hasher.matches(&password, &hash));
            }
        }
    }
}

/// Counts one who waits, for as long as it is held.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(count: &Arc<AtomicUsize>) -> Option<Self> {
        let waiting = Self(count.clone());
        (count.fetch_add(1, Relaxed) < PASSWORDS_WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The letters that a new token begins with.
pub(super) fn new_nonce(entropy: &impl Entropy) -> String {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let bytes = std::iter::repeat_with(|| entropy.next_u64().to_le_bytes()).flatten();
    // The first four times 52 of 256, so that each letter is as likely as any other.
    let letters = bytes.filter(|byte| *byte < 208).map(|byte| LETTERS[usize::from(byte) % 52]);
    letters.take(NONCE_LETTERS).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Counting(Arc<AtomicU64>);

    impl Entropy for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed)
        }
    }

    #[test]
    fn a_nonce_is_sixteen_letters() {
        let entropy = Counting(Arc::new(AtomicU64::new(u64::MAX)));
        let (one, two) = (new_nonce(&entropy), new_nonce(&entropy));
        assert_eq!((one.len(), two.len()), (16, 16));
        assert!((one.clone() + &two).bytes().all(|byte| byte.is_ascii_alphabetic()));
        assert_ne!(one, two);
    }

    #[test]
    fn waiting_is_bounded() {
        let count = Arc::new(AtomicUsize::new(0));
        let held: Vec<_> = (0..PASSWORDS_WAITING_MAX).map(|_| Waiting::begin(&count)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(Waiting::begin(&count).is_none());
        drop(held);
        assert_eq!(count.load(Relaxed), 0);
        assert!(Waiting::begin(&count).is_some());
    }
}
