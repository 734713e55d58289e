//! Where things lie in the data directory (`contract/disk.md` section 1, and what is ours).

use std::path::{Path, PathBuf};

use crate::{
    raft::{Body, Message},
    types::Index,
};

/// The data directory.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The directory itself (`--data-dir`).
    pub data: PathBuf,
    /// `member`.
    pub member: PathBuf,
    /// The log's segments: `member/wal`, or `--wal-dir`.
    pub wal: PathBuf,
    /// Snapshot files and bodies on their way: `member/snap`.
    pub snap: PathBuf,
    /// The tables: `member/kontiki`, which etcd ignores.
    pub backend: PathBuf,
    /// Checkpoints of the index: `member/kontiki-index`, which etcd ignores, too.
    pub index: PathBuf,
}

impl Paths {
    /// Of a data directory, with the log elsewhere if `wal_dir` says so.
    pub fn new(data: &Path, wal_dir: Option<&Path>) -> Self {
        let member = data.join("member");
        Self {
            data: data.to_path_buf(),
            wal: wal_dir.map_or_else(|| member.join("wal"), Path::to_path_buf),
            snap: member.join("snap"),
            backend: member.join("kontiki"),
            index: member.join("kontiki-index"),
            member,
        }
    }

    /// The body of a snapshot that came in.
    pub fn received(&self, index: Index) -> PathBuf {
        self.snap.join(Self::received_name(index))
    }

    /// Its name there, for the links, which know the directory of snapshots alone.
    pub fn received_name(index: Index) -> String {
        format!("{:016x}.snap.kontiki", index.0)
    }

    /// The body of a snapshot that goes out to one peer.
    pub fn outgoing(&self, to: crate::types::NodeId, index: Index) -> PathBuf {
        self.snap.join(format!("tmp-{to}-{:016x}.kontiki", index.0))
    }

    /// The body that goes with a snapshot message.
    pub fn body_of(&self, message: &Message) -> PathBuf {
        let index = match &message.body {
            Body::Snapshot(snapshot) => snapshot.meta.last.index,
            _ => Index(0),
        };
        self.outgoing(message.to, index)
    }
}
