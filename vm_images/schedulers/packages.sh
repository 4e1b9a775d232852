#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's customize hook: packages.sh ROOT WANTED. Writes down which packages there are into ROOT/testbed; WANTED is
# empty, nothing is downloaded beside them.
set -eu
root=$1
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C
out=$root/testbed
mkdir -p "$out/metadata"
# apt has checked these hashes against the signed Release files
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${binary:Package}=${Version}\n' > "$out/installed"
xargs apt-cache show < "$out/installed" > "$out/metadata/installed.packages"
