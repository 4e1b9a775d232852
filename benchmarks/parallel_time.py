#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures parallel virtual time (docs/parallel_time.md).

table   boots the timing probe under stock -icount and under parallel time and
        prints both beside each other
digest  boots N identical guests (hogs, fork storm, sleeping threads) beside
        other load and compares their consoles byte for byte; with --disturb
        every second one is stopped, continued and queried all the time
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


def qemu_command(args, initramfs, run_dir, parallel, words):
    icount = f"shift={args.shift},sleep=off"
    if parallel:
        icount += f",parallel={args.quantum}"
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
        "pc",
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max",
        "-m",
        "512",
        "-smp",
        str(args.cpus),
        "-icount",
        icount,
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


def disturb(path, seed, process):
    """Stop, continue and query at random host times until QEMU is gone."""
    rand = random.Random(seed)
    count = 0
    while not os.path.exists(path):
        if process.poll() is not None:
            return 0
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        stream = sock.makefile("rw")

        def execute(command, line=None):
            request = {"execute": command}
            if line:
                request["arguments"] = {"command-line": line}
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            while True:
                answer = stream.readline()
                if not answer:
                    raise EOFError
                if "event" not in json.loads(answer):
                    return

        try:
            stream.readline()
            execute("qmp_capabilities")
            while True:
                if rand.random() < 0.4:
                    execute("stop")
                    time.sleep(rand.random() * 0.01)
                    execute("cont")
                else:
                    execute(*rand.choice(QUERIES))
                count += 1
                time.sleep(rand.random() * 0.02)
        except (EOFError, ConnectionError, BrokenPipeError):
            return count


def boot(args, initramfs, run_dir, parallel, words, disturb_seed=None):
    """Boot one guest; its console, seconds of wall time and disturbances."""
    os.makedirs(run_dir)
    command = qemu_command(args, initramfs, run_dir, parallel, words)
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
    try:
        with open(os.path.join(run_dir, "console"), "rb") as file:
            console = file.read()
    except OSError:
        console = b""
    if b"probe: done" not in console:
        with open(os.path.join(run_dir, "stderr"), encoding="utf-8", errors="replace") as file:
            said = file.read().strip()
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
    for name, parallel in (("stock", False), ("parallel", True)):
        console, wall, _ = boot(args, initramfs, os.path.join(work, name), parallel, "probe=timing")
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


def digest(args, initramfs, work):
    words = f"probe=digest probe_seconds={args.seconds}"
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.load)]

    def one(number):
        seed = number if args.disturb and number % 2 else None
        return boot(args, initramfs, os.path.join(work, str(number)), not args.stock, words, seed)

    begin = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            runs = list(pool.map(one, range(args.runs)))
    finally:
        for process in load:
            process.kill()
            process.wait()
    digests = [hashlib.sha256(run[0]).hexdigest()[:16] for run in runs]
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
    parser.add_argument("what", choices=("table", "digest"))
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
    group = parser.add_argument_group("digest")
    group.add_argument("--runs", type=int, default=40)
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
        run = table if args.what == "table" else digest
        return run(args, initramfs, work)


if __name__ == "__main__":
    sys.exit(main())
