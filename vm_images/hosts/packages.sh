#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's customize hook: packages.sh ROOT WANTED. Makes the users that log in, and writes down which packages there
# are into ROOT/testbed; WANTED is empty, nothing is downloaded beside them.
set -eu
root=$1
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C
out=$root/testbed
mkdir -p "$out/metadata"
# No password fits `*`, and unlike `!` it does not lock the account.
chroot "$root" usermod --password '*' root
chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 --password '*' promoter
# apt has checked these hashes against the signed Release files
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${binary:Package}=${Version}\n' > "$out/installed"
xargs apt-cache show < "$out/installed" > "$out/metadata/installed.packages"
