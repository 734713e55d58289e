//! A client of simulated members: calls through the shipped handlers, over links that may fail. Its watches are in
//! [`crate::stream`].
//!
//! How a request gets to its handler is the host's: `storm` calls the code behind tonic, `whole` goes through a client
//! and a server of gRPC. A request or an answer that is lost leaves the client waiting until it gives up.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
};

use kontiki::{error::Refusal, wire::etcdserverpb as pb};
use tonic::Status;

use crate::{
    history::{Call, Op, Outcome, Reply},
    host::{Host, Micros},
    lock::lock,
    net::Address,
    probe::Event,
    world::World,
};

/// The clients' address on the network.
pub const CLIENTS: Address = 0;

/// The user who may do everything.
pub const ROOT: &str = "root";

/// How many of a user's last passwords are tried: a change that was not answered may not have been made.
const PASSWORDS_TRIED_MAX: u32 = 3;

/// How often each user's password was asked to change, by anybody.
#[derive(Clone, Debug, Default)]
pub struct Passwords(Arc<Mutex<BTreeMap<String, u32>>>);

impl Passwords {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        lock(&self.0)
    }

    /// A user's password, by its number.
    fn word(user: &str, number: u32) -> String {
        format!("{user}'s {number}")
    }

    /// The one to begin with.
    pub fn first(user: &str) -> String {
        Self::word(user, 0)
    }

    /// Another one for a user. That of root stays what it is: whoever runs the cluster must be able to.
    pub fn next(&self, user: &str) -> String {
        if user == ROOT {
            return Self::first(user);
        }
        let mut counts = self.lock();
        let count = counts.entry(user.to_owned()).or_insert(0);
        *count += 1;
        Self::word(user, *count)
    }

    /// Those that may be a user's now, the likeliest first.
    fn likely(&self, user: &str) -> Vec<String> {
        let newest = self.lock().get(user).copied().unwrap_or(0);
        let oldest = (newest + 1).saturating_sub(PASSWORDS_TRIED_MAX);
        let mut numbers: Vec<u32> = (oldest..=newest).rev().collect();
        if oldest > 0 {
            numbers.push(0);
        }
        numbers.into_iter().map(|number| Self::word(user, number)).collect()
    }
}

/// Who a client is.
#[derive(Clone, Debug, Default)]
struct Session {
    /// Whom it logs in as when it is asked to; nobody if there is none.
    user: Option<String>,
    token: Option<String>,
    /// Before that it does not try to log in again: nobody knew it.
    again: Micros,
}

/// How long a client whom nobody knows waits before it tries to log in again.
const LOG_IN_PAUSE: Micros = 2_000_000;

/// A client. Clones are the same one.
#[derive(Clone)]
pub struct Client<H: Host> {
    world: World<H>,
    /// Its number.
    pub number: u32,
    /// How long it waits for an answer.
    pub patience: Micros,
    passwords: Passwords,
    session: Arc<Mutex<Session>>,
}

impl<H: Host> Client<H> {
    /// A client with a number of its own.
    pub fn new(world: World<H>, number: u32, patience: Micros) -> Self {
        Self { world, number, patience, passwords: Passwords::default(), session: Arc::default() }
    }

    /// The same client, who can log in with one of these passwords.
    #[must_use]
    pub fn knowing(self, passwords: Passwords) -> Self {
        Self { passwords, ..self }
    }

    /// The same client, who waits so long for answers.
    #[must_use]
    pub fn patient(&self, patience: Micros) -> Self {
        Self { patience, ..self.clone() }
    }

    /// From now on it is this user, or nobody, as soon as somebody asks.
    pub fn become_user(&self, user: Option<String>) {
        *self.session() = Session { user, token: None, again: 0 };
    }

