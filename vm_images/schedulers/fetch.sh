#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch.sh BUILD OUT [NAME VERSION SHA256]…, run in the root with cargo, with a network: the crates and everything that
# their lock files name. Nothing of theirs is run. OUT gets
#   src/NAME-VERSION/   the crates, unpacked
#   vendor/             what they need
set -eu
build=$1
out=$2
shift 2
export CARGO_HOME="$build/cargo"
mkdir -p "$out/src"
cd /tmp # from here cargo finds the configuration of the machine's owner

manifests=
while [ $# -gt 0 ]; do
    cargo info --quiet "$1@$2" > /dev/null # the one command that downloads a crate and resolves nothing
    crate=$(ls "$CARGO_HOME"/registry/cache/*/"$1-$2.crate")
    if ! echo "$3  $crate" | sha256sum --check --quiet; then
        echo "testbed: $1 $2 is not the crate that schedulers.toml names" >&2
        exit 1
    fi
    tar -xzf "$crate" -C "$out/src"
    manifests="$manifests --sync $out/src/$1-$2/Cargo.toml"
    first=${first:-$out/src/$1-$2/Cargo.toml}
    shift 3
done
# shellcheck disable=SC2086  # a list of options
cargo vendor --quiet --locked --versioned-dirs --manifest-path "$first" $manifests "$out/vendor" > /dev/null
