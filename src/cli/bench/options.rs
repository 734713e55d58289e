//! The load generator's flags.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cli::ctl::parse_duration;

/// Puts load on an etcd or kontiki endpoint and says what it took.
#[derive(Clone, Debug, Parser)]
#[command(name = "kontiki bench", no_binary_name = true)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub load: Load,
    /// How much of it, and where.
    #[command(flatten)]
    pub common: Common,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Load {
    /// Writes keys.
    Put,
    /// Writes keys, several in a transaction.
    TxnPut {
        /// Writes in each transaction.
        #[arg(long, default_value_t = 1)]
        txn_ops: u64,
    },
    /// Reads keys.
    Range {
        /// Keys in each read.
        #[arg(long, default_value_t = 1)]
        range_keys: u64,
        /// Read what the asked member has, without a quorum.
        #[arg(long)]
        serializable: bool,
    },
    /// Watches a key with each client while one more client writes to it; an operation is an event that arrived.
    Watch,
    /// Renews leases, one for each client.
    KeepAlive,
    /// Reads and writes single keys.
    Mixed {
        /// Reads among a hundred operations.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
        read_percent: u32,
        /// Read what the asked member has, without a quorum.
        #[arg(long)]
        serializable: bool,
    },
}

/// How much, and where.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Members to talk to; connections go to them in turn.
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Clients, each with one operation under way.
    #[arg(long, global = true, default_value_t = 1)]
    pub clients: usize,
    /// Connections, which the clients share.
    #[arg(long, global = true, default_value_t = 1)]
    pub conns: usize,
    /// Operations in all; for `watch`, writes.
    #[arg(long, global = true, default_value_t = 10_000)]
    pub total: u64,
    /// Stop after this time instead, such as 10s.
    #[arg(long, global = true, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Operations a second, in all; 0 for as many as it takes. Latency then counts from when one was due.
    #[arg(long, global = true, default_value_t = 0)]
    pub rate: u64,
    /// Bytes of a key.
    #[arg(long, global = true, default_value_t = 16)]
    pub key_size: usize,
    /// Bytes of a value.
    #[arg(long, global = true, default_value_t = 256)]
    pub val_size: usize,
    /// Different keys.
    #[arg(long, global = true, default_value_t = 10_000)]
    pub key_space_size: u64,
    /// Take keys one after the other rather than at random.
    #[arg(long, global = true)]
    pub sequential_keys: bool,
    /// Write every key of the key space before measuring.
    #[arg(long, global = true)]
    pub fill: bool,
    /// Process of a server, whose CPU time and memory count; may be repeated.
    #[arg(long = "server-pid", global = true)]
    pub server_pids: Vec<u32>,
    /// Threads of the load generator; 0 for one a core.
    #[arg(long, global = true, default_value_t = 0)]
    pub threads: usize,
    /// Print the result as one JSON object.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Keys that a run may have; they are laid out in memory before it starts.
const KEY_SPACE_MAX: u64 = 20_000_000;

impl Options {
    /// What is wrong with the options, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let common = &self.common;
        if common.clients == 0 || common.conns == 0 || common.total == 0 || common.key_space_size == 0 {
            return Err("--clients, --conns, --total and --key-space-size must be at least 1".into());
        }
        if common.key_space_size > KEY_SPACE_MAX {
            return Err(format!("--key-space-size is at most {KEY_SPACE_MAX}"));
        }
        let digits = (common.key_space_size - 1).to_string().len();
        if common.key_size < digits {
            return Err(format!(
                "{} different keys need a --key-size of at least {digits}",
                common.key_space_size
            ));
        }
        let group = match self.load {
            Load::TxnPut { txn_ops } => txn_ops,
            Load::Range { range_keys, .. } => range_keys,
            Load::Put | Load::Watch | Load::KeepAlive | Load::Mixed { .. } => 1,
        };
        if group == 0 || group > common.key_space_size {
            return Err("--txn-ops and --range-keys are between 1 and --key-space-size".into());
        }
        Ok(())
    }

    /// The load's name.
    pub fn name(&self) -> &'static str {
        match self.load {
            Load::Put => "put",
            Load::TxnPut { .. } => "txn-put",
            Load::Range { .. } => "range",
            Load::Watch => "watch",
            Load::KeepAlive => "keep-alive",
            Load::Mixed { .. } => "mixed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(line.split_whitespace()).expect(line)
    }

    #[test]
    fn flags_stand_on_either_side_of_the_load() {
        let options =
            parse("--clients 4 range --range-keys 10 --serializable --endpoints a:1,b:2 --duration 1m30s");
        assert_eq!(options.load, Load::Range { range_keys: 10, serializable: true });
        assert_eq!((options.common.clients, options.common.endpoints.len()), (4, 2));
        assert_eq!(options.common.duration, Some(Duration::from_secs(90)));
        assert_eq!(options.check(), Ok(()));
        assert_eq!(parse("put --server-pid 1 --server-pid 2").common.server_pids, [1, 2]);
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for line in ["put --clients 0", "put --key-size 3", "range --range-keys 10001", "txn-put --txn-ops 0"]
        {
            assert!(parse(line).check().is_err(), "{line}");
        }
        assert!(Options::try_parse_from(["put", "--duration", "5"]).is_err());
    }
}
