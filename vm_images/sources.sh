#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's setup hook: sources.sh ROOT SUITE PREFERENCES. Adds backports and the source packages to whatever
# mirrors are configured, and the preferences that pin the locked versions.
set -eu
root=$1
suite=$2
list=$(cat "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*.list 2>/dev/null || true)
{
    echo "$list" | grep -v -- "-backports " | sed -n 's/^deb /deb-src /p'
    if ! echo "$list" | grep -q " $suite-backports "; then
        echo "$list" | sed -n "s/^\(deb .*\) $suite main.*/\1 $suite-backports main/p"
    fi
} > "$root/etc/apt/sources.list.d/testbed.list"
cp "$3" "$root/etc/apt/preferences.d/testbed"
