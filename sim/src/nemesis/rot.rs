//! Disks that do not give back what was written: a byte rots, or a sector was written to the wrong place.
//!
//! The atlas says where that may be. Damage that can't be told from what a crash leaves would cost what a member has
//! promised, and no algorithm can help that: so it comes only where a member can see it, or can do without, and only
//! while the others hold all that is committed ([`Nemesis::may_lose`]).
//!
//! ```text
//! segments before the last   the last segment                                        snapshot bodies from peers
//! ████████████████████████   ████████████████▏newest batches▕ zeros, preallocated   █████████
//! told from a crash          told from one   ▏can't be told ▕ nothing is lost       has a checksum
//! ```
//!
//! What the newest write vouches for is the disk's own knowledge ([`kontiki::storage::MemDisk::vouched`]), not the log's.
//!
//! A member that finds damage has to say where and not to go on; its operator then removes it, empties its disk and adds
//! it again. One that starts has lost nothing: its promises bind it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use kontiki::storage::{MemDisk, SECTOR};

use super::{Nemesis, OPERATOR_MAX};
use crate::{
    host::{Host, Micros},
    net::Address,
    world::End,
};

/// How often it is looked whether a member has come up.
const LOOK_EVERY: Micros = 50_000;

/// How often its operator tries to replace a member that stays down.
const REPLACE_EVERY: Micros = 1_000_000;

/// How far beyond a log's last byte that is not zero its last record may reach: its checksum and its padding.
const TRAILING_ZEROS_MAX: u64 = 16;

/// What a member that finds damage says: what is wrong, and what is to be done.
const CLEAR: [&str; 3] = ["corrupt", "/data/member/", "add it again"];

/// What it says of a disk that fails besides, or lost its power.
const OTHER_FAULTS: [&str; 4] =
    ["os error", "the power is off", "from before the crash", "could not retrieve cluster information"];

/// A member whose disk was damaged says so, and what is to be done, unless something else was wrong besides.
fn unclear(member: Address, words: &str) -> Option<String> {
    let clear = CLEAR.iter().all(|part| words.contains(part));
    let other = OTHER_FAULTS.iter().any(|part| words.contains(part));
    (!clear && !other)
        .then(|| format!("member {member}'s disk was damaged, and all that it says is: {words}"))
}

/// What of a disk is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Records of the log, in front of a later one that was written when they were durable.
    Log,
    /// What is reserved for the log behind its end.
    Free,
    /// The description of a snapshot, for etcd's tools.
    Description,
    /// A snapshot's body, as a peer has sent it.
    Body,
    /// The checkpoint of the index, which the tables have all of.
    Index,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Log => "damage in the log",
            Self::Free => "damage behind the log",
            Self::Description => "damage to a snapshot's description",
            Self::Body => "damage to a snapshot's body",
            Self::Index => "damage to the index's checkpoint",
        }
    }

    /// Whether a member can do without it.
    const fn is_needed(self) -> bool {
        match self {
            Self::Log | Self::Body => true,
            Self::Free | Self::Description | Self::Index => false,
        }
    }
}

/// Where damage may be.
pub(super) struct Place {
    path: PathBuf,
    bytes: Range<u64>,
    part: Part,
}

/// All places of a disk whose power is off.
fn atlas(disk: &MemDisk, files: &[PathBuf]) -> Vec<Place> {
    let is = |path: &Path, ending: &str| path.to_string_lossy().ends_with(ending);
    let len = |path: &Path| disk.contents(path).map_or(0, |bytes| bytes.len() as u64);
    let segments: Vec<&PathBuf> = files.iter().filter(|path| is(path, ".wal")).collect();
    let mut places = Vec::new();
    if let Some((tail, before)) = segments.split_last() {
        for path in before {
            places.push(Place { path: path.to_path_buf(), bytes: 0..len(path), part: Part::Log });
        }
        let bytes = disk.contents(tail).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        let vouched = disk.vouched(tail).unwrap_or(0);
        places.push(Place { path: tail.to_path_buf(), bytes: 0..vouched, part: Part::Log });
        let free = used + TRAILING_ZEROS_MAX..bytes.len() as u64;
        places.push(Place { path: tail.to_path_buf(), bytes: free, part: Part::Free });
    }
    for path in files {
        let part = match path {
            path if is(path, ".snap") => Part::Description,
            path if is(path, ".snap.kontiki") => Part::Body,
            path if path.parent().is_some_and(|dir| is(dir, "kontiki-index")) => Part::Index,
            _ => continue,
        };
        places.push(Place { path: path.clone(), bytes: 0..len(path), part });
    }
    places.retain(|place| !place.bytes.is_empty());
    places
}

