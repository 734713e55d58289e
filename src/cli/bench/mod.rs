//! `kontiki bench`: puts load on any etcd endpoint and says what it took, on both sides.
//!
//! ```text
//! options ──▶ connections ──▶ clients (tasks) ── tallies ──▶ Report: throughput, latencies, errors, CPU, memory
//!                                   ▲
//!                       tickets: how many are left, when each is due
//! ```
//!
//! - The generator must be cheap, since it often shares its cores with what it measures: keys and values are laid
//!   out before the clock starts, clients share connections, each has its own histogram.
//! - With `--rate`, latency counts from when an operation was due, so a server that stalls can't hide it.
//! - The servers' CPU time is read from /proc before and after; `--server-pid` says whose.
//!
//! Left out: TLS and users, as in `ctl`.

mod clients;
mod keys;
mod options;
mod raw;
mod report;
mod watchers;

use std::{
    io::IsTerminal,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tonic::transport::{Channel, Endpoint};

use self::{
    clients::Shared,
    keys::Keys,
    options::{Common, Load, Options},
    report::{Report, Tally, Usage, usage},
};

/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Runs a line, without `bench` itself; returns the exit code.
pub fn main(line: &[String]) -> i32 {
    let options = match Options::try_parse_from(line) {
        Ok(options) => options,
        Err(error) => {
            // Help goes to standard output, the rest to standard error; a closed one can't be told.
            let _ = error.print();
            return error.exit_code();
        }
    };
    match run(options) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("Error: {text}");
            1
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    options.check()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if options.common.threads > 0 {
        builder.worker_threads(options.common.threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| error.to_string())?;
    let json = options.common.json;
    let report = runtime.block_on(measure(options))?;
    runtime.shutdown_background();
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    match report.tally.ops() {
        0 => Err("no operation went well".into()),
        _ => Ok(()),
    }
}

async fn measure(options: Options) -> Result<Report, String> {
    let common = options.common.clone();
    let channels = connect(&common).await?;
    let keys = Arc::new(Keys::new(&common));
    let value = keys::value(common.val_size);
    if common.fill {
        clients::fill(keys.clone(), value.clone(), &channels).await.map_err(|s| s.message().to_string())?;
    }
    let pids: Vec<String> = common.server_pids.iter().map(u32::to_string).collect();
    let before = (usage(&pids), usage(&["self".into()]));
    let load = options.name();
    let shared = Arc::new(Shared::new(options, keys, value));
    let bar = progress(shared.clone());
    let tally = match shared.options.load {
        Load::Watch => watch_load(&shared, &channels).await?,
        Load::KeepAlive => {
            gather((0..common.clients).map(|at| clients::keep_alive(shared.clone(), share(&channels, at))))
                .await
        }
        Load::Put | Load::TxnPut { .. } | Load::Range { .. } | Load::Mixed { .. } => {
            let client = |at| clients::key_values(shared.clone(), share(&channels, at), at as u64);
            gather((0..common.clients).map(client)).await
        }
    };
    let elapsed = shared.start.elapsed();
    if let Some(bar) = bar {
        bar.abort();
    }
    let after = (usage(&pids), usage(&["self".into()]));
    let cpu_seconds = after.0.cpu_seconds - before.0.cpu_seconds;
    Ok(Report {
        load,
        clients: common.clients,
        conns: channels.len(),
        elapsed,
        tally,
        servers: (!pids.is_empty()).then_some(Usage { cpu_seconds, ..after.0 }),
        own_cpu_seconds: after.1.cpu_seconds - before.1.cpu_seconds,
    })
}

/// Opens all connections, to the endpoints in turn.
async fn connect(common: &Common) -> Result<Vec<Channel>, String> {
    let mut channels = Vec::with_capacity(common.conns);
    for at in 0..common.conns {
        let endpoint = &common.endpoints[at % common.endpoints.len()];
        let uri = if endpoint.contains("://") { endpoint.clone() } else { format!("http://{endpoint}") };
        let channel = Endpoint::from_shared(uri)
            .map_err(|error| format!("{endpoint}: {error}"))?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|error| format!("no connection to {endpoint}: {error}"))?;
        channels.push(channel);
    }
    Ok(channels)
}

fn share(channels: &[Channel], client: usize) -> Channel {
    channels[client % channels.len()].clone()
}

/// Runs clients at once, and adds up what they saw.
async fn gather(clients: impl Iterator<Item = impl Future<Output = Tally> + Send + 'static>) -> Tally {
    let mut tasks: JoinSet<Tally> = clients.collect();
    let mut sum = Tally::new();
    while let Some(tally) = tasks.join_next().await {
        match tally {
            Ok(tally) => sum.merge(tally),
            Err(error) => sum.failed(error.to_string()),
        }
    }
    sum
}

/// All watches stand before the first write; they end when each has seen them all.
async fn watch_load(shared: &Arc<Shared>, channels: &[Channel]) -> Result<Tally, String> {
    let mut standing = Vec::new();
    for at in 0..shared.options.common.clients {
        let stream = watchers::open_watch(shared, share(channels, at)).await;
        standing.push(stream.map_err(|status| status.message().to_string())?);
    }
    let (expect, expected) = watch::channel(None);
    let counters =
        standing.into_iter().map(|stream| watchers::count_events(shared.clone(), stream, expected.clone()));
    let events = tokio::spawn(gather(counters.collect::<Vec<_>>().into_iter()));
    let (written, mut tally) = watchers::write_watched(shared.clone(), channels[0].clone()).await;
    // The watches may all have failed; then nobody is there to be told.
    let _ = expect.send(Some(written));
    tally.merge(events.await.map_err(|error| error.to_string())?);
    Ok(tally)
}

/// Shows how far the run is, if somebody is looking.
fn progress(shared: Arc<Shared>) -> Option<JoinHandle<()>> {
    const EVERY: Duration = Duration::from_millis(200);
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let common = &shared.options.common;
    let (length, timed) = match common.duration {
        Some(duration) => (duration.as_millis() as u64, true),
        None => (common.total, false),
    };
    let template = if timed { "{bar:40} {percent}%  {msg}" } else { "{bar:40} {pos}/{len}  {msg}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style);
    Some(tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let (ended, elapsed) = (shared.ended.load(Ordering::Relaxed), shared.start.elapsed());
            bar.set_position(if timed { elapsed.as_millis() as u64 } else { ended });
            bar.set_message(format!("{:.0} ops/s", ended as f64 / elapsed.as_secs_f64()));
        }
    }))
}
