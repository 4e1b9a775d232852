#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds the testbed's QEMU: Debian 13's source with parallel virtual time.
# Runs inside the builder root (Debian 13), without network.
#
#   build.sh SRC_DIR BUILD_DIR OUT_DIR
#
# SRC_DIR    holds the archives of Debian's source package (*.orig.tar.xz and
#            *.debian.tar.xz)
# BUILD_DIR  scratch, emptied first
# OUT_DIR    gets qemu-system-x86_64, qemu-img, timing_probe (a static guest
#            program) and SHA256SUMS
#
# Of Debian's patches only those two are applied that its repacked source
# needs; the others are for other machines or for Debian's own packaging.
set -eu

VERSION=10.0.13
DEBIAN_PATCHES="skip-unpack-edk2-blobs.patch disable-pycotap.patch"

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

[ $# -eq 3 ] || fail "$# arguments found, expected SRC_DIR BUILD_DIR OUT_DIR"
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$1" ] || fail "no directory $1; it has to hold the source archives"
src=$(cd "$1" && pwd)
mkdir -p "$2" "$3"
build=$(cd "$2" && pwd)
out=$(cd "$3" && pwd)
jobs=${JOBS:-$(nproc)}

one() {
    # The one file that fits a pattern.
    [ $# -eq 1 ] && [ -f "$1" ] ||
        fail "$# files found in $src for $1, expected one;" \
             "get them with: apt-get source --download-only qemu"
    echo "$1"
}
orig=$(one "$src"/qemu_"$VERSION"*.orig.tar.xz)
debian=$(one "$src"/qemu_"$VERSION"*.debian.tar.xz)

rm -rf "$build/source" "$build/debian" "$build/build"
mkdir "$build/source" "$build/build"
tar --no-same-owner -xJf "$orig" -C "$build/source" --strip-components=1
tar --no-same-owner -xJf "$debian" -C "$build" debian/patches
cd "$build/source"
for name in $DEBIAN_PATCHES; do
    patch -p1 -s --fuzz=0 < "$build/debian/patches/$name"
done
patch -p1 -s --fuzz=0 < "$here/hooks.patch"
cp "$here/icount-parallel.c" accel/tcg/
cp "$here/icount-parallel.h" include/system/

# The same bytes wherever it is built: no build paths, no debug information,
# no clock, and no random order in what QEMU's Python scripts generate.
SOURCE_DATE_EPOCH=$(stat -c %Y "$build/source/VERSION")
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC PYTHONHASHSEED=0
cd "$build/build"
../source/configure \
    --prefix=/usr \
    --with-pkgversion="Debian $VERSION, parallel virtual time" \
    --target-list=x86_64-softmmu \
    --without-default-features \
    --enable-system --enable-tcg --enable-kvm --enable-tools \
    --enable-attr --enable-virtfs --enable-vhost-kernel --enable-vhost-user \
    --disable-docs --disable-werror --disable-download \
    --disable-install-blobs --disable-debug-info \
    --extra-cflags="-ffile-prefix-map=$build=." > configure.log 2>&1 ||
    { tail -20 configure.log >&2; fail "configure failed"; }
ninja -j"$jobs" qemu-system-x86_64 qemu-img > ninja.log 2>&1 ||
    { tail -30 ninja.log >&2; fail "the build failed"; }

for name in qemu-system-x86_64 qemu-img; do
    strip -o "$out/$name.new" "$name"
    mv "$out/$name.new" "$out/$name"
done
gcc -O2 -Wall -Wextra -static -pthread \
    -ffile-prefix-map="$here=." -o "$out/timing_probe.new" \
    "$here/timing_probe.c"
mv "$out/timing_probe.new" "$out/timing_probe"
cd "$out"
sha256sum qemu-system-x86_64 qemu-img timing_probe > SHA256SUMS
cat SHA256SUMS
