#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's customize hook: packages.sh ROOT WANTED. Downloads a packaged kernel into ROOT/testbed/debs and writes down
# which it is. WANTED has lines of `kind value…`:
#   version VERSION       the kernel's, or how it begins (6.17, 6.17.13+deb13); none: the newest one of another series
#   other SERIES          than this one (7.3), if there is no `version`; more than once
#   flavour NAME          e.g. cloud
#   option CONFIG_X=y     the kernel must have it
# Without such a kernel ROOT/testbed/kernel is missing, and ROOT/testbed/refused says which ones lack what.
set -eu
root=$1
wanted=$2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C
out=$root/testbed
mkdir -p "$out/debs" "$out/metadata"
arch=$(dpkg --print-architecture)
wants() { sed -n "s/^$1 //p" "$wanted"; }

# get ARGUMENTS: apt-get, which as root would otherwise complain that its own user can't write here
get() { apt-get -qq -o APT::Sandbox::User=root "$@"; }

cd "$out/debs"
version=$(wants version)
others=" $(wants other | tr '\n' ' ') "
flavour=$(wants flavour)
: > "$out/refused"
# Since 7.x a kernel is in three packages, of which linux-base has the configuration; before it is in linux-image.
newest=$( (apt-cache pkgnames linux-base-; apt-cache pkgnames linux-image-) |
    sed -n "s/^linux-[a-z]*-\([0-9].*\)-$flavour-$arch\$/\1/p" | sort -rVu)
chosen=
without=" "
for release in $newest; do
    series=$(echo "$release" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
    if [ -n "$version" ]; then
        case $release in "$version" | "$version"[.+-]*) ;; *) continue ;; esac
    else
        case $others in *" $series "*) continue ;; esac
    fi
    # a series that lacks an option lacks it in each of its releases
    case $without in *" $series "*) continue ;; esac
    name=linux-base-$release-$flavour-$arch
    get download "$name" 2>/dev/null || { name=linux-image-$release-$flavour-$arch; get download "$name" 2>/dev/null; } ||
        continue
    deb=$(ls "${name}"_*.deb)
    dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards './usr/lib/modules/*/config' './boot/config-*' \
        > "$out/config" 2>/dev/null || :
    # without one it is an empty package that asks for a linux-base which the mirror has dropped
    [ -s "$out/config" ] || { rm -f "$deb"; continue; }
    lacks=$(wants option | while read -r option; do grep -qx "$option" "$out/config" || echo "$option"; done)
    if [ -z "$lacks" ]; then
        chosen=$release
        break
    fi
    echo "$release $(echo "$lacks" | tr '\n' ' ')" >> "$out/refused"
    without="$without$series "
    rm -f "$deb"
done
: > "$out/metadata/downloaded"
if [ -n "$chosen" ]; then
    package=$(dpkg-deb -f "$deb" Version)
    case $name in
        linux-base-*) get download "linux-binary-$chosen-$flavour-$arch=$package" "linux-modules-$chosen-$flavour-$arch=$package" ;;
    esac
    echo "$chosen-$flavour-$arch $package" > "$out/kernel"
    for deb in "$out"/debs/*.deb; do
        dpkg-deb -W --showformat '${Package}=${Version}\n' "$deb" >> "$out/metadata/downloaded"
    done
fi
# apt has checked these hashes against the signed Release files
xargs -r apt-cache show < "$out/metadata/downloaded" > "$out/metadata/downloaded.packages"
