#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh SRC BUILD OUT [NAME VERSION SHA256]…, run in the root with cargo, without a network: SRC is what fetch.sh gave,
# OUT gets bin/NAME.
set -eu
src=$1
build=$2
out=$3
shift 3
export CARGO_HOME="$build/cargo" CARGO_TARGET_DIR="$build/target"
BPF_CLANG=$(ls /usr/bin/clang-[0-9]* | sort -V | tail -n 1)
export BPF_CLANG
mkdir -p "$CARGO_HOME"
cat > "$CARGO_HOME/config.toml" <<CONFIG
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "$src/vendor"
CONFIG
cp -r "$src/src" "$build/src"
while [ $# -gt 0 ]; do
    cargo install --quiet --offline --locked --no-track --path "$build/src/$1-$2" --root "$out"
    shift 3
done
