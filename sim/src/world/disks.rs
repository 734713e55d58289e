//! What is known of the members' disks: which are broken, and how members that could not go on with theirs put it.

use std::path::{Path, PathBuf};

use kontiki::storage::Disk;

use super::{DATA, World};
use crate::{host::Host, net::Address};

impl<H: Host> World<H> {
    /// Its disk is broken from now on: what becomes of it is no fault of the member.
    pub fn excuse(&self, address: Address) {
        self.slot(address, |slot| (slot.excused, slot.forgets) = (true, true));
    }

    /// Its disk is broken, such that it can tell: it may stop and refuse to start, but not go on as if it were whole.
    pub fn excuse_from_starting(&self, address: Address) {
        self.slot(address, |slot| slot.excused = true);
    }

    /// Its disk turned out to be whole.
    pub fn forgive(&self, address: Address) {
        self.slot(address, |slot| slot.excused = false);
    }

    /// Why its last process ended by itself, if that was the last thing that became of it.
    pub fn last_words(&self, address: Address) -> Option<String> {
        self.slot(address, |slot| slot.last_words.clone()).flatten()
    }

    /// The members whose disks are, or were, broken.
    pub fn excused(&self) -> Vec<Address> {
        let state = self.lock();
        state.slots.iter().filter(|(_, slot)| slot.excused).map(|(address, _)| *address).collect()
    }

    /// Files of the log, of snapshots and of the index at an address.
    pub fn files(&self, address: Address) -> Vec<PathBuf> {
        let Some(disk) = self.disk(address) else { return Vec::new() };
        let member = Path::new(DATA).join("member");
        let mut found = Vec::new();
        for dir in ["wal", "snap", "kontiki-index"].map(|name| member.join(name)) {
            for name in disk.list(&dir).unwrap_or_default() {
                found.push(dir.join(name));
            }
        }
        found
    }
}
