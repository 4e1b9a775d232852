#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh PACKAGES BUILD OUT, run in the builder root. PACKAGES holds the kernel's Debian packages; OUT gets
#   vmlinuz, config, modules.builtin, modules/*.ko.xz
#   include/          what a scheduler is compiled against: scx/, bpf/, bpf-compat/, uapi/, vmlinux.h of this very kernel
#   lib/libbpf.a      the libbpf of the same source
#   examples/         the kernel's example schedulers: bin/, obj/ (BPF objects), src/; selftests/: those it is tested with
set -eu
packages=$1
build=$2
out=$3
clang=$(ls /usr/bin/clang-[0-9]* | sort -V | tail -n 1)

mkdir -p "$build/o" "$build/base" "$build/binary" "$out/modules" "$out/include" "$out/lib" "$out/examples/bin" "$out/examples/obj" \
    "$out/examples/src" "$out/examples/selftests"
dpkg-deb -x "$packages"/linux-base-[0-9]*.deb "$build/base"
dpkg-deb -x "$packages"/linux-binary-[0-9]*.deb "$build/binary"
cp "$build"/base/usr/lib/modules/*/config "$out/config"
cp "$build"/base/usr/lib/modules/*/modules.builtin "$build"/base/usr/lib/modules/*/modules.builtin.modinfo \
    "$build"/base/usr/lib/modules/*/modules.order "$out"
cp "$build"/binary/usr/lib/modules/*/vmlinuz "$out/vmlinuz"
dpkg-deb --fsys-tarfile "$packages"/linux-modules-[0-9]*.deb |
    tar -x -C "$out/modules" --wildcards --no-anchored --transform 's|.*/||' '*.ko*'

# vmlinux, for its BTF: the payload of the bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, -length)
number() { od -An -j "$1" -N "$2" -t "u$2" "$out/vmlinuz" | tr -d ' '; }
start=$((($(number 497 1) + 1) * 512 + $(number 584 4)))
length=$(number 588 4)
payload() { tail -c "+$((start + 1))" "$out/vmlinuz" | head -c "$1"; }
# all formats but gzip are followed by the size in 4 bytes
case $(payload 4 | od -An -t x1 | tr -d ' ') in
    28b52ffd) payload $((length - 4)) | zstd -qdc ;;
    fd377a58) payload $((length - 4)) | xz -dc ;;
    02214c18) payload $((length - 4)) | lz4 -dc ;;
    1f8b*) payload "$length" | gzip -dc ;;
    *) echo "the kernel's payload is compressed in a way that is not known here" >&2; exit 1 ;;
esac > "$build/vmlinux"
bpftool btf dump file "$build/vmlinux" format c > "$build/vmlinux.h"

dpkg-deb --fsys-tarfile "$packages"/linux-source-[0-9]*.deb | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
    xz -T0 -dc | tar -x -C "$build" --wildcards --strip-components=1 '*/tools/sched_ext' '*/tools/lib' '*/tools/testing/selftests/sched_ext' \
    '*/tools/include' '*/tools/build' '*/tools/scripts' '*/tools/bpf/bpftool' '*/tools/arch/x86/include' '*/scripts/bpf_doc.py'
tools=$build/tools
jobs=$(nproc)
make -s -j "$jobs" -C "$tools/sched_ext" O="$build/o" VMLINUX_BTF="$build/vmlinux" VMLINUX_H="$build/vmlinux.h" \
    CLANG="$clang" BPFTOOL=/usr/sbin/bpftool

cp -r "$tools"/sched_ext/include/* "$out/include/"
cp -r "$build/o/build/include/bpf" "$out/include/bpf"
cp -r "$tools/include/uapi" "$out/include/uapi"
cp "$build/vmlinux.h" "$out/include/vmlinux.h"
cp "$build/o/build/obj/libbpf/libbpf.a" "$out/lib/libbpf.a"
for program in "$build"/o/build/bin/*; do
    name=${program##*/}
    strip -o "$out/examples/bin/$name" "$program"
    cp "$build/o/build/obj/sched_ext/$name.bpf.o" "$out/examples/obj/"
    cp "$tools/sched_ext/$name.bpf.c" "$tools/sched_ext/$name.c" "$out/examples/src/"
    if [ -e "$tools/sched_ext/$name.h" ]; then cp "$tools/sched_ext/$name.h" "$out/examples/src/"; fi
done
cp "$tools"/testing/selftests/sched_ext/*.bpf.c "$tools"/testing/selftests/sched_ext/*_test.h "$out/examples/selftests/"
