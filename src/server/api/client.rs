//! Who asks, and whether they may: each handler reaches the member through a [`Client`].
//!
//! ```text
//!   metadata ─ token ─► Client ── who ──► need, propose, read ──► member
//! ```
//!
//! What is proposed carries the user and the authorization revision, and is checked when it is applied. What is read
//! is checked before, and is worth nothing if what is permitted changed meanwhile. While authorization is off, all
//! this is one look at an atomic number.

use std::{future::Future, sync::Arc};

use tonic::{Request, metadata::MetadataMap};

use super::{Member, admit};
use crate::{
    auth::{Need, Who},
    error::Refusal,
    server::Header,
    state::{Command, Reply},
};

pub(super) use admit::OnLearner;

/// The names that a token comes under; etcd's, and the one that the JSON gateway passes on.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];

/// The common name in the certificate that a client's connection has proved: put into a request's extensions by who
/// serves the connection, and only if certificates are asked for and checked (`--client-cert-auth`). A token wins
/// over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonName(pub Arc<str>);

/// What a client has shown of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    token: Option<Arc<str>>,
    name: Option<CommonName>,
}

impl Credentials {
    fn of<T>(request: &Request<T>) -> Self {
        let token = token(request.metadata()).map(Arc::from);
        Self { token, name: request.extensions().get::<CommonName>().cloned() }
    }
}

fn token(metadata: &MetadataMap) -> Option<&str> {
    let value = TOKEN_KEYS.into_iter().find_map(|key| metadata.get(key))?;
    // What is no text is no token, but is not nothing.
    Some(value.to_str().unwrap_or_default())
}

/// A client of a member.
#[derive(Clone, Debug)]
pub(super) struct Client<'m, M> {
    pub member: &'m M,
    credentials: Credentials,
}

impl<'m, M: Member> Client<'m, M> {
    /// Who sent a request, if this member may serve it now.
    pub fn admit<T>(member: &'m M, request: &Request<T>, learner: OnLearner) -> Result<Self, Refusal> {
        admit::admit(member, request.metadata(), learner)?;
        let off = member.auth_revision().is_none();
        let credentials = if off { Credentials::default() } else { Credentials::of(request) };
        Ok(Self { member, credentials })
    }

    /// The same for a request that goes on for long: authorization may be turned on before its end.
    pub fn admit_long<T>(member: &'m M, request: &Request<T>) -> Result<Credentials, Refusal> {
        admit::admit(member, request.metadata(), OnLearner::Refuse)?;
        Ok(Credentials::of(request))
    }

    /// A client that has been admitted.
    pub fn new(member: &'m M, credentials: Credentials) -> Self {
        Self { member, credentials }
    }

    /// What it has shown of itself.
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Who it is; nobody while authorization is off.
    async fn who(&self) -> Result<Who, Refusal> {
        if self.member.auth_revision().is_none() {
            return Ok(Who::default());
        }
        match &self.credentials {
            Credentials { token: Some(token), .. } => self.member.who(token).await,
            Credentials { token: None, name: Some(CommonName(name)) } => {
                let revision = self.member.users().await.revision();
                Ok(Who { user: name.to_string(), revision })
            }
            Credentials { token: None, name: None } => Ok(Who::default()),
        }
    }

    /// Refuses, unless the client may do all that is needed.
    pub async fn need(&self, needs: &[Need]) -> Result<Who, Refusal> {
        if self.member.auth_revision().is_none() {
            return Ok(Who::default());
        }
        let who = self.who().await?;
        self.member.permits(&who, needs).await?;
        Ok(who)
    }

    /// Takes a command through the log. Whether the client may do it is decided when it is applied.
    pub async fn propose(&self, command: Command) -> Result<(Reply, Header), Refusal> {
        let who = self.who().await?;
        self.member.propose(who, command).await
    }

    /// Reads what the client may read. What is permitted must be the same before and after.
    pub async fn read<T>(
        &self,
        needs: impl FnOnce() -> Vec<Need>,
        read: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let checked = match self.member.auth_revision() {
            None => None,
            Some(_) => Some(self.need(&needs()).await?.revision),
        };
        let found = read.await?;
        match self.member.auth_revision() {
            None => Ok(found),
            now if now == checked => Ok(found),
            Some(_) => Err(Refusal::AuthOldRevision),
        }
    }
}
