//! What a run took: latencies, errors, the servers' CPU time and memory; as text or JSON.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(120);

/// What one client, or all of them, saw.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies in nanoseconds, by kind of operation; a percent off at most.
    pub kinds: BTreeMap<&'static str, Histogram<u32>>,
    /// Failures by their text.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { kinds: BTreeMap::new(), errors: BTreeMap::new() }
    }

    /// An operation that went well.
    pub fn done(&mut self, kind: &'static str, latency: Duration) {
        let histogram = self.kinds.entry(kind).or_insert_with(empty);
        histogram.saturating_record(latency.as_nanos() as u64);
    }

    /// One that did not.
    pub fn failed(&mut self, text: String) {
        *self.errors.entry(text).or_default() += 1;
    }

    /// Adds another client's.
    pub fn merge(&mut self, other: Self) {
        for (kind, histogram) in other.kinds {
            // All have the same bounds.
            let _ = self.kinds.entry(kind).or_insert_with(empty).add(histogram);
        }
        for (text, count) in other.errors {
            *self.errors.entry(text).or_default() += count;
        }
    }

    /// Operations that went well.
    pub fn ops(&self) -> u64 {
        self.kinds.values().map(|histogram| histogram.len()).sum()
    }
}

fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX.as_nanos() as u64, 2).expect("the bounds are in order")
}

/// CPU time and memory of some processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub rss: u64,
    /// The most that they have ever been.
    pub rss_peak: u64,
}

/// Reads the usage of processes from /proc; one that is gone counts nothing.
#[allow(clippy::disallowed_methods)] // /proc is no disk.
pub fn usage(pids: &[String]) -> Usage {
    let mut sum = Usage::default();
    for pid in pids {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        sum.cpu_seconds += cpu_seconds(&String::from_utf8_lossy(&read("stat")));
        let status = read("status");
        let status = String::from_utf8_lossy(&status);
        sum.rss += kilobytes(&status, "VmRSS:") * 1024;
        sum.rss_peak += kilobytes(&status, "VmHWM:") * 1024;
    }
    sum
}

/// utime and stime of a /proc/PID/stat line, which Linux counts in hundredths of a second.
fn cpu_seconds(stat: &str) -> f64 {
    // The name, in parentheses, may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A finished run.
#[derive(Debug)]
pub struct Report {
    /// The load's name.
    pub load: &'static str,
    /// Clients that ran.
    pub clients: usize,
    /// Connections that they shared.
    pub conns: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// What all clients saw.
    pub tally: Tally,
    /// What the servers used, if their processes are known.
    pub servers: Option<Usage>,
    /// CPU seconds of the load generator.
    pub own_cpu_seconds: f64,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report {
    fn throughput(&self) -> f64 {
        self.tally.ops() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn cpu_per_op(&self, seconds: f64) -> f64 {
        seconds * 1e6 / (self.tally.ops().max(1)) as f64
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: {} ops in {:.3} s, {:.1} ops/s ({} clients, {} conns)",
            self.load,
            self.tally.ops(),
            self.elapsed.as_secs_f64(),
            self.throughput(),
            self.clients,
            self.conns
        );
        for (kind, histogram) in &self.tally.kinds {
            let _ = write!(out, "  {kind:<8} mean {:.3} ms", histogram.mean() / 1e6);
            for (name, quantile) in QUANTILES {
                let _ = write!(out, "  {name} {:.3}", histogram.value_at_quantile(quantile) as f64 / 1e6);
            }
            let _ = writeln!(out, "  max {:.3}  ({} ops)", histogram.max() as f64 / 1e6, histogram.len());
        }
        for (text, count) in &self.tally.errors {
            let _ = writeln!(out, "  error    {count} x {text}");
        }
        if let Some(servers) = &self.servers {
            let _ = writeln!(
                out,
                "  servers  {:.2} CPU s, {:.1} µs/op, RSS {:.1} MB (peak {:.1} MB)",
                servers.cpu_seconds,
                self.cpu_per_op(servers.cpu_seconds),
                servers.rss as f64 / 1e6,
                servers.rss_peak as f64 / 1e6
            );
        }
        let own = self.cpu_per_op(self.own_cpu_seconds);
        let _ = writeln!(out, "  clients  {:.2} CPU s, {own:.1} µs/op", self.own_cpu_seconds);
        out
    }

    /// For programs. Latencies are microseconds.
    pub fn json(&self) -> Value {
        let kinds: BTreeMap<&str, Value> = self
            .tally
            .kinds
            .iter()
            .map(|(kind, histogram)| {
                let mut latency = json!({
                    "ops": histogram.len(),
                    "mean": histogram.mean() / 1e3,
                    "max": histogram.max() as f64 / 1e3,
                });
                for (name, quantile) in QUANTILES {
                    latency[name] = json!(histogram.value_at_quantile(quantile) as f64 / 1e3);
                }
                (*kind, latency)
            })
            .collect();
        let servers = self.servers.map(|servers| {
            json!({
                "cpu_seconds": servers.cpu_seconds,
                "cpu_us_per_op": self.cpu_per_op(servers.cpu_seconds),
                "rss_bytes": servers.rss,
                "rss_peak_bytes": servers.rss_peak,
            })
        });
        json!({
            "load": self.load,
            "clients": self.clients,
            "conns": self.conns,
            "seconds": self.elapsed.as_secs_f64(),
            "ops": self.tally.ops(),
            "throughput": self.throughput(),
            "latency_us": kinds,
            "errors": self.tally.errors,
            "servers": servers,
            "own_cpu_seconds": self.own_cpu_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut tally = Tally::new();
        let mut other = Tally::new();
        (1..=99).for_each(|ms| tally.done("put", Duration::from_millis(ms)));
        other.done("put", Duration::from_millis(100));
        other.failed("etcdserver: no leader".into());
        tally.merge(other);
        let servers = Some(Usage { cpu_seconds: 0.5, rss: 1_000_000, rss_peak: 2_000_000 });
        let elapsed = Duration::from_secs(2);
        Report { load: "put", clients: 2, conns: 1, elapsed, tally, servers, own_cpu_seconds: 0.1 }
    }

    #[test]
    fn results_add_up() {
        let json = report().json();
        assert_eq!((json["ops"].as_u64(), json["throughput"].as_f64()), (Some(100), Some(50.0)));
        assert_eq!(json["servers"]["cpu_us_per_op"].as_f64(), Some(5000.0));
        assert_eq!(json["errors"]["etcdserver: no leader"].as_u64(), Some(1));
        let p50 = json["latency_us"]["put"]["p50"].as_f64().expect("a median");
        assert!((49_500.0..=50_800.0).contains(&p50), "{p50}");
        let text = report().text();
        assert!(text.starts_with("put: 100 ops in 2.000 s, 50.0 ops/s (2 clients, 1 conns)\n"), "{text}");
        assert!(text.contains("1 x etcdserver: no leader") && text.contains("5000.0 µs/op"), "{text}");
    }

    #[test]
    fn proc_files_are_read() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat), 2.0);
        assert_eq!(cpu_seconds(""), 0.0);
        assert_eq!(kilobytes("Name:\tx\nVmHWM:\t  20 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), 12);
        let own = usage(&["self".into()]);
        assert!(own.rss > 0 && own.rss <= own.rss_peak);
    }
}
