# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2046,SC2009
# What happens on the host of test_host_watcher.py; sourced by its init. `@@NAME CODE JSON` is what the tests read.

# told NAME COMMAND ARG...: each line that it says, with its exit code
told() {
    name=$1; shift
    "$@" >/tmp/told; rc=$?
    grep -v '^{"event":"sample"' /tmp/told | while read -r line; do echo "@@$name $rc $line"; done
}
kernel() { echo "@@$1 0 {\"state\": \"$(cat $X/state)\", \"ops\": \"$(cat $X/root/ops 2>/dev/null)\"}"; }
X=/sys/kernel/sched_ext
id() { testbed-host stage /bundles/$1 | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/'; }
beats() { while :; do echo; sleep 1; done; }
follow() { beats | testbed-host follow; }
canary() { testbed-host forgive $(id $1) >/dev/null; told $2-start testbed-host start $(id $1); }
pid() { for p in $(pidof testbed-host); do tr '\0' ' ' </proc/$p/cmdline | grep -q " $1" && echo $p; done; }
gone() { while [ -n "$(pid watch)" ]; do sleep 0.2; done; }
rules() { cp /policies/$1.json /etc/testbed/promotion.json; }

rules scopes
canary global_fifo kept; told kept follow; told kept-status testbed-host status
(while :; do sleep 0.01; done) & busy=$!	# it ejects itself after 500 decisions
canary ejects_itself restored; told restored follow; sleep 8; kill $busy; told restored-status testbed-host status
told stopped testbed-host stop; kernel stopped-kernel

rules plain
canary global_fifo eof; told eof testbed-host follow </dev/null; gone; kernel eof-kernel
canary global_fifo cut; beats | testbed-host follow >/dev/null & sleep 2; kill -9 $(pid follow); gone
kernel cut-kernel; told cut-status testbed-host status
canary global_fifo killed; kill -9 $(pid watch); sleep 1; kernel killed-kernel; told killed-status testbed-host status
told killed-stop testbed-host stop; told killed-after testbed-host status
canary global_fifo term; kill -TERM $(pid watch); gone; kernel term-kernel

printf '#!/bin/sh\n[ ! -e /tmp/sick ]\n' >/etc/testbed/health; chmod 755 /etc/testbed/health
canary global_fifo health; (sleep 2; touch /tmp/sick) & told health follow; gone; kernel health-kernel
canary global_fifo sick; gone; rm /etc/testbed/health /tmp/sick
canary global_fifo memory; (sleep 1; dd if=/dev/zero of=/tmp/room/fill bs=1M count=700 2>/dev/null) & told memory follow
rm -f /tmp/room/fill; gone; kernel memory-kernel

canary init_fails init; gone; kernel init-kernel
canary scx_simple program; p=$(pidof scx_simple ld-linux-x86-64.so.2)
# shellcheck disable=SC2086
echo "@@confined 0 {\"text\": \"$(grep -h 'Uid\|CapEff\|NoNewPrivs' /proc/$p/status | tr '\n\t' '  ')$(cat /proc/$p/cgroup)\"}"
kill -9 $p; told program follow; gone; kernel program-kernel
canary scx_simple orphan; kill -9 $(pid watch); sleep 1; kernel orphan-kernel; told orphan-stop testbed-host stop

P=/tmp/room/program; cp -r /bundles/scx_simple/files $P; chmod -R 755 $P
$P/lib/ld-linux-x86-64.so.2 --library-path $P/lib $P/bin/scx_simple >/dev/null 2>&1 & sleep 4
canary global_fifo other; told other-status testbed-host status; told other-stop testbed-host stop; kernel other-kernel
# As if it had been ours, and its watcher dead.
sed -i "s/\"ops\": \".*\"/\"ops\": \"simple\"/; s/\"enable_seq\": [0-9]*/\"enable_seq\": $(cat $X/enable_seq)/" /var/lib/testbed/current
told left-status testbed-host status; told left-stop testbed-host stop; kernel left-kernel; killall -q ld-linux-x86-64.so.2 scx_simple

rules persist
canary global_fifo boot; told boot follow; kill -9 $(pid watch); sleep 1
echo 11111111-2222-3333-4444-555555555555 >/tmp/boot; mount -o bind /tmp/boot /proc/sys/kernel/random/boot_id
told boot-before testbed-host status; testbed-host watch >>/tmp/watch.log 2>&1 </dev/null & sleep 8
told boot-after testbed-host status; kernel boot-kernel
kill -9 $(pid watch); sleep 1; rules plain; echo 11111111-2222-3333-4444-666666666666 >/tmp/boot
told again testbed-host watch; told again-status testbed-host status; kernel again-kernel
told history testbed-host history
