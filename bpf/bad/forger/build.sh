#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# build.sh SOURCE OUT: builds SOURCE/forger.c with its scheduler to OUT/forger. Runs in the
# builder root; wants clang and bpftool, libbpf's headers, VMLINUX_H (the guest kernel's)
# and SCX_INCLUDE (tools/sched_ext/include of its source).
set -eu
source=$1
out=$2
clang=${CLANG:-clang-22}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$VMLINUX_H" "$work/vmlinux.h"
"$clang" -g -O2 -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Wall -Wno-compare-distinct-pointer-types \
	-fms-extensions -Wno-microsoft-anon-tag -I"$SCX_INCLUDE" -I"$work" ${BPF_CFLAGS:-} \
	-c "$source/stall.bpf.c" -o "$work/stall.o"
bpftool gen object "$work/forger.o" "$work/stall.o"
bpftool gen skeleton "$work/forger.o" name forger >"$work/forger.skel.h"
"$clang" -O2 -Wall -Wextra -I"$work" "$source/forger.c" -o "$out/forger" ${LDFLAGS:-} -lbpf -lelf -lz
