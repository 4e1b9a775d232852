#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Builds the program for hosts, inside the builder root: build.sh SRC OUT RUNNER [ROOT]. The same sources give the same bytes.
# RUNNER is the folder of the guest's runner, for what both do alike and what Debian's libelf.a lacks.
# ROOT is for tests: a program that finds everything below that directory instead of `/` (`.` is the working directory).
# libbpf is the builder root's, as for the guest's runner: what was judged is loaded as it was judged.
set -eu
src=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
runner=$(cd "$3" && pwd)
export LC_ALL=C
define=
if [ -n "${4:-}" ]; then define="-DTESTBED_ROOT=\"$4\""; fi
cd "$src"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -ffile-prefix-map="$src"=host -ffile-prefix-map="$runner"=runner -I"$runner" \
	${define:+"$define"} -Wall -Wextra -Werror \
	-fstack-protector-strong -D_FORTIFY_SOURCE=2 -static -pthread -Wl,--build-id=none -Wl,-s -o "$out/testbed-host.new" \
	audit.c bundle.c evidence.c facts.c hands.c health.c json.c kmsg.c law.c load.c main.c probe.c program.c promoter.c record.c \
	scribe.c scx.c socket.c spawn.c util.c verify.c watch.c "$runner/eu_search.c" "$runner/loader.c" \
	-lbpf -lelf -lz -lzstd -ljson-c -lsodium
mv "$out/testbed-host.new" "$out/testbed-host"
