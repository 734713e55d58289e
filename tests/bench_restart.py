#!/usr/bin/env python3
"""Measures memory with many keys, and how long a restart takes, kontiki against etcd; prints a Markdown table.

    bench_restart.py --etcd PATH/etcd --kontiki PATH/kontiki [--keys 1000000] [--value 256]

One member each, in turn. It is filled, killed (`kill -9`), started again, stopped with SIGTERM and started once
more. A start takes from the process's begin to the first `/health`, which is a linearizable read.
"""

import argparse
import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

START_MAX = 300  # seconds
POLL = 0.005  # seconds


class Member:
    def __init__(self, command, base):
        self.words = shlex.split(command)
        self.dir = tempfile.mkdtemp(prefix="bench-restart-")
        self.port = base
        client, peer = f"http://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
        self.words += ["--name", "m", "--data-dir", os.path.join(self.dir, "m"), "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"m={peer}", "--log-level", "error", "--quota-backend-bytes", "8000000000"]  # fmt: skip

    def start(self):
        """Starts it; the seconds until it answered."""
        begin = time.monotonic()
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=log)
        while not self.healthy():
            if time.monotonic() - begin > START_MAX or self.process.poll() is not None:
                raise RuntimeError(f"{self.words[0]} did not start, see {self.dir}")
            time.sleep(POLL)
        return time.monotonic() - begin

    def healthy(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_MAX)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    def end(self, sig):
        self.process.send_signal(sig)
        self.process.wait()

    def disk(self):
        files = (os.path.join(path, name) for path, _, names in os.walk(self.dir) for name in names)
        return sum(os.stat(file).st_blocks * 512 for file in files)


def measure(command, bench, keys, value, base):
    member = Member(command, base)
    try:
        member.start()
        words = shlex.split(bench) + ["bench", "range", "--fill", "--key-space-size", str(keys), "--val-size", str(value),
            "--conns", "8", "--total", "1", "--endpoints", f"127.0.0.1:{base}", "--json"]  # fmt: skip
        begin = time.monotonic()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        found = {"fill, s": time.monotonic() - begin, "resident, MB": member.resident() / 1e6, "disk, MB": member.disk() / 1e6}
        member.end(signal.SIGKILL)
        found["start after kill -9, s"] = member.start()
        found["resident after it, MB"] = member.resident() / 1e6
        member.end(signal.SIGTERM)
        found["start after SIGTERM, s"] = member.start()
        member.end(signal.SIGKILL)
        return found
    finally:
        if member.process.poll() is None:
            member.end(signal.SIGKILL)
        shutil.rmtree(member.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", required=True, help="etcd, as a command")
    parser.add_argument("--kontiki", required=True, help="kontiki, as a command")
    parser.add_argument("--bench", help="the load generator, if not --kontiki")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value", type=int, default=256, help="bytes of a value")
    parser.add_argument("--port-base", type=int, default=24300)
    options = parser.parse_args()
    sides = {}
    for name in ("etcd", "kontiki"):
        print(f"{name}: {options.keys} keys", file=sys.stderr, flush=True)
        command = getattr(options, name)
        sides[name] = measure(command, options.bench or options.kontiki, options.keys, options.value, options.port_base)
    print(f"\n### {options.keys:,} keys of {options.value} bytes\n")
    print("| what | etcd | kontiki | ratio |\n|---|---|---|---|")
    for what, one in sides["etcd"].items():
        two = sides["kontiki"][what]
        print(f"| {what} | {one:.3g} | {two:.3g} | **{two / one:.2f}** |")


if __name__ == "__main__":
    main()
