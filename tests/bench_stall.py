#!/usr/bin/env python3
"""Stalls a disk under kontiki and etcd, and measures the reads meanwhile and how long a leader holds on.

    bench_stall.py --etcd PATH/etcd --kontiki PATH/kontiki [--seconds 6]

As root. Each member's data is on an ext4 file system of its own, in a file behind a loop device. One is frozen
(`fsfreeze`), so that writes to it stand still and do not fail, as on a disk that is stuck; then it is thawed.

One member: serializable reads, with a write under way that the disk holds up. Three members: the leader's disk is
frozen while a client writes to the others, and the time is taken until one of them leads.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import bench_compare

LEAD_MAX = 30  # seconds that a leader on a stuck disk is waited for


class Disks:
    """File systems, each behind a loop device."""

    def __init__(self, count, megabytes=700):
        self.dir = tempfile.mkdtemp(prefix="bench-stall-")
        self.mounts = []
        for i in range(count):
            image, mount = os.path.join(self.dir, f"{i}.img"), os.path.join(self.dir, str(i))
            os.mkdir(mount)
            with open(image, "wb") as file:
                file.truncate(megabytes << 20)
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, mount], check=True)
            self.mounts.append(mount)

    @contextlib.contextmanager
    def stalled(self, at, most):
        """A frozen disk; thawed at the end, or after `most` seconds, whatever happens."""
        thaw = threading.Timer(most, lambda: subprocess.run(["fsfreeze", "-u", self.mounts[at]], stderr=subprocess.DEVNULL))
        thaw.start()
        subprocess.run(["fsfreeze", "-f", self.mounts[at]], check=True)
        try:
            yield
        finally:
            thaw.cancel()
            subprocess.run(["fsfreeze", "-u", self.mounts[at]], stderr=subprocess.DEVNULL)

    def remove(self):
        for mount in self.mounts:
            subprocess.run(["umount", mount])
        shutil.rmtree(self.dir, ignore_errors=True)


def members(command, disks, base, program):
    """Members on the disks, in place of the temporary directory."""
    cluster = bench_compare.Cluster.__new__(bench_compare.Cluster)
    cluster.dir = None
    cluster.start(command, len(disks.mounts), base, program, disks.mounts)
    return cluster


def ctl(program, endpoint, *words):
    words = shlex.split(program) + ["ctl", f"--endpoints={endpoint}", "--command-timeout=2s", *words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def leader(program, endpoint):
    """The leader's id as a member tells it, and its own."""
    text = ctl(program, endpoint, "endpoint", "status", "-w", "json")
    if text is None:
        return None, None
    status = json.loads(text)[0]["Status"]
    return status.get("leader", 0), status["header"]["member_id"]


def reads(cluster, seconds):
    """p50 and p99 of serializable reads, in ms."""
    result = cluster.bench("range --serializable --clients 20 --conns 5 --key-space-size 1000 --rate 2000", seconds)
    latency = result["latency_us"]["range"]
    return latency["p50"] / 1000, latency["p99"] / 1000


def on_one(command, base, program, seconds):
    disks = Disks(1)
    try:
        cluster = members(command, disks, base, program)
        try:
            cluster.bench("range --fill --clients 1 --conns 1 --key-space-size 1000", 0.2)
            before = reads(cluster, seconds)
            with disks.stalled(0, seconds + 20):
                put = subprocess.Popen(shlex.split(program) + ["ctl", f"--endpoints={cluster.endpoints[0]}", "put", "k", "v"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                time.sleep(0.3)
                during = reads(cluster, seconds)
            put.wait()
        finally:
            cluster.stop()
    finally:
        disks.remove()
    return {"reads, p50 ms": before[0], "reads, p99 ms": before[1], "reads on a stalled disk, p50 ms": during[0],
        "reads on a stalled disk, p99 ms": during[1]}  # fmt: skip


def on_three(command, base, program):
    disks = Disks(3)
    try:
        cluster = members(command, disks, base, program)
        try:
            lead = leader(program, cluster.endpoints[0])[0]
            at = next(i for i, endpoint in enumerate(cluster.endpoints) if leader(program, endpoint)[1] == lead)
            other = cluster.endpoints[(at + 1) % 3]
            with disks.stalled(at, LEAD_MAX + 20):
                begin = time.monotonic()
                put = subprocess.Popen(shlex.split(program) + ["bench", "put", "--rate", "20", "--duration", f"{LEAD_MAX}s", "--endpoints", other],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                taken = float("inf")
                while time.monotonic() - begin < LEAD_MAX:
                    now = leader(program, other)[0]
                    if now and now != lead:
                        taken = time.monotonic() - begin
                        break
                    time.sleep(0.02)
            put.kill()
            put.wait()
        finally:
            cluster.stop()
    finally:
        disks.remove()
    return {"until another leads, s": taken}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", required=True, help="etcd, as a command")
    parser.add_argument("--kontiki", required=True, help="kontiki, as a command")
    parser.add_argument("--bench", help="the load generator, if not --kontiki")
    parser.add_argument("--seconds", type=float, default=6, help="length of a stall")
    parser.add_argument("--port-base", type=int, default=24300)
    options = parser.parse_args()
    program = options.bench or options.kontiki
    sides = {}
    for name in ("etcd", "kontiki"):
        print(f"{name}: one member, then three", file=sys.stderr, flush=True)
        command = getattr(options, name)
        sides[name] = on_one(command, options.port_base, program, options.seconds)
        sides[name] |= on_three(command, options.port_base, program)
    print("\n| what | etcd | kontiki |\n|---|---|---|")
    for what, one in sides["etcd"].items():
        print(f"| {what} | {one:.3g} | {sides['kontiki'][what]:.3g} |")


if __name__ == "__main__":
    main()
