# SPDX-License-Identifier: Apache-2.0
"""Every finding code: what it means, why it matters, what usually causes it, the smallest fix, an example.

`testbed explain CODE` prints an entry; docs/reference/codes.md is generated from them. A code is never renamed and
never gets a new meaning: scripts and agents lean on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.errors import UsageError
from testbed.lint import texts as lint
from testbed.status import Status
from testbed.yamlfile import did_you_mean


@dataclass(frozen=True)
class Entry:
    """One code of the catalogue.

    Attributes:
        code: the stable word.
        title: fingerprint of a finding, to which ` in SCENARIO` is added.
        family: heading under which the code is listed.
        status: what a finding of this code says: FAIL blames the candidate, ERROR the test, DONE is advice.
        meaning: what was seen.
        why: why that matters.
        cause: what in a scheduler (or machine) usually does that; becomes the `cause` of a finding.
        fix: the smallest change that helps; becomes the `hint` of a finding.
        example: a few lines that produce it, or the message to look for.
    """

    code: str
    title: str
    family: str
    status: Status
    meaning: str
    why: str
    cause: str
    fix: str
    example: str


EJECTED = "The kernel ejected the scheduler"
STUCK = "The machine stood still"
SLOW = "Tasks waited or work was lost"
LEAVING = "Attaching and leaving"
BUILD = "Build and verifier"
TRUST = "Integrity"
TEST = "The test broke (ERROR, never the candidate's fault)"
BENEFIT = "Worse than the baseline"

_FAIL, _ERROR, _DONE = Status.FAIL, Status.ERROR, Status.DONE

_ENTRIES = (
    # --- ejected ---------------------------------------------------------------------------------------------
    Entry(
        "runnable-task-stall",
        "runnable task stall",
        EJECTED,
        _FAIL,
        "A task was runnable and did not run for longer than the scheduler's `timeout_ms`; the kernel's watchdog "
        "ejected the scheduler (exit kind 1026).",
        "On a host the task may be sshd, a database or a kernel worker. Until the watchdog looks, up to 30 s pass.",
        "a task was taken by ops.enqueue() and never put into a DSQ that somebody drains, or its DSQ is drained only "
        "by CPUs that the task may not use",
        "give every task that ops.enqueue() sees to scx_bpf_dsq_insert(), and make ops.dispatch() of each CPU that the "
        "task may use consume that DSQ; kick an idle CPU after inserting into a shared DSQ",
        "    void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)\n"
        "    {\n"
        "            if (p->pid % 5 == 0)\n"
        "                    return;        /* this task never runs again */\n"
        "            scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);\n"
        "    }",
    ),
    Entry(
        "scheduler-error",
        "runtime error of the scheduler",
        EJECTED,
        _FAIL,
        "The scheduler did something that sched_ext forbids; the kernel ejected it (exit kind 1024 and above, except "
        "1025 and 1026).",
        "The machine falls back to EEVDF at a moment that nobody chose, and the promise of the scheduler ends.",
        "an operation that the kernel checks at run time: a CPU that the task may not use, a DSQ that does not exist",
        "read the message of the kernel in the finding: it names the call; check its arguments before the call "
        "(bpf_cpumask_test_cpu(cpu, p->cpus_ptr), existing DSQ, p->migration_disabled)",
        "    scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | 0, SCX_SLICE_DFL, 0);  /* p may not run on CPU 0 */",
    ),
    Entry(
        "self-ejected",
        "scheduler ejected itself",
        EJECTED,
        _FAIL,
        "The BPF side called scx_bpf_error() or scx_bpf_exit(): the scheduler left without being asked (exit kind 1025 "
        "or 65).",
        "A scheduler that leaves by itself can't be relied upon, and whoever watches it can't tell this from a fault.",
        "an assertion of its own that does not hold on a busy machine, or scx_bpf_exit() on a path that one reaches",
        "handle the condition and go on; leave only when user space asks",
        '    scx_bpf_exit(0, "too many tasks");',
    ),
    Entry(
        "unregistered-itself",
        "scheduler left by itself",
        EJECTED,
        _FAIL,
        "The scheduler was unregistered from user space, or was gone, although the testbed had not asked for it.",
        "When the program that owns the struct_ops link ends, its scheduler ends with it.",
        "the program ended or crashed: a wrong option, a failed assertion, a signal",
        "run the program by hand with the same options and look at its exit status; its output is in the stream",
        "    scx_bpfland --no-such-option",
    ),
    Entry(
        "unregistered-by-kernel",
        "scheduler unregistered by the kernel",
        EJECTED,
        _FAIL,
        "The kernel ended the scheduler for a reason of its own (exit kind 66 or 67), e.g. a CPU hotplug sequence that "
        "did not match. (A CPU that goes or comes while it runs is no fault: see restart-requested.)",
        "A scheduler that the kernel ends is gone when nobody expects it.",
        "an outdated `hotplug_seq`, or somebody who pressed sysrq-S",
        "open the object right before it is attached, so that `hotplug_seq` is the present one",
        '    sched_ext: BPF scheduler "x" disabled (unregistered from the main kernel)',
    ),
    Entry(
        "restart-requested",
        "restart requested after CPU hotplug",
        EJECTED,
        _DONE,
        "A CPU went offline or came online, and the scheduler left with a request to be started again: the kernel does "
        "that for a scheduler without ops.cpu_online() and ops.cpu_offline() (exit kind 66, SCX_ECODE_ACT_RESTART and "
        "SCX_ECODE_RSN_HOTPLUG), or the scheduler did it itself with scx_bpf_exit().",
        "That is legal. Until somebody starts it again EEVDF schedules the machine; suspend takes CPUs away too.",
        "no ops.cpu_online() and ops.cpu_offline(), as in most small schedulers",
        "implement both to stay, and drain the queue of a CPU that has gone from other CPUs; or let the program that "
        "loads it start it again on SCX_ECODE_ACT_RESTART",
        "    sched_ext: x: cpu 1 going offline, exiting scheduler",
    ),
    Entry(
        "restart-loop",
        "scheduler restarted by itself",
        EJECTED,
        _FAIL,
        "`enable_seq` moved although the testbed attached nothing: the scheduler left and came back.",
        "Each restart is a gap without the scheduler, and the reason of the exit is hidden from whoever looks later.",
        "a program that attaches again after an exit, around a fault that it does not report",
        "report the exit and end; let the owner of the machine decide about a restart",
        "    restart: skel = scx_ops_open(); ...; if (UEI_ECODE_RESTART(ecode)) goto restart;",
    ),
    # --- stood still -----------------------------------------------------------------------------------------
    Entry(
        "soft-lockup",
        "soft lockup",
        STUCK,
        _FAIL,
        "A CPU did not reschedule for the soft-lockup threshold: the kernel said so, or ejected the scheduler "
        "shortly before.",
        "That CPU does nothing else. With several of them the machine is dead.",
        "a long or endless loop in ops.dispatch(), many CPUs fighting for one DSQ, or a slice that never ends on a CPU "
        "where kernel threads wait",
        "bound every loop in ops.dispatch(); return when nothing was moved; never dispatch the same task again without "
        "letting it run",
        "    watchdog: BUG: soft lockup - CPU#1 stuck for 8s!",
    ),
    Entry(
        "hard-lockup",
        "hard lockup",
        STUCK,
        _FAIL,
        "A CPU did not take interrupts for the hard-lockup threshold.",
        "Nothing inside the machine can help any more; a host has to be reset.",
        "live-lock on a DSQ lock with interrupts off: many affine tasks in one queue and all CPUs directed at it",
        "spread tasks over per-CPU or per-LLC queues; do not scan a long DSQ from every CPU",
        "    watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1",
    ),
    Entry(
        "rcu-stall",
        "RCU stall",
        STUCK,
        _FAIL,
        "An RCU grace period did not end in time: a CPU or a task inside an RCU section did not come to run.",
        "Memory is no longer freed, and everything that waits for a grace period stands still.",
        "a task that was preempted inside an RCU section, or the RCU kernel thread itself, waits in a queue that is "
        "not drained",
        "let kernel threads run soon: insert tasks with PF_KTHREAD and one allowed CPU into SCX_DSQ_LOCAL directly",
        "    rcu: INFO: rcu_preempt detected stalls on CPUs/tasks",
    ),
    Entry(
        "hung-task",
        "hung task",
        STUCK,
        _FAIL,
        "A task was blocked for longer than the hung-task threshold, waiting for something that another task should "
        "do.",
        "What it waits for (a lock, I/O, a worker) is held by a task that the scheduler does not run.",
        "the holder of a lock or a kernel worker starves",
        "look at the hung task's stack in the console, find who holds the lock, and see why that task is not "
        "dispatched",
        "    INFO: task kworker/0:1:11 blocked for more than 10 seconds.",
    ),
    Entry(
        "kernel-oops",
        "kernel oops",
        STUCK,
        _FAIL,
        "The kernel hit a bug or a fault while the candidate was scheduling.",
        "Memory of the kernel can't be trusted afterwards.",
        "a kernel bug that the scheduler's behaviour reaches: attach and detach under load, cgroup moves, cookies",
        "reduce the scheduler to the call that triggers it and report it to the sched_ext list; avoid the call "
        "meanwhile",
        "    BUG: kernel NULL pointer dereference, address: 0000000000000018",
    ),
    Entry(
        "kernel-panic",
        "kernel panic",
        STUCK,
        _FAIL,
        "The kernel gave up while the candidate was scheduling.",
        "A host would have gone down.",
        "see the lines before the panic: usually a lock-up or an oops that was told to panic",
        "repair what the lines before the panic name",
        "    Kernel panic - not syncing: softlockup: hung tasks",
    ),
    Entry(
        "kernel-warning",
        "kernel warning",
        STUCK,
        _FAIL,
        "The kernel printed a warning with a stack (`WARN_ON`) that the baseline does not have.",
        "A warning is a broken assumption inside the kernel; what follows it is undefined.",
        "a path of sched_ext that the kernel's authors thought impossible",
        "look at the first function of ours in the stack; report it to the sched_ext list if the scheduler is right",
        "    WARNING: kernel/sched/ext/ext.c:2550 at ...",
    ),
    Entry(
        "machine-locked-up",
        "machine locked up",
        STUCK,
        _FAIL,
        "The runner, a real-time task with locked memory, did not run for a whole watchdog period after the candidate "
        "was being attached; or the guest fell silent.",
        "Nothing in such a machine can report or repair anything. A host would have to be reset.",
        "all CPUs loop inside the scheduler with preemption or interrupts off",
        "bound every loop in ops.dispatch() and ops.select_cpu(); hold no lock while scanning",
        '    outcome.json: "ended": "watchdog"',
    ),
    Entry(
        "machine-reset",
        "machine reset itself",
        STUCK,
        _FAIL,
        "The guest rebooted or powered off in the middle of its job, without a panic on the console.",
        "A triple fault or a silent reset leaves no trace to learn from.",
        "corruption of kernel state under the scheduler, or a program that reboots the machine",
        "look at the last events of the stream, and whether the program calls reboot()",
        '    outcome.json: "ended": "poweroff" without an `end` in the stream',
    ),
    Entry(
        "out-of-memory",
        "guest ran out of memory",
        STUCK,
        _FAIL,
        "The kernel killed processes for want of memory while the candidate was scheduling.",
        "A scheduler's memory is nobody's: no limit holds it, and the machine's processes pay.",
        "maps or storage that grow with every task or event and never shrink",
        "free what belongs to a task in ops.exit_task(); bound every map",
        "    Out of memory: Killed process 123 (canary)",
    ),
    # --- waited ----------------------------------------------------------------------------------------------
    Entry(
        "task-starved",
        "task starved",
        SLOW,
        _FAIL,
        "A task was runnable for longer than the scenario's `starved` limit without running, and the kernel's watchdog "
        "had not ejected the scheduler yet.",
        "A `timeout_ms` of 30 s hides it from the kernel, not from the user.",
        "the task's queue is drained only when others are empty, or its CPU never looks there",
        "drain every queue in turn, or let waiting time raise a task's rank (ageing)",
        "    if (scx_bpf_dsq_move_to_local(HIGH)) return; scx_bpf_dsq_move_to_local(LOW);  /* LOW starves */",
    ),
    Entry(
        "canary-starved",
        "canary starved",
        SLOW,
        _FAIL,
        "A task that sleeps and wakes had to wait far longer than under the baseline, beyond the policy's floor.",
        "Every interactive task, timer and heartbeat on the host behaves like this canary.",
        "new or waking tasks go behind a queue that never gets empty (LIFO, strict priority, endless slice)",
        "let waking tasks in by age: FIFO, or vtime with the wake-up clamped to now minus one slice",
        "    scx_bpf_dsq_insert(p, DSQ, SCX_SLICE_INF, SCX_ENQ_HEAD);",
    ),
    Entry(
        "kworker-starved",
        "kernel workers starved",
        SLOW,
        _FAIL,
        "A work item on every CPU took far longer than under the baseline, or the kernel reported a workqueue lock-up.",
        "Disk, network and memory management run in kernel workers.",
        "per-CPU kernel threads share a queue with user tasks, or sit in a queue that another CPU drains",
        "insert kernel threads with one allowed CPU into SCX_DSQ_LOCAL from ops.enqueue()",
        "    BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 31s!",
    ),
    Entry(
        "rcu-starved",
        "RCU grace periods delayed",
        SLOW,
        _FAIL,
        "Waiting for an RCU grace period took far longer than under the baseline.",
        "Freeing memory, closing namespaces and detaching BPF programs wait for grace periods.",
        "RCU's kernel threads, or tasks preempted inside RCU sections, wait long",
        "let kernel threads run first, and bound the slice of user tasks",
        "    gap of a load of kind `rcu`",
    ),
    Entry(
        "crawl",
        "work crawls",
        SLOW,
        _FAIL,
        "Useful work fell below the policy's share of what the baseline does in the same guest time.",
        "No watchdog of the kernel sees it: every task does run, only hardly ever.",
        "CPUs stay idle beside queued work, tasks are moved or preempted all the time, or slices are so short that "
        "switching eats the CPU",
        "use SCX_SLICE_DFL, kick idle CPUs on enqueue, and do not preempt without a reason",
        "    scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, 1000 /* ns */, enq_flags);",
    ),
    Entry(
        "idle-while-runnable",
        "CPUs idle beside queued work",
        SLOW,
        _FAIL,
        "CPU time stayed idle in a window in which more tasks wanted to run than there are CPUs.",
        "The machine is paid for and not used; latency and throughput suffer together.",
        "a task is enqueued and no idle CPU is kicked, or everything goes to one CPU's queue",
        "after inserting into a shared DSQ, scx_bpf_kick_cpu(scx_bpf_pick_idle_cpu(p->cpus_ptr, 0), SCX_KICK_IDLE); "
        "let ops.dispatch() of every CPU consume the shared DSQ",
        "    s32 BPF_STRUCT_OPS(x_select_cpu, ...) { return 0; }",
    ),
    Entry(
        "unfair-share",
        "equal tasks got unequal shares",
        SLOW,
        _FAIL,
        "Of several tasks that spin all the time, with equal priority and free to use every CPU, one did many times "
        "the work of another one, and under the baseline it did not.",
        "Nobody starves and no CPU idles, so nothing else sees it; but of two users of a machine one waits for hours "
        "for what the other one has in minutes.",
        "a task that has a CPU keeps it while others share the remaining ones: an infinite slice, a queue of one CPU "
        "that no other CPU takes from, or a virtual time that does not grow while the task runs",
        "bound the slice (SCX_SLICE_DFL), let ops.dispatch() of every CPU take from the longest queue or from a shared "
        "one, and charge in ops.stopping() for the time that a task ran",
        "    scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | 0, SCX_SLICE_DFL, enq_flags);  /* all on CPU 0; who is on CPU 1 "
        "stays */",
    ),
    Entry(
        "no-progress",
        "job did not finish",
        SLOW,
        _FAIL,
        "The scenario's job was not over when its limit in guest time was, or a load did not end in time.",
        "Whatever had to be done was not done, although nothing was reported as stuck.",
        "a task that others wait for runs too rarely",
        "look at which step was going on, and at the canaries' worst gaps beside it",
        "    event `limit`, or `wait NAME` that failed",
    ),
    Entry(
        "hotplug-blocked",
        "CPU did not go or come",
        SLOW,
        _FAIL,
        "A CPU did not go offline, or come online, in time under the candidate, and did under the baseline.",
        "Suspend, and whoever takes a CPU away, hang; everything else that waits for hotplug does too.",
        "the kernel waits for its own threads on that CPU (cpuhp, migration helpers, kworkers), and the candidate does "
        "not run them, or its queue for that CPU still holds tasks",
        "insert pinned kernel threads into SCX_DSQ_LOCAL, and let other CPUs drain the queue of one that goes",
        "    step 4 (`cpu`) failed: CPU 1 has not gone offline in time: ETIMEDOUT",
    ),
    Entry(
        "fork-vetoed",
        "fork failed",
        SLOW,
        _FAIL,
        "fork() failed under the candidate and not under the baseline.",
        "An error from ops.init_task() fails the fork and leaves the scheduler enabled: no process can be started, and "
        "nothing tells why.",
        "ops.init_task() returns an error when its own storage is full",
        "size the storage for the tasks of a machine (task storage maps grow by themselves), or go on without it",
        "    if (!bpf_task_storage_get(&ctx, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE)) return -ENOMEM;",
    ),
    Entry(
        "cgroup-vetoed",
        "cgroup call failed",
        SLOW,
        _FAIL,
        "Making, entering or removing a cgroup failed under the candidate and not under the baseline.",
        "An error from ops.cgroup_init() fails mkdir, one from ops.cgroup_prep_move() fails the move, and the "
        "scheduler stays enabled: containers and services no longer start, and nothing tells why.",
        "ops.cgroup_init() or ops.cgroup_prep_move() returns an error when its own storage is full, or for groups that "
        "it does not expect",
        "size the storage for the groups of a machine, free it in ops.cgroup_exit(), or go on without it and return 0",
        "    if (!bpf_map_lookup_elem(&groups, &id)) return -ENOENT;",
    ),
    Entry(
        "memory-grows",
        "memory is lost",
        SLOW,
        _FAIL,
        "After thousands of tasks had lived and died, less memory was free than before, and not so under the baseline.",
        "What a scheduler keeps for tasks that are gone adds up to all memory, in days on a quiet machine.",
        "an entry or an allocation for each task that ops.exit_task() does not free",
        "use task storage, which goes with its task, or delete the entry in ops.exit_task()",
        "    bpf_map_delete_elem(&tasks, &pid);",
    ),
    Entry(
        "tasks-rejected",
        "tasks rejected",
        SLOW,
        _FAIL,
        "The scheduler set `p->scx.disallow` for tasks that asked for it (`nr_rejected` grew).",
        "The tasks run under EEVDF instead, so what was measured is not the candidate.",
        "p->scx.disallow = true in ops.init_task()",
        "schedule all tasks, or say in the ops flags that only some are taken (SCX_OPS_SWITCH_PARTIAL)",
        "    p->scx.disallow = true;",
    ),
    # --- attaching and leaving -------------------------------------------------------------------------------
    Entry(
        "load-failed",
        "scheduler did not load",
        LEAVING,
        _FAIL,
        "The object or program could not be loaded into the guest's kernel, for another reason than the verifier.",
        "What does not load can't be judged, and does not load on a host with this kernel either.",
        "a map, kfunc or struct_ops field that this kernel does not have, or not enough memory",
        "read libbpf's words in the finding; guard newer features with bpf_ksym_exists() or __COMPAT_*",
        "    libbpf: failed to find BTF for extern 'scx_bpf_cpu_rq'",
    ),
    Entry(
        "attach-failed",
        "scheduler did not attach",
        LEAVING,
        _FAIL,
        "The scheduler loaded and was never enabled by us: attaching failed, took too long, or another one was there.",
        "Success of the system call is not success: the state must be `enabled` and the ops ours.",
        "a struct_ops with flags or a timeout that the kernel refuses, or a program that does not attach at all",
        "timeout_ms at most 30000, known flags only; a program must attach by itself and stay",
        "    .timeout_ms = 60000   /* -E2BIG */",
    ),
    Entry(
        "init-failed",
        "initialisation failed",
        LEAVING,
        _FAIL,
        "ops.init(), ops.init_task() or ops.cgroup_init() returned an error while the scheduler was being enabled.",
        "The kernel reports success to the loader and ejects the scheduler: it was never in charge.",
        "scx_bpf_create_dsq() with an id that exists or with SCX_DSQ_FLAG_BUILTIN set, or storage that could not be "
        "had",
        "check what ops.init() creates; return 0 on success, not the value of the last helper",
        "    s32 BPF_STRUCT_OPS_SLEEPABLE(x_init) { return scx_bpf_create_dsq(SCX_DSQ_GLOBAL, -1); }",
    ),
    Entry(
        "verifier-rejected",
        "verifier rejected a program",
        LEAVING,
        _FAIL,
        "The guest kernel's BPF verifier could not prove that a program of the candidate is safe.",
        "The host's kernel of the same version refuses it too.",
        "a pointer that may be NULL is used, a loop has no bound that the verifier sees, or the stack is too large",
        "read the last lines of the verifier's log in the finding: it names the instruction and the value that it "
        "lacks",
        "    R1 invalid mem access 'map_value_or_null'",
    ),
    Entry(
        "detach-failed",
        "scheduler did not detach",
        LEAVING,
        _FAIL,
        "After detaching, the state did not become `disabled`.",
        "A scheduler that can't be taken back is a machine that must be rebooted.",
        "ops.exit() or ops.exit_task() does not come to an end, or the program ignores SIGTERM",
        "keep ops.exit() short, and end the program on SIGINT and SIGTERM",
        "    while (true) sleep(1);   /* without looking at exit_req */",
    ),
    Entry(
        "slow-detach",
        "scheduler detached slowly",
        LEAVING,
        _FAIL,
        "Detaching took longer than the scenario allows, and did succeed later.",
        "During a roll-back every second counts.",
        "many tasks with costly ops.exit_task(), or a program that cleans up before it detaches",
        "destroy the struct_ops link first and clean up afterwards",
        "    step `detach` that failed with state `disabled`",
    ),
    Entry(
        "unhealthy-after-detach",
        "machine unhealthy after detach",
        LEAVING,
        _FAIL,
        "After the scheduler was gone, a simple probe (fork on each CPU, a write, kernel workers, a grace period) "
        "failed or took too long.",
        "The scheduler left damage behind that taking it back does not mend.",
        "tasks that stayed blocked or stopped, leaked kernel state, exhausted memory",
        "look at which probe failed; run attach-detach with fewer cycles to see whether it adds up",
        "    event `health` with `ok: false`",
    ),
    Entry(
        "workload-failed",
        "the user's workload failed",
        SLOW,
        _FAIL,
        "The user's own workload ends well beside EEVDF; beside the candidate it failed, did not end in time, or did "
        "not say what it was run for.",
        "A workload that works no longer is worse than a slow one.",
        "tasks that wait so long that the workload's own time-outs pass, refused forks, a task that never runs",
        "look at its last words in the run's stream; make every task that ops.enqueue() sees run in the end",
        "    `build`: not ended in time; killed; beside EEVDF it does",
    ),
    # --- benefit ---------------------------------------------------------------------------------------------
    Entry(
        "latency-collapse",
        "latency collapsed",
        BENEFIT,
        _FAIL,
        "A latency is many times the baseline's and above the policy's floor.",
        "The machine works and can't be used: requests time out, sound breaks, shells stick.",
        "waking tasks wait behind the whole queue, or behind endless slices",
        "shorter slices while others wait, or preempt for tasks that slept",
        "    schbench.wakeup_latency.p99 of 400 ms against 3 ms",
    ),
    Entry(
        "throughput-collapse",
        "throughput collapsed",
        BENEFIT,
        _FAIL,
        "A rate or a duration is many times worse than the baseline's.",
        "The same work needs many times the machines.",
        "CPUs idle beside queued work, contention on one queue, preemption storms",
        "see `testbed explain crawl` and `testbed explain idle-while-runnable`",
        "    hackbench.time of 12 s against 0.9 s",
    ),
    Entry(
        "workload-worse",
        "the user's workload got worse",
        BENEFIT,
        _FAIL,
        "A metric of the user's own workload is worse than under EEVDF, by more than its file allows and more than "
        "noise.",
        "It is what the machine is there for: no other figure makes up for it.",
        "the workload's tasks wait longer, run on busy CPUs beside idle ones, or lose their caches more often",
        "look at the run's timeline (`testbed report CASE`) and at `wait` and `migrations` of the workload; or raise "
        "`allow_worse` if that much is acceptable",
        "    `build.time` is 3.1 s, the baseline's 2.4 s (medians): worse by 29.2%, allowed are 5.0%",
    ),
    # --- integrity -------------------------------------------------------------------------------------------
    Entry(
        "tampering",
        "tampering with the evidence",
        TRUST,
        _FAIL,
        "Lines that the runner did not write were found in its stream, or the runner or its children were attacked.",
        "A scheduler that forges its own test report is hostile.",
        "the candidate writes to the runner's channel, signals the runner, or kills what measures it",
        "a scheduler has no reason to send signals, write I/O ports or touch processes of the machine: remove it",
        '    4711 deadbeef… {"t":1,"e":"end","ok":true}',
    ),
    Entry(
        "zero-slice",
        "task with zero slice",
        EJECTED,
        _DONE,
        "The kernel noticed a task that was picked with a slice of zero and gave it a default one.",
        "Harmless by itself; slices are then not what the scheduler's author thinks.",
        "scx_bpf_dsq_insert() with slice 0 for a task that has used up its slice",
        "pass SCX_SLICE_DFL, or the slice that is meant",
        "    sched_ext: foo[42] has zero slice in pick_task_scx()",
    ),
    # --- the test broke --------------------------------------------------------------------------------------
    Entry(
        "guest-never-started",
        "guest never started",
        TEST,
        _ERROR,
        "The machine ended, or its time was over, before the runner said `hello`.",
        "Nothing was judged.",
        "a broken image, too little memory, an emulator that does not work here",
        "`testbed doctor`; look at the run's console.log and qemu.log",
        '    outcome.json: "ended": "never_connected"',
    ),
    Entry(
        "other-machine",
        "guest saw another machine",
        TEST,
        _ERROR,
        "The guest's kernel saw other CPUs, cores, last-level caches or NUMA nodes than the run was to have.",
        "What was judged is not the topology that the verdict would name.",
        "an emulator, or a host's CPU model under KVM, that does not pass on what it was asked for; too little memory "
        "for the nodes",
        "see docs/reference/topologies.md for what each clock can do; `--clock sim` has every topology",
        "    asked for 4 CPUs, 2 LLCs; the guest's kernel sees 1 last-level caches (0-3)",
    ),
    Entry(
        "guest-no-status",
        "guest returned no status",
        TEST,
        _ERROR,
        "The guest ended without the runner's `end`, and nothing shows that the candidate did it.",
        "Nothing can be said about the candidate.",
        "the guest went down before the candidate was attached, or while the baseline ran",
        "look at the run's console.log; run again",
        '    outcome.json: "ended": "poweroff" before `attach`',
    ),
    Entry(
        "guest-nonsense",
        "guest returned nonsense",
        TEST,
        _ERROR,
        "The stream has lines that are none, or holes, or ends in a way that contradicts itself.",
        "Evidence with holes proves nothing, neither good nor bad.",
        "a full disk, lost output, a fault of the runner",
        "run again; if it stays, it is a bug of ours: send the case",
        "    stream: sequence jumps from 12 to 40",
    ),
    Entry(
        "guest-paused",
        "guest was paused",
        TEST,
        _ERROR,
        "QEMU stopped the guest: an internal error, a full disk, or somebody stopped it.",
        "The host did this, not the candidate.",
        'KVM that does not work here ("KVM internal error"), no space left, a debugger',
        "`testbed doctor` probes KVM; `--clock sim` needs none",
        '    outcome.json: "ended": "paused", "reason": "internal-error"',
    ),
    Entry(
        "emulator-fault",
        "emulator at fault",
        TEST,
        _ERROR,
        "QEMU ended by itself, or the guest died of a fault of the emulator: `Oops: int3` under multi-threaded "
        "emulation.",
        "A kernel that patches its own text can't be judged under an emulator that runs half-patched text.",
        "QEMU was killed (memory), crashed, or emulates several CPUs by several threads",
        "give the host more memory or run fewer guests at a time; use `sim`, or thread=single",
        "    Oops: int3: 0000 [#1] SMP",
    ),
    Entry(
        "wall-limit",
        "host time limit",
        TEST,
        _ERROR,
        "The run took more host time than it may. Says nothing about the candidate.",
        "Wall-clock limits never reject: a slow host is no crime of a scheduler.",
        "a busy or slow host, too many guests at a time",
        "fewer guests at a time (-j), or a longer `limits.wall` in the scenario",
        '    outcome.json: "ended": "wall_limit"',
    ),
    Entry(
        "clock-jumped",
        "guest clock jumped",
        TEST,
        _ERROR,
        "Guest time went backwards, or jumped while the host had stopped the guest.",
        "Waiting times of such a run are the host's, not the scheduler's.",
        "the host was suspended, the guest stopped and continued, or its CPUs were not run",
        "run again on a quiet host; `sim` does not know host time",
        "    beats with `t` two seconds apart, `late_us` of two seconds",
    ),
    Entry(
        "not-reproduced",
        "failure not reproduced",
        TEST,
        _ERROR,
        "A run failed, and its repetition did not, or was not made. Nothing is reported as the candidate's fault that "
        "was not seen twice.",
        "A failure that can't be repeated may be the host's.",
        "noise of the host (live), or the repetition is missing because the case was interrupted",
        "run again; under `sim` a failure always repeats, so there it is a bug of ours: send the case",
        "    runs/003 failed, runs/004 repeated it and passed",
    ),
    Entry(
        "run-diverged",
        "two runs of the same inputs differ",
        TEST,
        _ERROR,
        "A run under virtual time was repeated with the same inputs and did something else: their digests over "
        "everything that the guest did and said differ.",
        "A verdict that does not repeat can't be trusted, so this is said aloud. A failure that was seen in both runs "
        "stands all the same.",
        "the emulator let something of the host into the guest, or a file of the image or snapshot was changed",
        "send the case: `testbed replay CASE` shows the first place where the runs part",
        "    runs/002 and runs/005 had the same inputs; their digests are 1f3a… and 9c40…",
    ),
    Entry(
        "baseline-crosses-too",
        "baseline crosses the threshold too",
        TEST,
        _ERROR,
        "A threshold was crossed by the candidate, and by EEVDF under the same conditions.",
        "Then the scenario measures the machine, not the scheduler.",
        "a guest that is too small or too slow for the scenario",
        "more CPUs (--cpus), a larger `floor` in the policy, or a lighter load in the scenario",
        "    canary gap 1.8 s, EEVDF 1.4 s, floor 1 s",
    ),
    Entry(
        "baseline-failed",
        "baseline run failed",
        TEST,
        _ERROR,
        "The run without the candidate failed: the guest, the kernel or the scenario is at fault.",
        "There is nothing to compare with, and what the candidate's run shows may not be the candidate.",
        "a kernel bug, a machine that is too small, a scenario that asks too much",
        "look at the baseline's console.log; `testbed doctor`",
        "    baseline: kernel panic",
    ),
    Entry(
        "reference-failed",
        "what it is compared with failed",
        TEST,
        _ERROR,
        "What figures were to be compared with (`--baseline`) failed in this scenario: it was ejected, or the guest "
        "went down under it.",
        "The candidate has no part in that. Its figures here have nothing beside them, so what was asked is open; its "
        "safety is judged against EEVDF as ever.",
        "a baseline with a fault of its own",
        "judge the baseline as a candidate, or compare with another one",
        "    --baseline lifo.bpf.c: runnable task stall",
    ),
    Entry(
        "no-baseline",
        "no baseline to compare with",
        TEST,
        _ERROR,
        "A check needs the baseline's figure, and there is none.",
        "Without a baseline a slow machine and a slow scheduler look the same.",
        "the baseline was not run, was lost, or measured nothing",
        "run again; see the baseline's own findings",
        "    check `work` of `hogs`: the baseline has no figure",
    ),
    Entry(
        "not-measured",
        "check has no figure",
        TEST,
        _ERROR,
        "A check's load ran and left no figure, or the scenario requires a figure that the run has no sample of.",
        "A check that was not made must not look like one that passed.",
        "the load's program failed to start, or its output was not understood",
        "look at the events of that load in the run's stream",
        "    check `gap` of `near`: no figure in runs/002/stream",
    ),
    Entry(
        "workload-broken",
        "the user's workload does not work",
        TEST,
        _ERROR,
        "The user's own workload failed, did not end in time or gave no figure, and nothing shows that it would beside "
        "EEVDF.",
        "What does not work without the candidate says nothing about it.",
        "a program, library or file that the guest does not have; a `timeout` that is too short for a simulated CPU of "
        "250 million instructions per second; a pattern that does not fit the output",
        "look at its last words in the run's stream; try it with busybox' sh; raise `timeout`",
        "    `build`: exit status 127; last line: sh: make: not found, and no candidate is attached",
    ),
    Entry(
        "step-failed",
        "a step of the scenario failed",
        TEST,
        _ERROR,
        "A step that prepares the test failed: a file could not be written, a program not started.",
        "The scenario did not do what it says.",
        "a kernel without that file, an image without that program",
        "look at the step's `detail`; compare with the scenario's `needs`",
        "    step `exec` failed: no such file",
    ),
    Entry(
        "control-surprised",
        "control surprised",
        TEST,
        _ERROR,
        "A control, whose answer is known, got another one.",
        "A gate that passes a known-bad scheduler, or rejects a known-good one, says nothing about others.",
        "a broken image, kernel or testbed",
        "`testbed doctor`; nothing in this verdict is to be trusted until the controls are right again",
        "    control `scx_qmap -t 5`: expected fail, got pass",
    ),
    # --- build -----------------------------------------------------------------------------------------------
    Entry(
        "compile-error",
        "candidate does not compile",
        BUILD,
        _FAIL,
        "clang refused the source.",
        "There is nothing to run.",
        "see the compiler's message: it points to the line",
        "repair the line that the compiler points to; old scx_bpf_dispatch() is scx_bpf_dsq_insert() now",
        "    error: use of undeclared identifier 'scx_bpf_dispach'",
    ),
    Entry(
        "damaged-object",
        "the object is damaged",
        BUILD,
        _FAIL,
        "The object is an ELF file for BPF that contradicts itself: cut off, or with tables that lead nowhere.",
        "Nobody knows what a loader would make of it.",
        "it was cut off, or changed by a tool that does not know BPF",
        "compile it again, and strip it with `llvm-strip -g` only",
        "    llvm-strip -g candidate.bpf.o   # keeps the BTF",
    ),
    Entry(
        "compile-limit",
        "compiling met a limit",
        BUILD,
        _FAIL,
        "clang needed more memory or output than any scheduler needs (FAIL), or more time than it may (ERROR: the "
        "machine may be slow).",
        "A source that can't be compiled in bounds can't be judged.",
        "macros that expand without end, or a very busy machine",
        "look for macros that expand without end; run it again on a less busy machine",
        "    #define A(x) A2(x) A2(x) A2(x)",
    ),
    Entry(
        "include-refused",
        "asks for a file that a candidate does not get",
        BUILD,
        _FAIL,
        "The source includes or embeds a file outside its own folder, or through a link that leads out of it.",
        "A candidate is its source and the files below its folder, so that it means the same everywhere and reads "
        "nothing of the host.",
        "an absolute path, `..` beyond the folder, `#embed`, `.incbin`, or a link",
        "put a copy of the file below the candidate's folder",
        '    #include "/usr/include/linux/sched.h"',
    ),
    Entry(
        "not-a-scheduler",
        "no scheduler in the object",
        BUILD,
        _FAIL,
        "The object has no struct_ops of type `sched_ext_ops`.",
        "Without that table of callbacks there is nothing to attach.",
        "the SCX_OPS_DEFINE() is missing, or was compiled out",
        'add SCX_OPS_DEFINE(my_ops, .enqueue = …, .name = "my")',
        '    SCX_OPS_DEFINE(my_ops, .enqueue = (void *)my_enqueue, .name = "my");',
    ),
    Entry(
        "several-schedulers",
        "several schedulers in the object",
        BUILD,
        _FAIL,
        "The object has more than one struct_ops of type `sched_ext_ops`.",
        "Only one scheduler can be attached, and which one would be a guess.",
        "several SCX_OPS_DEFINE() in one object",
        "keep one SCX_OPS_DEFINE(), or make a candidate of each",
        "    SCX_OPS_DEFINE(a_ops, …); SCX_OPS_DEFINE(b_ops, …);",
    ),
    Entry(
        "ops-invalid",
        "the kernel refuses the scheduler's fields",
        BUILD,
        _FAIL,
        "A field of `sched_ext_ops` has a value that the kernel refuses: no name, a bad name, a timeout above 30 s.",
        "It would fail to attach, with no more than an errno.",
        "a field that was left out or filled wrongly",
        "a short plain `.name`; `.timeout_ms` at most 30000",
        "    .timeout_ms = 60000,",
    ),
    Entry(
        "license-not-gpl",
        "the licence is not compatible with the GPL",
        BUILD,
        _FAIL,
        "The object's licence is missing or not compatible with the GPL.",
        "The kernel lets only GPL-compatible programs be schedulers.",
        "no `license` section",
        'add `char _license[] SEC("license") = "GPL";`',
        '    char _license[] SEC("license") = "GPL";',
    ),
    Entry(
        "forbidden-program",
        "a program that no scheduler needs",
        BUILD,
        _FAIL,
        "The object has a program of a type that changes other parts of the machine, or struct_ops of another kind.",
        "A scheduler decides which task runs where, and nothing else. Whatever else it does is hidden in it.",
        "a kprobe that overrides results, an LSM hook, a network program in a scheduler",
        "take the program out; to observe, use `tp_btf`, `fentry` or `fexit`",
        '    SEC("kprobe/__x64_sys_openat")',
    ),
    Entry(
        "forbidden-helper",
        "a helper that no scheduler needs",
        BUILD,
        _FAIL,
        "A program calls a helper that reaches beyond scheduling: writing user memory, sending signals, overriding "
        "results.",
        "A scheduler that can do that can do anything to the machine.",
        "bpf_probe_write_user(), bpf_send_signal(), bpf_override_return() or their like",
        "take the call out",
        "    bpf_send_signal(9);",
    ),
    Entry(
        "unknown-kfunc",
        "calls a function that the kernel lacks",
        BUILD,
        _FAIL,
        "A program calls a kernel function (kfunc) that the guest's kernel does not have, without asking first.",
        "It does not load on this kernel, nor on a host with it.",
        "the function was renamed or removed, is misspelt, or belongs to another kernel",
        "use the new name, or declare it `__weak` and ask bpf_ksym_exists() before the call",
        "    scx_bpf_dispatch(p, SCX_DSQ_GLOBAL, slice, 0);   /* now scx_bpf_dsq_insert() */",
    ),
)

CODES: dict[str, Entry] = {entry.code: entry for entry in _ENTRIES}
"""Every code, in the order of the documentation."""


LINT: dict[str, Entry] = {
    rule.code: Entry(
        rule.code, rule.title, "Lint", _FAIL if rule.severity == "error" else _DONE,
        rule.meaning, rule.why, rule.cause, rule.fix, rule.example,
    )
    for rule in lint.RULES.values()
}  # fmt: skip
"""The rules of the lint, which have a page of their own."""

ALL = {**CODES, **LINT}
"""Everything that `testbed explain` knows."""


def explain(code: str) -> Entry:
    """The entry of a code."""
    try:
        return ALL[code]
    except KeyError:
        raise UsageError(f"there is no finding code `{code}`", hint=did_you_mean(code, ALL)) from None


def text(entry: Entry) -> str:
    """An entry as `testbed explain` prints it."""
    return (
        f"{entry.code}: {entry.title} ({entry.status})\n\n"
        f"What it means\n  {entry.meaning}\n\n"
        f"Why it matters\n  {entry.why}\n\n"
        f"Usual cause\n  {entry.cause}\n\n"
        f"Smallest fix\n  {entry.fix}\n\n"
        f"Example\n{entry.example if entry.example.startswith(' ') else '  ' + entry.example}\n"
    )


def page() -> str:
    """The catalogue as a page of the documentation."""
    parts = [
        "<!-- Generated from testbed/judge/catalogue.py by `python -m testbed.judge.docs --write`. -->\n",
        "# Finding codes\n",
        "`testbed explain CODE` prints the same. A code is stable: it is never renamed and never means something "
        "else. Codes that begin with `lint-` are [the lint's](lint.md).\n",
    ]
    for family in dict.fromkeys(entry.family for entry in CODES.values()):
        parts.append(f"## {family}\n")
        for entry in (entry for entry in CODES.values() if entry.family == family):
            parts.append(
                f"### `{entry.code}`\n\n*{entry.title}* ({entry.status})\n\n{entry.meaning}\n\n"
                f"**Why it matters.** {entry.why}\n\n**Usual cause.** {_sentence(entry.cause)}\n\n"
                f"**Smallest fix.** {_sentence(entry.fix)}\n\n{entry.example}\n"
            )
    return "\n".join(parts)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
