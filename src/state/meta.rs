//! The rows of [`Table::Meta`] that say how far the tables are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    error::Fault,
    membership::Configuration,
    table::{Batch, Table, Tables, Write},
    types::{Index, NodeId, Term},
};

/// etcd's name of the applied index; 8 bytes big endian.
pub(super) const INDEX_KEY: &[u8] = b"consistent_index";
const TERM_KEY: &[u8] = b"term";
const CONFIG_KEY: &[u8] = b"confState";
/// Our own: the state hash, 8 bytes big endian.
const HASH_KEY: &[u8] = b"kontiki_state_hash";

/// How far the tables are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub applied: Index,
    pub term: Term,
    /// None if the tables were made by another program.
    pub hash: Option<u64>,
    pub config: Configuration,
}

impl Meta {
    pub fn load(tables: &impl Tables) -> Result<Self, Fault> {
        let applied = Index(number(tables, INDEX_KEY)?.unwrap_or_default());
        let term = Term(number(tables, TERM_KEY)?.unwrap_or_default());
        let hash = number(tables, HASH_KEY)?;
        let config = match tables.get(Table::Meta, CONFIG_KEY)? {
            Some(json) => parse_config(&json)?,
            None => Configuration::default(),
        };
        // Empty tables have the hash of nothing.
        let hash = hash.or((applied == Index(0)).then_some(0));
        Ok(Self { applied, term, hash, config })
    }

    /// Puts how far the batch brings the tables.
    pub fn store(&self, config_changed: bool, batch: &mut Batch) {
        batch.put(Table::Meta, INDEX_KEY, self.applied.0.to_be_bytes().to_vec());
        batch.put(Table::Meta, TERM_KEY, self.term.0.to_be_bytes().to_vec());
        if let Some(hash) = self.hash {
            batch.put(Table::Meta, HASH_KEY, hash.to_be_bytes().to_vec());
        }
        if config_changed {
            batch.put(Table::Meta, CONFIG_KEY, config_json(&self.config));
        }
    }

    /// Chains an entry's writes to the hash.
    pub fn extend(&mut self, index: Index, term: Term, writes: &[Write]) {
        if let Some(hash) = self.hash {
            let mut hasher = Xxh3::with_seed(hash);
            hasher.update(&index.0.to_le_bytes());
            hasher.update(&term.0.to_le_bytes());
            for write in writes {
                let (kind, table, key, value) = match write {
                    Write::Put(table, key, value) => (0u8, *table, key, value.as_ref()),
                    Write::Delete(table, key) => (1, *table, key, b"".as_slice()),
                    Write::DeleteRange(table, start, end) => (2, *table, start, end.as_ref()),
                };
                hasher.update(&[kind, table as u8]);
                // Lengths keep a key's end and a value's start apart.
                hasher.update(&(key.len() as u64).to_le_bytes());
                hasher.update(key);
                hasher.update(&(value.len() as u64).to_le_bytes());
                hasher.update(value);
            }
            self.hash = Some(hasher.digest());
        }
        self.applied = index;
        self.term = term;
    }
}

fn number(tables: &impl Tables, key: &[u8]) -> Result<Option<u64>, Fault> {
    let Some(bytes) = tables.get(Table::Meta, key)? else { return Ok(None) };
    match bytes.as_ref().try_into() {
        Ok(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
        Err(_) => Err(broken(key, &format!("{} bytes where 8 should be", bytes.len()))),
    }
}

fn broken(key: &[u8], why: &str) -> Fault {
    let key = String::from_utf8_lossy(key);
    Fault::corrupt(format!(
        "the row {key} of the table {} can't be read ({why}): take the tables away, so that they are rebuilt \
         from the log or from the other members",
        Table::Meta.name()
    ))
}

/// etcd's JSON of a `ConfState`: empty lists are left out, `auto_leave` never is.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ConfigJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    auto_leave: bool,
}

fn config_json(config: &Configuration) -> Vec<u8> {
    let ids = |set: &BTreeSet<NodeId>| set.iter().map(|id| id.0).collect();
    let json = ConfigJson {
        voters: ids(config.incoming()),
        learners: ids(config.learners()),
        voters_outgoing: ids(config.outgoing()),
        learners_next: ids(config.learners_next()),
        auto_leave: config.auto_leave(),
    };
    serde_json::to_vec(&json).expect("numbers and a flag have JSON")
}

fn parse_config(json: &[u8]) -> Result<Configuration, Fault> {
    let json: ConfigJson =
        serde_json::from_slice(json).map_err(|error| broken(CONFIG_KEY, &error.to_string()))?;
    let ids = |list: Vec<u64>| list.into_iter().map(NodeId).collect();
    Configuration::new(
        ids(json.voters),
        ids(json.voters_outgoing),
        ids(json.learners),
        ids(json.learners_next),
        json.auto_leave,
    )
    .map_err(|error| broken(CONFIG_KEY, &error.to_string()))
}

/// etcd's JSON of a downgrade, in the table of the cluster.
#[derive(Serialize)]
struct DowngradeJson<'a> {
    #[serde(rename = "target-version")]
    version: &'a str,
    enabled: bool,
}

/// Notes whether a downgrade is under way, and to which version.
pub(super) fn put_downgrade(version: &str, enabled: bool, batch: &mut Batch) {
    let json = serde_json::to_vec(&DowngradeJson { version, enabled }).expect("a text and a flag have JSON");
    batch.put(Table::Cluster, b"downgrade".as_slice(), json);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_etcds_json() {
        let json = |config: &Configuration| String::from_utf8(config_json(config)).expect("JSON is text");
        let config = Configuration::of_voters([NodeId(7), NodeId(2)]);
        assert_eq!(json(&config), r#"{"voters":[2,7],"auto_leave":false}"#);
        assert_eq!(parse_config(json(&config).as_bytes()).expect("its own"), config);
        assert!(parse_config(b"{\"voters\":[0]}").is_err());
        assert!(parse_config(b"{").is_err());
    }
}
