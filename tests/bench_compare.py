#!/usr/bin/env python3
"""Measures kontiki against etcd on this machine and prints a Markdown table.

    bench_compare.py --etcd PATH/etcd --kontiki PATH/kontiki [--quick] [--members 1,3] [--loads put-1,range]

Both get the same loads from `kontiki bench`, in turn, in several rounds that begin with another one each time;
the table holds medians. Servers run on loopback, with fresh data in a temporary directory for each round.
Ratios are kontiki / etcd: above 1 is better for throughput, below 1 for latency, CPU and memory.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# Name, arguments of `kontiki bench`.
WIDE = "--clients 1000 --conns 100"
LOADS = {
    "put-1": "put --clients 1 --conns 1",
    "put-1000": f"put {WIDE} --key-space-size 100000",
    "txn-put": f"txn-put {WIDE} --key-space-size 100000",
    "range": f"range {WIDE} --fill",
    "range-serializable": f"range --serializable {WIDE} --fill",
    "range-10000": "range --range-keys 10000 --clients 4 --conns 4 --fill",
    "keep-alive": "keep-alive --clients 500 --conns 50",
    "watch": "watch --clients 100 --conns 10 --rate 200",
    "mixed": f"mixed {WIDE} --fill",
}
START_MAX = 30  # seconds
BENCH_MARGIN = 90  # seconds beside the load itself, for filling and the slowest clients


class Cluster:
    """Fresh members of one program."""

    def __init__(self, command, count, base, program):
        self.dir = tempfile.mkdtemp(prefix="bench-compare-")
        self.start(command, count, base, program, [self.dir] * count)

    def start(self, command, count, base, program, places):
        """Starts members with their data in directories of `places`."""
        self.program = program  # the load generator, which also asks whether the members are well
        self.endpoints = [f"127.0.0.1:{base + 2 * i}" for i in range(count)]
        peers = [f"http://127.0.0.1:{base + 2 * i + 1}" for i in range(count)]
        cluster = ",".join(f"m{i}={peer}" for i, peer in enumerate(peers))
        self.processes = []
        for i, peer in enumerate(peers):
            client = f"http://{self.endpoints[i]}"
            words = shlex.split(command) + ["--name", f"m{i}", "--data-dir", os.path.join(places[i], f"m{i}"),
                "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--log-level", "error"]  # fmt: skip
            with open(os.path.join(places[i], f"m{i}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))
        deadline = time.monotonic() + START_MAX
        for i, endpoint in enumerate(self.endpoints):
            while not healthy(program, endpoint):
                if time.monotonic() > deadline or self.processes[i].poll() is not None:
                    with open(os.path.join(places[i], f"m{i}.log"), errors="replace") as log:
                        text = log.read()[-2000:]
                    self.stop()
                    raise RuntimeError(f"{command} did not start at {endpoint}:\n{text}")
                time.sleep(0.05)

    def bench(self, load, seconds):
        """Runs one load; None if it failed."""
        words = shlex.split(self.program) + ["bench"] + shlex.split(load) + ["--endpoints", ",".join(self.endpoints), "--json"]
        if load.startswith("watch"):
            # A watch ends with its events: as many writes as fit the time.
            rate = int(load.split("--rate ")[1].split()[0])
            words += ["--total", str(max(1, int(rate * seconds)))]
        else:
            words += ["--duration", f"{seconds}s"]
        for process in self.processes:
            words += ["--server-pid", str(process.pid)]
        try:
            done = subprocess.run(words, capture_output=True, timeout=seconds + BENCH_MARGIN)
        except subprocess.TimeoutExpired:
            print(f"  gave up on: {load}", file=sys.stderr)
            return None
        try:
            result = json.loads(done.stdout)
        except ValueError:
            print(f"  failed: {load}: {done.stderr.decode(errors='replace')[-500:]}", file=sys.stderr)
            return None
        if result["errors"]:
            print(f"  errors in {load}: {result['errors']}", file=sys.stderr)
        return result if result["ops"] else None

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)


def healthy(program, endpoint):
    words = shlex.split(program) + ["ctl", f"--endpoints={endpoint}", "--command-timeout=1s", "endpoint", "health"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def measures(result):
    """The numbers of the table: throughput, p50, p99 (ms), CPU (µs/op), RSS (MB)."""
    # Of several kinds of operation, the slower one counts.
    latencies = result["latency_us"].values()
    worst = {q: max(latency[q] for latency in latencies) / 1000 for q in ("p50", "p99")}
    servers = result["servers"]
    return [result["throughput"], worst["p50"], worst["p99"], servers["cpu_us_per_op"], servers["rss_bytes"] / 1e6]


def medians(results):
    return [statistics.median(column) for column in zip(*map(measures, results))]


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(one, two, at):
    if one is None or two is None:
        return " / ".join("–" if side is None else number(side[at]) for side in (one, two))
    ratio = two[at] / one[at] if one[at] else float("nan")
    return f"{number(one[at])} / {number(two[at])} / **{ratio:.2f}**"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", required=True, help="etcd, as a command")
    parser.add_argument("--kontiki", required=True, help="kontiki, as a command")
    parser.add_argument("--bench", help="the load generator, if not --kontiki")
    parser.add_argument("--members", default="1,3", help="sizes of clusters (default 1,3)")
    parser.add_argument("--loads", default=",".join(LOADS), help="loads, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="length of one load")
    parser.add_argument("--quick", action="store_true", help="one round of two seconds a load")
    parser.add_argument("--port-base", type=int, default=24300)
    parser.add_argument("--json", help="file to put all results into")
    options = parser.parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (options.rounds, options.seconds)
    loads = options.loads.split(",")
    unknown = [name for name in loads if name not in LOADS]
    if unknown:
        parser.error(f"unknown loads {unknown}; there are {', '.join(LOADS)}")
    bench = options.bench or options.kontiki
    everything = {}
    for count in map(int, options.members.split(",")):
        results = {(side, load): [] for side in ("etcd", "kontiki") for load in loads}
        for turn in range(rounds):
            sides = ["etcd", "kontiki"] if turn % 2 == 0 else ["kontiki", "etcd"]
            for side in sides:
                for load in loads:
                    print(f"{count} member(s), round {turn + 1}/{rounds}: {side} {load}", file=sys.stderr, flush=True)
                    # Fresh for each load: what one leaves behind would weigh on the next.
                    command = options.etcd if side == "etcd" else options.kontiki
                    cluster = Cluster(command, count, options.port_base, bench)
                    try:
                        result = cluster.bench(LOADS[load], seconds)
                    finally:
                        cluster.stop()
                    if result:
                        results[side, load].append(result)
        print(f"\n### {count} member{'s' if count > 1 else ''}: etcd / kontiki / **ratio**, median of {rounds}\n")
        print("| load | ops/s | p50 ms | p99 ms | CPU µs/op | RSS MB |")
        print("|---|---|---|---|---|---|")
        for load in loads:
            one, two = (medians(results[side, load]) if results[side, load] else None for side in ("etcd", "kontiki"))
            print(f"| {load} | " + " | ".join(cell(one, two, at) for at in range(5)) + " |", flush=True)
            everything[f"{count}/{load}"] = {side: results[side, load] for side in ("etcd", "kontiki")}
    if options.json:
        with open(options.json, "w") as out:
            json.dump(everything, out, indent=1)


if __name__ == "__main__":
    main()
