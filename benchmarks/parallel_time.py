#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures parallel virtual time (docs/parallel_time.md).

table   boots the timing probe under stock -icount and under parallel time and
        prints both beside each other
digest  boots N identical guests (hogs, fork storm, sleeping threads) beside
        other load and compares their consoles byte for byte; with --disturb
        every second one is stopped, continued and queried all the time
seeds   boots the same guest with seeds and compares consoles and traces: the
        same seed has to give the same, another seed another, and seed 0 what
        no seed gives; prints what the trace costs
load    saves a guest at until= and loads it N times by -incoming, every
        second time beside other load; consoles and traces have to agree
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

# Where `load` saves the guest: in the middle of its own load.
UNTIL_NS = 1_500_000_000
IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
COMMAND_LINE = "console=ttyS0 tsc=reliable nokaslr panic=-1"
# The row's name, the probe's, and what a multiprocessor does, as a multiple
# of the time of one hog.
ROWS = (
    ("1 hog", "hog_1", "T"),
    ("2 hogs on 2 CPUs", "hog_2_on_2", "T"),
    ("2 hogs on one CPU", "hog_2_on_1", "2T"),
    ("4 hogs on 4 CPUs", "hog_4_on_4", "T"),
    ("4 hogs on one CPU", "hog_4_on_1", "4T"),
    ("wake-up on an idle CPU, p50", "wakeup_p50", "a few us"),
    ("wake-up on an idle CPU, p99", "wakeup_p99", "a few us"),
    ("wake-up on an idle CPU, max", "wakeup_max", "a few us"),
)
QUERIES = (
    ("query-status", None),
    ("query-cpus-fast", None),
    ("human-monitor-command", "info registers -a"),
    ("human-monitor-command", "info mtree"),
    ("human-monitor-command", "xp/64x 0x1000000"),
)


def fail(message):
    print(f"parallel_time: {message}", file=sys.stderr)
    sys.exit(2)


def cpio_entry(number, name, mode, data):
    """One entry of the "newc" format; no times and owners, so it repeats."""
    name = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def write_initramfs(path, init):
    with open(path, "wb") as out:
        out.write(cpio_entry(1, "dev", 0o040755, b""))
        out.write(cpio_entry(2, "init", 0o100755, init))
        out.write(cpio_entry(3, "TRAILER!!!", 0, b""))


def qemu_command(args, initramfs, run_dir, icount, words, memory=()):
    """The sandboxed command; `icount` is added to -icount, `memory` describes the guest's memory."""
    return [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        args.qemu_root,
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--tmpfs",
        "/tmp",
        "--ro-bind",
        args.kernel,
        "/tmp/vmlinuz",
        "--ro-bind",
        initramfs,
        "/tmp/initramfs",
        "--bind",
        run_dir,
        "/tmp/run",
        "qemu-system-x86_64",
        "-L",
        "/usr/share/qemu",
        "-machine",
        "pc,memory-backend=ram" if memory else "pc",
        *memory,
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max",
        "-m",
        "512",
        "-smp",
        str(args.cpus),
        "-icount",
        f"shift={args.shift},sleep=off{icount}",
        "-rtc",
        "base=2026-01-01T00:00:00,clock=vm",
        "-seed",
        "1",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "file:/tmp/run/console",
        "-kernel",
        "/tmp/vmlinuz",
        "-initrd",
        "/tmp/initramfs",
        "-append",
        f"{COMMAND_LINE} {words}",
    ]


class Monitor:
    """A QMP connection."""

    def __init__(self, path, process):
        while not os.path.exists(path):
            if process.poll() is not None:
                raise EOFError
            time.sleep(0.02)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rw")
        self._read()
        self.execute("qmp_capabilities")

    def _read(self):
        line = self._stream.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def execute(self, command, **arguments):
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                fail(f"QEMU answered {answer['error']['desc']!r} to {command}, expected that it works")
            if "event" not in answer:
                return answer["return"]

    def wait_until(self, *states):
        """Poll until the machine is in one of the states."""
        while self.execute("query-status")["status"] not in states:
            time.sleep(0.02)


