#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# build.sh SOURCE OUT: builds SOURCE/*.c to OUT/schbench, a static binary. The same
# compiler gives the same bytes, wherever SOURCE and OUT are.
set -eu
source=$1
out=$2
cd "$source"
LC_ALL=C ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -pthread -fno-ident \
	-Wl,--build-id=none -s -o "$out/schbench" schbench.c model.c histogram.c -lm