impl Place {
    /// The sectors that are whole in it.
    fn sectors(&self) -> Range<u64> {
        self.bytes.start.div_ceil(SECTOR)..self.bytes.end / SECTOR
    }
}

/// A disk does not give back what was written. What part of it; none if there is nothing that may be damaged.
type Damage = Box<dyn FnOnce(&MemDisk, &[Place]) -> Option<Part> + Send>;

/// What may be damaged of the log's last segment.
fn tail(places: &[Place]) -> Option<&Place> {
    places.iter().rfind(|place| place.part == Part::Log)
}

/// A byte rots.
pub(super) fn rot(file: u64, offset: u64, mask: u8) -> Damage {
    Box::new(move |disk, places| {
        let any = || places.get((file / 2).checked_rem(places.len() as u64)? as usize);
        // What each start reads, as often as all else.
        let place = if file.is_multiple_of(2) { tail(places).or_else(any)? } else { any()? };
        let at = place.bytes.start + offset % (place.bytes.end - place.bytes.start);
        disk.rot(&place.path, at, mask.max(1)).ok()?;
        Some(place.part)
    })
}

/// A sector of the log was written over another one.
pub(super) fn misdirect(from: u64, to: u64) -> Damage {
    Box::new(move |disk, places| {
        let log = places.iter().filter(|place| place.part == Part::Log);
        let log: Vec<&Place> =
            if from.is_multiple_of(2) { tail(places).into_iter().collect() } else { log.collect() };
        let sectors: Vec<(&Path, u64)> = log
            .iter()
            .flat_map(|place| place.sectors().map(|sector| (place.path.as_path(), sector)))
            .collect();
        let one = |number: u64| sectors.get(number.checked_rem(sectors.len() as u64)? as usize).copied();
        let (from, to) = (one(from)?, one(to)?);
        if from == to {
            return None;
        }
        disk.misdirect(from, to).ok()?;
        Some(Part::Log)
    })
}

impl<H: Host> Nemesis<H> {
    /// A disk is damaged while its member is down. If the member then refuses to start, it is replaced.
    pub(super) async fn damage(&self, member: Address, damage: Damage, down: Micros) {
        let world = &self.world;
        if world.excused().contains(&member) || !self.may_lose(member) {
            return;
        }
        // Of what was not synced nothing is left that a later loss of power could take back.
        world.crash(member, End::Power);
        let Some(disk) = world.disk(member) else { return };
        let part = damage(&disk, &atlas(&disk, &world.files(member)));
        if let Some(part) = part {
            world.probe.count(part.name());
            if part.is_needed() {
                world.excuse_from_starting(member);
            }
        }
        self.wait(down).await;
        world.start(member);
        if part.is_some_and(Part::is_needed) {
            self.see_to(member).await;
        }
    }

    /// Waits until a member that was damaged has refused to start, and replaces it then. One that starts may not have
    /// read what is damaged, and do so another time; one that has not until the end is counted on.
    async fn see_to(&self, member: Address) {
        let world = &self.world;
        let until = self.calm_from + OPERATOR_MAX;
        while world.runs(member) || world.last_words(member).is_none() {
            if !world.excused().contains(&member) {
                // Somebody else has replaced it meanwhile.
                return;
            }
            if world.host.now() >= until {
                if world.handle(member).is_some() {
                    world.probe.count("damage that cost nothing");
                    world.forgive(member);
                }
                return;
            }
            world.host.sleep(LOOK_EVERY).await;
        }
        let Some(words) = world.last_words(member).filter(|_| world.excused().contains(&member)) else {
            return;
        };
        world.probe.count("member stopped by damage");
        world.fail_if(unclear(member, &words));
        while world.host.now() < until && world.excused().contains(&member) && !world.runs(member) {
            self.alone(member, self.replace(member, true, 0)).await;
            world.host.sleep(REPLACE_EVERY).await;
        }
        if !world.excused().contains(&member) {
            world.probe.count("damaged member replaced");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unclear;

    #[test]
    fn who_finds_damage_says_where_and_what_is_to_be_done() {
        let said = "/data/member/wal/0.wal is corrupt at byte 9: remove the member and add it again";
        assert_eq!(unclear(1, said), None);
        // It may have died of something else.
        assert_eq!(unclear(1, "os error 28"), None);
        for less in ["/data/member/wal/0.wal is corrupt", "something is corrupt: add it again", "no"] {
            let wrong = unclear(1, less).expect("it lacks something");
            assert_eq!(wrong, format!("member 1's disk was damaged, and all that it says is: {less}"));
        }
    }
}
