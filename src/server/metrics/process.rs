//! What the system says of this process, read from `/proc` when a page is asked for.
#![allow(clippy::disallowed_methods)] // `/proc` holds no files of ours: nothing there is behind the disk's seam

use std::fs;

use prometheus::{Counter, IntGauge};
use rustix::process::{Resource, getrlimit};

use super::{Builder, families};

families! {
    /// The gauges.
    Gauges {
        open_fds: IntGauge = gauge("process_open_fds", "Open file descriptors.");
        max_fds: IntGauge = gauge("process_max_fds", "The limit of open file descriptors.");
        resident: IntGauge = gauge("process_resident_memory_bytes", "Bytes of memory in use.");
        virtual_memory: IntGauge = gauge("process_virtual_memory_bytes", "Bytes of address space in use.");
        virtual_memory_max: IntGauge = gauge("process_virtual_memory_max_bytes", "The limit of address space.");
        threads: IntGauge = gauge("process_threads", "Threads.");
        fd_used: IntGauge = gauge("os_fd_used", "Open file descriptors.");
        fd_limit: IntGauge = gauge("os_fd_limit", "The limit of open file descriptors.");
    }
}

/// Ticks a second in `/proc`: Linux fixes it for programs, whatever the kernel's own rate is.
const TICKS_A_SECOND: u64 = 100;

/// This process.
pub(super) struct Process {
    gauges: Gauges,
    cpu_seconds: Counter,
}

/// What `/proc/self/stat` says: CPU ticks, threads, start in ticks since boot, bytes of address space.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    /// The name, in parentheses, may hold anything: fields are counted from the last `)`, field 3 follows it.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            threads: number(20)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
        })
    }
}

impl Process {
    pub(super) fn new(builder: &Builder<'_>) -> Self {
        let gauges = Gauges::new(builder);
        let start =
            builder.gauge("process_start_time_seconds", "When the process started, seconds since 1970.");
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
        if let (Some(stat), Some(boot)) = (stat, boot_seconds()) {
            start.set((boot + stat.start_ticks / TICKS_A_SECOND) as i64);
        }
        let cpu_seconds =
            builder.add(Counter::new("process_cpu_seconds_total", "Seconds of CPU time, user and system."));
        Self { gauges, cpu_seconds }
    }

    /// Reads anew. What can't be read keeps its value.
    pub(super) fn refresh(&self) {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
            let cpu = stat.cpu_ticks as f64 / TICKS_A_SECOND as f64;
            self.cpu_seconds.inc_by((cpu - self.cpu_seconds.get()).max(0.0));
            self.gauges.threads.set(stat.threads as i64);
            self.gauges.virtual_memory.set(stat.virtual_bytes as i64);
        }
        if let Some(bytes) =
            fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text))
        {
            self.gauges.resident.set(bytes);
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory's own.
            let open = (fds.count() as i64 - 1).max(0);
            self.gauges.open_fds.set(open);
            self.gauges.fd_used.set(open);
        }
        let limit = file_descriptor_limit();
        self.gauges.max_fds.set(limit);
        self.gauges.fd_limit.set(limit);
        self.gauges.virtual_memory_max.set(getrlimit(Resource::As).current.map_or(-1, |max| max as i64));
    }
}

/// `VmRSS` of `/proc/self/status`, which says it in KiB.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

/// The most file descriptors that this process may have; -1 for no limit.
pub(crate) fn file_descriptor_limit() -> i64 {
    getrlimit(Resource::Nofile).current.map_or(-1, |max| max as i64)
}

/// When the machine was started, seconds since 1970.
fn boot_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 100 23 16 17 18 19 7 0 555 4096000 321 more";
        for name in ["(kontiki)", "(a b) c)", "(()"] {
            let stat = Stat::parse(&format!("12 {name} {tail}")).expect("it is whole");
            let expected = Stat { cpu_ticks: 123, threads: 7, start_ticks: 555, virtual_bytes: 4_096_000 };
            assert_eq!(stat, expected);
        }
        assert_eq!(Stat::parse("12 (kontiki) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn resident_memory_is_read_in_kib() {
        assert_eq!(resident_bytes("VmSize:\t  99 kB\nVmRSS:\t    1204 kB\n"), Some(1204 * 1024));
        assert_eq!(resident_bytes("VmRSS:\t pages\n"), None);
    }
}
