//! Users and roles, and the one place where a permission is decided.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    ROOT,
    action::{Access, Role, User},
    codec,
    needs::Need,
    spans::Spans,
};
use crate::{
    error::{Fault, Refusal},
    lease::Book,
    table::{Batch, Scan, Table, Tables},
    types::{KeyRange, LeaseId},
};

const ENABLED_KEY: &[u8] = b"authEnabled";
const REVISION_KEY: &[u8] = b"authRevision";

/// The revision of a store in which nothing was ever changed.
const FRESH_REVISION: u64 = 1;

/// Who asks, and the authorization revision at which the member was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The user's name; empty for nobody.
    pub user: String,
    /// The revision; 0 for nobody.
    pub revision: u64,
}

impl Who {
    /// A member itself, at any revision. Replicas of etcd take it for the user root as well.
    pub fn member() -> Self {
        Self { user: ROOT.into(), revision: u64::MAX }
    }
}

/// All users and roles. Every change goes into a batch as well, so that [`Store::load`] gives the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub(super) enabled: bool,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: BTreeMap<String, Role>,
    /// What each user's roles add up to.
    permitted: BTreeMap<String, Permitted>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Permitted {
    read: Spans,
    write: Spans,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: FRESH_REVISION,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            permitted: BTreeMap::new(),
        }
    }
}

impl Store {
    /// The users and roles of the tables.
    pub fn load(tables: &impl Tables) -> Result<Self, Fault> {
        let enabled = tables.get(Table::Auth, ENABLED_KEY)?.is_some_and(|value| value.as_ref() == [1]);
        let revision = match tables.get(Table::Auth, REVISION_KEY)? {
            None => 0,
            Some(row) => u64::from_be_bytes(
                row.as_ref().try_into().map_err(|_| unreadable(Table::Auth, REVISION_KEY))?,
            ),
        };
        let mut store = Self {
            enabled,
            // As in etcd, which moves a store without a revision on to the first.
            revision: revision.max(FRESH_REVISION),
            users: load(tables, Table::AuthUsers, codec::decode_user)?,
            roles: load(tables, Table::AuthRoles, codec::decode_role)?,
            permitted: BTreeMap::new(),
        };
        let names: Vec<String> = store.users.keys().cloned().collect();
        names.iter().for_each(|name| store.refresh(name));
        Ok(store)
    }