def disturb(path, seed, process):
    """Stop, continue and query at random host times until QEMU is gone."""
    rand = random.Random(seed)
    count = 0
    try:
        monitor = Monitor(path, process)
        while True:
            if rand.random() < 0.4:
                monitor.execute("stop")
                time.sleep(rand.random() * 0.01)
                monitor.execute("cont")
            else:
                command, line = rand.choice(QUERIES)
                monitor.execute(command, **({"command-line": line} if line else {}))
            count += 1
            time.sleep(rand.random() * 0.02)
    except (EOFError, ConnectionError, BrokenPipeError):
        return count


def read(run_dir, name):
    try:
        with open(os.path.join(run_dir, name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def boot(args, initramfs, run_dir, icount, words, disturb_seed=None):
    """Boot one guest; its console, seconds of wall time and disturbances."""
    os.makedirs(run_dir)
    command = qemu_command(args, initramfs, run_dir, icount, words)
    if disturb_seed is not None:
        command += ["-qmp", "unix:/tmp/run/qmp,server=on,wait=off"]
    begin = time.monotonic()
    disturbances = 0
    with open(os.path.join(run_dir, "stderr"), "wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        try:
            if disturb_seed is not None:
                disturbances = disturb(os.path.join(run_dir, "qmp"), disturb_seed, process)
            process.wait(timeout=args.timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # bwrap takes QEMU with it.
            process.kill()
            process.wait()
    wall = time.monotonic() - begin
    console = read(run_dir, "console")
    if b"probe: done" not in console:
        said = read(run_dir, "stderr").decode("utf-8", "replace").strip()
        print(
            f"parallel_time: the guest in {run_dir} did not finish, "
            f'expected "probe: done" on its console within '
            f"{args.timeout} s; QEMU said: {said or 'nothing'}",
            file=sys.stderr,
        )
    return console, wall, disturbances


def results(console):
    found = {}
    pattern = rb"^probe: (\w+) ([\d.]+) (ms|us)\r?$"
    for match in re.finditer(pattern, console, re.MULTILINE):
        name, value, unit = (part.decode() for part in match.groups())
        found[name] = (float(value), unit)
    return found


def table(args, initramfs, work):
    columns = {}
    for name, icount in (("stock", ""), ("parallel", f",parallel={args.quantum}")):
        console, wall, _ = boot(args, initramfs, os.path.join(work, name), icount, "probe=timing")
        columns[name] = results(console)
        columns[name]["wall"] = (wall, "s")
    print(f"{args.cpus} vCPUs, shift={args.shift}, quantum {args.quantum} instructions\n")
    print("| guest | stock -icount | parallel | stock / parallel | a multiprocessor |")
    print("|---|---|---|---|---|")
    for title, name, ideal in (*ROWS, ("wall time of it all", "wall", "-")):
        cells = [columns[column].get(name) for column in columns]
        if cells == [None, None]:
            continue
        text = [f"{cell[0]:.1f} {cell[1]}" if cell else "-" for cell in cells]
        ratio = "-"
        if all(cells) and cells[1][0]:
            ratio = f"{cells[0][0] / cells[1][0]:.2f}"
        print(f"| {title} | {text[0]} | {text[1]} | {ratio} | {ideal} |")
    complete = all(name in columns["parallel"] for _, name, _ in ROWS if args.cpus >= 4 or "4" not in name)
    return 0 if complete else 1


def busy(count):
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]


def end(processes):
    for process in processes:
        process.kill()
        process.wait()


def short(data):
    return hashlib.sha256(data).hexdigest()[:16]


def seeds(args, initramfs, work):
    words = f"probe=digest probe_seconds={args.seconds}"
    plan = [("no trace", ""), ("no seed", ""), ("seed 0", ",seed=0")]
    plan += [(f"seed {seed}", f",seed={seed}") for seed in range(1, args.runs + 1) for _ in range(2)]

    def one(number):
        name, icount = plan[number]
        if name != "no trace":
            icount += ",trace=/tmp/run/trace"
        run_dir = os.path.join(work, str(number))
        console, wall, _ = boot(args, initramfs, run_dir, f",parallel={args.quantum}{icount}", words)
        return console, read(run_dir, "trace"), wall

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(one, range(len(plan))))
    found = collections.defaultdict(set)
    for (name, _), (console, trace, _) in zip(plan, runs, strict=True):
        found[name].add((short(console), short(trace)))
    seeded = [name for name in found if name.startswith("seed ") and name != "seed 0"]
    wrong = [f"{name}: twice the same seed, two results" for name in seeded if len(found[name]) != 1]
    if found["seed 0"] != found["no seed"]:
        wrong.append("seed 0: another result than without a seed")
    if runs[0][0] != runs[1][0]:
        wrong.append("trace=: another console than without it")
    everything = set().union(*(found[name] for name in ("no seed", *seeded)))
    if len({trace for _, trace in everything}) != len(seeded) + 1:
        wrong.append("two seeds have one trace")
    if any(b"probe: done" not in console for console, _, _ in runs):
        wrong.append("not all guests finished")
    consoles = len({console for console, _ in everything})
    print(
        f"{len(seeded)} seeds, each twice: {len(everything)} different runs with that without a seed, "
        f"{consoles} different consoles"
    )
    print(f"wall time without trace {runs[0][2]:.1f} s, with it {runs[1][2]:.1f} s, {len(runs[1][1])} bytes")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


def start(args, initramfs, run_dir, icount, words, memory, more):
    os.makedirs(run_dir, exist_ok=True)
    command = qemu_command(args, initramfs, run_dir, f",parallel={args.quantum}{icount}", words, memory)
    command += ["-qmp", "unix:/tmp/run/qmp,server=on,wait=off", *more]
    with open(os.path.join(run_dir, "stderr"), "wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    return process, Monitor(os.path.join(run_dir, "qmp"), process)


def load(args, initramfs, work):
    words = f"probe=digest probe_seconds={args.seconds}"
    snapshot = os.path.join(work, "snapshot")
    memory = "memory-backend-file,id=ram,size=512M,mem-path=/tmp/{}"
    saved = ("-object", memory.format("run/ram,share=on"))
    process, monitor = start(args, initramfs, snapshot, f",until={args.until}", words, saved, ())
    try:
        monitor.wait_until("paused")
        monitor.execute("migrate-set-capabilities", **IGNORE_SHARED)
        monitor.execute("migrate", uri="file:/tmp/run/state")
        monitor.wait_until("postmigrate")
        monitor.execute("quit")
        process.wait(args.timeout)
    finally:
        end([process])

    def one(number):
        # A run's own directory is also where it finds the snapshot.
        run_dir = os.path.join(work, str(number))
        os.makedirs(run_dir)
        for name in ("ram", "state"):
            os.link(os.path.join(snapshot, name), os.path.join(run_dir, name))
        private = ("-object", memory.format("run/ram,share=off,readonly=on,rom=off"))
        hogs = busy(args.load if number % 2 else 0)
        icount = f",seed={args.seed},trace=/tmp/run/trace"
        process, monitor = start(args, initramfs, run_dir, icount, words, private, ("-incoming", "defer"))
        try:
            monitor.execute("migrate-set-capabilities", **IGNORE_SHARED)
            monitor.execute("migrate-incoming", uri="file:/tmp/run/state")
            monitor.wait_until("paused")
            monitor.execute("cont")
            process.wait(args.timeout)
        finally:
            end([process, *hogs])
        return read(run_dir, "console"), read(run_dir, "trace")

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(one, range(args.runs)))
    finished = sum(b"probe: done" in console for console, _ in runs)
    results = collections.Counter((short(console), short(trace)) for console, trace in runs)
    print(
        f"one snapshot at {args.until} ns, loaded {args.runs} times with seed {args.seed}, every second time beside "
        f"{args.load} busy processes: {results.most_common(1)[0][1]} identical, {args.runs - finished} not finished"
    )
    return 0 if len(results) == 1 and finished == args.runs else 1


def digest(args, initramfs, work):
    words = f"probe=digest probe_seconds={args.seconds}"
    hogs = busy(args.load)
    icount = "" if args.stock else f",parallel={args.quantum}"

    def one(number):
        seed = number if args.disturb and number % 2 else None
        return boot(args, initramfs, os.path.join(work, str(number)), icount, words, seed)

    begin = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            runs = list(pool.map(one, range(args.runs)))
    finally:
        end(hogs)
    digests = [short(run[0]) for run in runs]
    finished = sum(b"probe: done" in run[0] for run in runs)
    most, agreeing = collections.Counter(digests).most_common(1)[0]
    differing = [i for i, found in enumerate(digests) if found != most]
    last = re.findall(rb"probe: \d+ events digest .*", runs[0][0])
    print(
        f"{args.runs} guests with {args.cpus} vCPUs, {args.jobs} at a time, "
        f"beside {args.load} busy processes: {agreeing} identical "
        f"({most}), {len(differing)} differing, "
        f"{args.runs - finished} not finished"
    )
    if last:
        print(f"each: {last[0].decode().strip().removeprefix('probe: ')}")
    if args.disturb:
        count = sum(run[2] for run in runs)
        print(f"{count} stops and queries in {sum(run[2] > 0 for run in runs)} of the guests")
    print(
        f"wall time {time.monotonic() - begin:.0f} s, per guest "
        f"{min(run[1] for run in runs):.1f} to "
        f"{max(run[1] for run in runs):.1f} s"
    )
    if differing:
        print("differing runs: " + " ".join(map(str, differing)))
    return 0 if not differing and finished == args.runs else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("table", "digest", "seeds", "load"))
    parser.add_argument(
        "--qemu-root", required=True, help="root with qemu-system-x86_64, its libraries and /usr/share/qemu"
    )
    parser.add_argument("--kernel", required=True, help="vmlinuz of the guest")
    parser.add_argument("--probe", required=True, help="static build of vm_images/qemu/timing_probe.c")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--quantum", type=int, default=10000)
    parser.add_argument("--timeout", type=int, default=300, help="seconds of wall time for one guest")
    parser.add_argument("--keep", metavar="DIR", help="keep consoles in this new directory")
    group = parser.add_argument_group("digest, seeds, load")
    group.add_argument("--runs", type=int, default=40, help="guests; for `seeds`, how many seeds")
    group.add_argument("--until", type=int, default=UNTIL_NS, help="where `load` saves its guest (ns)")
    group.add_argument("--seed", type=int, default=0, help="of the guests that `load` loads")
    group.add_argument("--jobs", type=int, default=2, help="guests at a time")
    group.add_argument("--load", type=int, default=2, help="busy processes beside them")
    group.add_argument("--seconds", type=int, default=2, help="virtual seconds of load in each guest")
    group.add_argument("--disturb", action="store_true", help="stop, continue and query every second guest")
    group.add_argument("--stock", action="store_true", help="stock -icount, to compare")
    args = parser.parse_args()

    for path, what in ((args.qemu_root, "QEMU root"), (args.kernel, "kernel"), (args.probe, "probe")):
        if not os.path.exists(path):
            fail(f"no {what} at {path}, expected one; see docs/parallel_time.md for how to build it")
    if args.keep:
        os.makedirs(args.keep)
    with tempfile.TemporaryDirectory() as scratch:
        work = os.path.abspath(args.keep or scratch)
        initramfs = os.path.join(work, "initramfs")
        with open(args.probe, "rb") as file:
            write_initramfs(initramfs, file.read())
        run = {"table": table, "digest": digest, "seeds": seeds, "load": load}[args.what]
        return run(args, initramfs, work)


if __name__ == "__main__":
    sys.exit(main())
