#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's customize hook: packages.sh ROOT WANTED. Downloads what the image needs beside the installed packages into
# ROOT/testbed and writes down which packages there are. WANTED has lines of `kind value…`:
#   kernel VERSION        the locked kernel, tried first (the part of the package's name between linux-base- and -FLAVOUR-ARCH)
#   flavour NAME          e.g. cloud
#   option CONFIG_X=y     the kernel must have it
#   deb NAME              download
#   source NAME [VERSION] download, this version if it is still there
set -eu
root=$1
wanted=$2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C
out=$root/testbed
mkdir -p "$out/debs" "$out/source" "$out/metadata"
arch=$(dpkg --print-architecture)
wants() { sed -n "s/^$1 //p" "$wanted"; }

# get ARGUMENTS: apt-get, which as root would otherwise complain that its own user can't write here
get() { apt-get -qq -o APT::Sandbox::User=root "$@"; }

cd "$out/debs"
get download $(wants deb) # the preferences pin the locked versions

# the newest kernel of the flavour that has what we ask for; its config says so, not its name
flavour=$(wants flavour)
chosen=
newest=$(apt-cache pkgnames linux-base- | sed -n "s/^linux-base-\([0-9].*\)-$flavour-$arch\$/\1/p" | sort -rV)
for release in $(wants kernel) $newest; do
    base=linux-base-$release-$flavour-$arch
    get download "$base" 2>/dev/null || continue
    deb=$(ls "${base}"_*.deb)
    dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards './usr/lib/modules/*/config' > "$out/config" || : > "$out/config"
    if wants option | while read -r option; do grep -qx "$option" "$out/config" || exit 1; done; then
        chosen=$release
        break
    fi
    echo "testbed: $base lacks an option that the image needs" >&2
    rm -f "$deb"
done
if [ -z "$chosen" ]; then
    echo "testbed: no packaged kernel of flavour $flavour has the options that the image needs" >&2
    exit 1
fi
version=$(dpkg-deb -f "$deb" Version)
series=$(echo "$chosen" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
deb_names=
for name in "linux-binary-$chosen-$flavour-$arch" "linux-modules-$chosen-$flavour-$arch" "linux-source-$series"; do
    deb_names="$deb_names $name=$version"
done
get download $deb_names
echo "$chosen $chosen-$flavour-$arch $version" > "$out/kernel"

cd "$out/source"
wants source | while read -r name version; do
    if [ -z "$version" ] || ! get source --download-only "$name=$version" 2>/dev/null; then
        get source --download-only "$name"
    fi
done

# apt has checked these hashes against the signed Release files
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${binary:Package}=${Version}\n' > "$out/installed"
: > "$out/metadata/downloaded"
for deb in "$out"/debs/*.deb; do
    dpkg-deb -W --showformat '${Package}=${Version}\n' "$deb" >> "$out/metadata/downloaded"
done
xargs apt-cache show < "$out/installed" > "$out/metadata/installed.packages"
xargs apt-cache show < "$out/metadata/downloaded" > "$out/metadata/downloaded.packages"