    /// Whether authorization is on.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// How often users and roles have changed, from 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Whether `who` may do all of `needs`, with the leases as they are now; else, why not, in etcd's order.
    pub fn permits(&self, who: &Who, needs: &[Need], leases: &Book) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        needs.iter().try_for_each(|need| self.permits_one(who, need, leases))
    }

    fn permits_one(&self, who: &Who, need: &Need, leases: &Book) -> Result<(), Refusal> {
        let attached = |id: LeaseId| leases.get(id).into_iter().flat_map(|lease| lease.keys());
        match need {
            Need::User if who.user.is_empty() => Err(Refusal::UserEmpty),
            Need::User => Ok(()),
            Need::Root => self.is_root(who),
            Need::SameUser(user) if *user == who.user => Ok(()),
            Need::SameUser(_) => self.is_root(who),
            Need::OwnRole(role) if self.has_role(&who.user, role) => Ok(()),
            Need::OwnRole(_) => self.is_root(who),
            Need::Read(range) => self.reaches(who, range, Access::Read),
            Need::Write(range) => self.reaches(who, range, Access::Write),
            Need::ReadLeased(id) => self.reaches_each(who, attached(*id), Access::Read),
            Need::WriteLeased(id) => self.reaches_each(who, attached(*id), Access::Write),
            Need::ReadAllLeased => {
                let keys = leases.iter().flat_map(|(_, lease)| lease.keys());
                self.reaches_each(who, keys, Access::Read)
            }
        }
    }

    fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.iter().any(|has| has == role))
    }

    fn is_root(&self, who: &Who) -> Result<(), Refusal> {
        match who.user.as_str() {
            "" => Err(Refusal::UserEmpty),
            user if self.has_role(user, ROOT) => Ok(()),
            _ => Err(Refusal::PermissionDenied),
        }
    }

    fn reaches_each<'a>(
        &self,
        who: &Who,
        mut keys: impl Iterator<Item = &'a Bytes>,
        access: Access,
    ) -> Result<(), Refusal> {
        // Whatever its revision: who has the role root now may end any lease.
        if self.is_root(who).is_ok() {
            return Ok(());
        }
        keys.try_for_each(|key| self.reaches(who, &KeyRange::single(key.clone()), access))
    }

    fn reaches(&self, who: &Who, range: &KeyRange, access: Access) -> Result<(), Refusal> {
        if who.revision == 0 {
            return Err(Refusal::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(Refusal::AuthOldRevision);
        }
        if self.has_role(&who.user, ROOT) {
            return Ok(());
        }
        let covered = self.permitted.get(&who.user).is_some_and(|permitted| match access {
            Access::Read => permitted.read.cover(range),
            Access::Write => permitted.write.cover(range),
            Access::ReadWrite => permitted.read.cover(range) && permitted.write.cover(range),
            Access::Other(_) => false,
        });
        if covered { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Adds up again what a user's roles permit.
    pub(super) fn refresh(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else {
            self.permitted.remove(name);
            return;
        };
        let roles = || user.roles.iter().filter_map(|role| self.roles.get(role));
        let ranges = |wanted: &'static [Access]| {
            let permissions = roles().flat_map(|role| &role.permissions);
            let wanted = permissions.filter(move |permission| wanted.contains(&permission.access));
            Spans::union(wanted.filter_map(|permission| permission.keys()))
        };
        let permitted = Permitted {
            read: ranges(&[Access::Read, Access::ReadWrite]),
            write: ranges(&[Access::Write, Access::ReadWrite]),
        };
        self.permitted.insert(name.into(), permitted);
    }

    pub(super) fn set_enabled(&mut self, enabled: bool, batch: &mut Batch) {
        self.enabled = enabled;
        batch.put(Table::Auth, ENABLED_KEY, vec![u8::from(enabled)]);
    }

    /// Counts a change.
    pub(super) fn advance(&mut self, batch: &mut Batch) {
        self.revision += 1;
        batch.put(Table::Auth, REVISION_KEY, self.revision.to_be_bytes().to_vec());
    }

    pub(super) fn put_user(&mut self, name: &str, user: User, batch: &mut Batch) {
        batch.put(Table::AuthUsers, name.as_bytes().to_vec(), codec::encode_user(name, &user));
        self.users.insert(name.into(), user);
        self.refresh(name);
    }

    pub(super) fn put_role(&mut self, name: &str, role: Role, batch: &mut Batch) {
        batch.put(Table::AuthRoles, name.as_bytes().to_vec(), codec::encode_role(name, &role));
        self.roles.insert(name.into(), role);
        for user in self.users_with(name) {
            self.refresh(&user);
        }
    }

    /// The users who have a role.
    pub(super) fn users_with(&self, role: &str) -> Vec<String> {
        let users = self.users.keys().filter(|user| self.has_role(user, role));
        users.cloned().collect()
    }
}

fn load<V>(
    tables: &impl Tables,
    table: Table,
    decode: impl Fn(&[u8]) -> Option<(String, V)>,
) -> Result<BTreeMap<String, V>, Fault> {
    let mut rows = BTreeMap::new();
    let mut broken = None;
    tables.scan(table, b"", None, &mut |key, value| match decode(value) {
        Some((name, row)) if name.as_bytes() == key => {
            rows.insert(name, row);
            Scan::Continue
        }
        Some(_) | None => {
            broken = Some(unreadable(table, key));
            Scan::Stop
        }
    })?;
    broken.map_or(Ok(rows), Err)
}

fn unreadable(table: Table, key: &[u8]) -> Fault {
    Fault::corrupt(format!(
        "the table {} holds what can't be read, under {:?}: take the tables away, so that they are rebuilt from the \
         log or from the other members",
        table.name(),
        String::from_utf8_lossy(key)
    ))
}
