//! Limits that are large in production, and that a run of a minute would never come near.

use kontiki::server::Tuning;

use crate::rng::Rng;

/// An append of fewer bytes has an entry or two.
const APPEND_BYTES_LITTLE: usize = 1_024;

/// So many of those are under way then.
const APPENDS_MANY: usize = 32;

/// As in production, or about half of them small: ranges in many chunks, values that do not fit into memory, appends of
/// an entry each, snapshots in many frames.
pub fn tuning(rng: &Rng) -> Tuning {
    let mut tuning = Tuning::default();
    if rng.chance(400_000) {
        return tuning;
    }
    let small = |limit: &mut usize, low: u64, high: u64| {
        if rng.chance(500_000) {
            *limit = rng.log_between(low, high) as usize;
        }
    };
    small(&mut tuning.values_bytes_max, 1, 16 << 10);
    small(&mut tuning.unread_bytes_max, 1, 4 << 10);
    small(&mut tuning.chunk_keys_max, 1, 32);
    small(&mut tuning.chunk_bytes_max, 1, 8 << 10);
    small(&mut tuning.append_bytes_max, 1, 16 << 10);
    small(&mut tuning.inflight_max, 1, 16);
    small(&mut tuning.inflight_bytes_max, 1, 64 << 10);
    small(&mut tuning.committed_bytes_max, 1, 16 << 10);
    small(&mut tuning.run_entries_max, 1, 64);
    small(&mut tuning.history_revisions_max, 16, 64);
    small(&mut tuning.history_bytes_max, 4 << 10, 16 << 10);
    small(&mut tuning.stream_bytes_max, 1_024, 256 << 10);
    small(&mut tuning.frames_max, 8, 64);
    small(&mut tuning.snapshot_frame_bytes_max, 1, 64 << 10);
    small(&mut tuning.revokes_max, 8, 64);
    small(&mut tuning.fragment_bytes_max, 64, 4 << 10);
    // An entry at a time and no more under way would be some three a second over slow links, where nothing is ever done.
    if tuning.append_bytes_max < APPEND_BYTES_LITTLE {
        tuning.inflight_max = tuning.inflight_max.max(APPENDS_MANY);
        tuning.inflight_bytes_max = tuning.inflight_bytes_max.max(APPENDS_MANY * APPEND_BYTES_LITTLE);
    }
    if rng.chance(500_000) {
        tuning.apply_lag_max = rng.log_between(64, 4_096);
    }
    tuning
}