    /// A client that is root as soon as somebody asks.
    #[must_use]
    pub fn as_root(self) -> Self {
        self.become_user(Some(ROOT.to_owned()));
        self
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// A password for a user who is to be added, or to change it.
    pub fn new_password(&self, user: &str) -> String {
        self.passwords.next(user)
    }

    /// Whether it is a user, as soon as somebody asks.
    pub fn is_somebody(&self) -> bool {
        self.session().user.is_some()
    }

    /// The token that it shows, and whose that is.
    pub fn shown(&self) -> (Option<String>, Option<String>) {
        let session = self.session();
        let user = session.user.clone().filter(|_| session.token.is_some());
        (session.token.clone(), user)
    }

    /// Calls a member, and notes it in the history. Asked who it is, it logs in and tries once more.
    pub async fn call(&self, member: Address, call: impl Into<Call>) -> Outcome {
        let call = call.into();
        let outcome = self.call_once(member, call.clone()).await;
        if self.would_pass(member, &outcome).await { self.call_once(member, call).await } else { outcome }
    }

    /// Whether the call was refused for want of a token that it has got now.
    pub async fn would_pass(&self, member: Address, outcome: &Outcome) -> bool {
        let (Outcome::Refused { message, .. } | Outcome::Unknown(message)) = outcome else { return false };
        asks_who(message) && self.log_in(member).await
    }

    /// Gets a token, if it is to be somebody.
    pub async fn log_in(&self, member: Address) -> bool {
        let Some(user) = self.session().user.clone() else { return false };
        if self.world.host.now() < self.session().again {
            return false;
        }
        for password in self.passwords.likely(&user) {
            let request = pb::AuthenticateRequest { name: user.clone(), password };
            match self.call_once(member, request.into()).await {
                Outcome::Ok(Reply::Authenticate(reply)) => {
                    let mut session = self.session();
                    // It may have become somebody else meanwhile.
                    if session.user.as_ref() == Some(&user) {
                        session.token = Some(reply.token);
                    }
                    return true;
                }
                Outcome::Refused { message, .. } if message == Refusal::AuthFailed.to_string() => {}
                Outcome::Refused { .. } | Outcome::Unknown(_) | Outcome::Ok(_) => return false,
            }
        }
        self.session().again = self.world.host.now() + LOG_IN_PAUSE;
        false
    }

    /// Notes what a member does for it by itself, whenever that may be; gives the note's number.
    pub fn note_done_for(&self, member: Address, call: Call) -> u64 {
        let (start, user) = (self.world.time(), self.shown().1);
        self.world.record(|history| {
            let id = history.ops.len() as u64;
            let outcome = Outcome::Unknown("done by the member".into());
            let client = self.number;
            history.ops.push(Op { id, client, member, user, start, end: None, call, outcome });
            id
        })
    }

    /// It has turned out that the member did not do what was noted.
    pub fn note_undone(&self, note: u64) {
        let end = self.world.time();
        self.world.record(|history| {
            if let Some(op) = history.ops.get_mut(note as usize) {
                op.end = Some(end);
                op.outcome = Outcome::Refused { code: 1, message: "it was not needed".into() };
            }
        });
    }

    /// Calls a member once, whoever the client is.
    pub async fn call_once(&self, member: Address, call: Call) -> Outcome {
        let world = &self.world;
        let (token, user) = self.shown();
        let start = world.time();
        let place = world.record(|history| {
            let id = history.ops.len() as u64;
            history.ops.push(Op {
                id,
                client: self.number,
                member,
                user,
                start,
                end: None,
                call: call.clone(),
                outcome: Outcome::Unknown("the run ended".into()),
            });
            id
        });
        world.probe.event(|| Event::Call {
            op: place,
            client: self.number,
            member,
            text: format!("{call:?}"),
        });
        let name = call.name();
        let outcome = match self.within(self.exchange(member, call, token)).await {
            Some(Ok(reply)) => Outcome::Ok(reply),
            Some(Err(status)) => Outcome::from_status(status.code() as i32, status.message()),
            None => Outcome::Unknown(Outcome::NO_ANSWER.into()),
        };
        let end = world.time();
        match &outcome {
            Outcome::Ok(reply) => world.probe.fold(&reply.encode()),
            Outcome::Refused { message, .. } | Outcome::Unknown(message) => {
                world.probe.fold(message.as_bytes())
            }
        }
        world.probe.outcome(name, &outcome);
        world.probe.event(|| Event::Return { op: place, text: format!("{outcome:?}") });
        world.record(|history| {
            // Not any more, if the history was closed meanwhile.
            if let Some(op) = history.ops.get_mut(place as usize) {
                op.end = Some(end);
                op.outcome = outcome.clone();
            }
        });
        outcome
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.world.host.sleep(self.patience) => None,
        }
    }

    /// Request there, answer back. Never ends if one of them is lost.
    async fn exchange(&self, member: Address, call: Call, token: Option<String>) -> Result<Reply, Status> {
        let world = &self.world;
        self.travel(CLIENTS, member).await;
        let Some((process, api)) = world.api(member) else {
            return Err(Status::unavailable("connection refused"));
        };
        let answer = world.host.call(process, member, api, call, token).await;
        self.travel(member, CLIENTS).await;
        answer
    }

    /// A way over a link; without end if the link is cut or loses what travels.
    pub(crate) async fn travel(&self, from: Address, to: Address) {
        match self.world.net.passage(from, to) {
            Some(delay) => self.world.host.sleep(delay).await,
            None => std::future::pending().await,
        }
    }
}

/// Whether a refusal is for want of a token, or of a newer one.
pub fn asks_who(message: &str) -> bool {
    // Some methods name another service in front.
    const ASKED: [Refusal; 3] = [Refusal::UserEmpty, Refusal::InvalidAuthToken, Refusal::AuthOldRevision];
    let core = |text: String| text.trim_start_matches("etcdserver: ").to_owned();
    ASKED.iter().any(|refusal| message.contains(&core(refusal.to_string())))
}
