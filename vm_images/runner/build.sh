#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Builds the guest runner, inside the builder root: build.sh SRC OUT. The same sources give the same bytes: no paths,
# no dates, no build id, and the order of the files is fixed.
set -eu
src=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The oracle's programs: one object for all kernels, since each place in the kernel's memory is found when it is loaded.
clang=$(ls /usr/bin/clang-[0-9]* | sort -V | tail -n 1)
"$clang" --target=bpf -mcpu=v3 -O2 -g -ffile-prefix-map="$src=runner" -Wall -Wextra -Wno-unused-parameter -Werror \
	"-I/usr/include/$(gcc -dumpmachine)" -c "$src/oracle.bpf.c" -o "$work/oracle.bpf.o"
cd "$src"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -ffile-prefix-map="$src=runner" -Wa,-I"$work" -Wall -Wextra -Werror \
	-static -pthread -Wl,--build-id=none -Wl,-s -o "$work/testbed-runner" \
	btf.c cgroup.c children.c cpio.c eu_search.c health.c hist.c init.c job.c kmsg.c loader.c loads.c main.c measure.c monitor.c \
	object.c oracle.c pool.c ports.c program.c scx.c selftest.c sha256.c starving.c stream.c topology.c util.c world.c \
	-lbpf -lelf -lz -lzstd
"$work/testbed-runner" selftest > "$work/selftest" || {
	grep -v "^ok" "$work/selftest" >&2
	exit 1
}
cp "$work/testbed-runner" "$out/testbed-runner.new"
mv "$out/testbed-runner.new" "$out/testbed-runner"
