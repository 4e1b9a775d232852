/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parallel virtual time for -icount: every vCPU has a time of its own.
 *
 * Stock -icount has one clock that counts the instructions of all vCPUs, so
 * N vCPUs share the speed of one.  Here the N vCPUs are N processes of a
 * conservative discrete-event simulation, run in turn by the one vCPU thread:
 *
 *  - The runnable vCPU that is furthest behind runs next, until it is a
 *    quantum ahead of the next one, or meets the next timer, or sleeps, or
 *    interrupts another vCPU that has not reached that point in time.  This
 *    is a "turn"; its end is fixed when it starts, in virtual time.
 *  - The machine's time is the time of the vCPU that is furthest behind.
 *    Timers run at the machine's time, in this thread and nowhere else.
 *  - A vCPU that wakes starts at the time of whoever woke it.
 *  - When all vCPUs sleep, the machine's time jumps to the next timer.
 *
 * All decisions depend on guest state and virtual time only.  Other threads
 * may cut the execution of a turn anywhere (monitor commands, stop and cont,
 * RCU), but then the same turn goes on to the same end afterwards, even
 * across a snapshot.
 *
 * Times are counted in instructions.  While a turn executes, the counter of
 * stock -icount holds the running vCPU's own time; else the machine's time.
 *
 * seed=S draws from a generator what a real machine leaves open: how long
 * turns are, who is first among equals, pauses, rates, how long a wake-up
 * takes.  It is asked when a turn begins, a pause is due or a vCPU wakes, so
 * never more or less often because of another thread.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/rcu.h"
#include "qemu/seqlock.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/cpu-common.h"
#include "hw/boards.h"
#include "migration/vmstate.h"
#include "system/cpu-timers.h"
#include "system/cpu-timers-internal.h"
#include "system/icount-parallel.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/system.h"
#include "accel/tcg/tcg-accel-ops.h"
#include "accel/tcg/tcg-accel-ops-icount.h"
#include "accel/tcg/tcg-accel-ops-rr.h"

/*
 * A vCPU that is a quantum ahead sees and makes events that much too early
 * for the others: beyond ten milliseconds of the fastest clock that is no
 * multiprocessor any more.
 */
#define QUANTUM_MAX 10000000

/* No limit is in sight: look again after that many instructions. */
#define FAR_AWAY INT32_MAX

/*
 * Bounds of what a seed varies.  Turns: from an eighth of the quantum, which
 * is the stated resolution, to the whole of it.
 */
#define TURN_MIN_FRACTION 8
/* Rates: so many 65536ths slower than nominal at most, 2 %. */
#define SLOWER_MAX 1311
/* Wake-ups: an idle CPU takes some time to leave its sleep state. */
#define WAKEUP_MAX_NS 4000
/*
 * Pauses: a vCPU's time goes on and it executes nothing, as in a system
 * management interrupt, when a hypervisor takes its CPU, or in a storm of
 * cache misses.  Time that it runs between two of them, and how long most
 * of them and one of PAUSE_RARE take.
 */
#define PAUSE_EVERY_MAX_NS 2000000
#define PAUSE_MAX_NS 8000
#define PAUSE_RARE 16
#define PAUSE_RARE_MAX_NS 200000

/* A line of the trace stands for that much of the machine's time. */
#define TRACE_STEP_NS 1000000
/* The file does not grow beyond that, but for the last line. */
#define TRACE_BYTES_MAX (16 * MiB)
/*
 * By gdb's numbers; on x86 stack pointer and program counter.  Where a vCPU
 * is and when says what the machine did.  Data is left out: a run may be
 * given secrets of its own that change nothing but bytes.
 */
static const int trace_registers[] = { 7, 16 };

int64_t icount_parallel_quantum;

/* What the command line says: seed (0 is none), and ns of until= (0: none). */
static uint64_t option_seed;
static uint64_t option_until;

static struct ParallelTime {
    /* How many vCPUs there can be; length of the arrays. */
    uint32_t count;
    /* Each vCPU's own time, and whether it slept when last looked at. */
    int64_t *local;
    uint8_t *asleep;
    /* The machine's time. */
    int64_t global;
    /* Index of the vCPU of the last turn: among equals it comes last. */
    uint32_t last;
    /* The turn of @last is not over, it goes on to @turn_end. */
    bool in_turn;
    int64_t turn_begin;
    int64_t turn_end;

    /* The seed that is in use, 0 for none, and the generator's state. */
    uint64_t seed;
    uint64_t prng;
    /* Among equals the vCPU with this index comes last. */
    uint32_t order;
    /* Nanoseconds each vCPU runs until its next pause; how slow it is. */
    int64_t *until_pause;
    uint32_t *slower;

    /* In the snapshot to tell if it fits; not part of the machine's state. */
    int64_t quantum;
    uint32_t shift;

    /* The running vCPU interrupted one that is behind: the turn is over. */
    bool yield;
    /* A vCPU asked the main loop to stop or reset the machine; its index. */
    bool held;
    uint32_t holder;
    /* The machine has been stopped at option_until. */
    bool until_done;
    /*
     * What is left of the running turn after the part that may run before
     * option_until, and how much of that an instruction has spent already.
     */
    int64_t cut;
    int64_t owed;
} par;

static struct {
    FILE *file;
    char *path;
    size_t bytes;
    /* Of all turns that ended since the start or the last load. */
    uint64_t hash;
    /* Some did since the last line; step of the machine's time it was for. */
    bool changed;
    int64_t step;
} trace;

/* The finalizer of splitmix64 by Steele, Lea and Flood. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* A number from 0 to @bound - 1, drawn from splitmix64. */
static uint32_t draw(uint32_t bound)
{
    par.prng += UINT64_C(0x9e3779b97f4a7c15);
    return ((mix(par.prng) >> 32) * bound) >> 32;
}

/* A time from 1 to @max_ns. */
static int64_t draw_ns(uint32_t max_ns)
{
    return 1 + draw(max_ns);
}

static void seed_start(void)
{
    par.seed = option_seed;
    /* Seeds are small numbers: keep their generators far apart. */
    par.prng = mix(option_seed);
    for (uint32_t i = 0; i < par.count; i++) {
        par.until_pause[i] = par.seed ? draw_ns(PAUSE_EVERY_MAX_NS) : 0;
        par.slower[i] = par.seed ? draw(SLOWER_MAX + 1) : 0;
    }
}

static int64_t clock_get(void)
{
    return qatomic_read_i64(&timers_state.qemu_icount);
}

static void clock_set(int64_t now)
{
    if (now == clock_get()) {
        return;
    }
    seqlock_write_lock(&timers_state.vm_clock_seqlock,
                       &timers_state.vm_clock_lock);
    qatomic_set_i64(&timers_state.qemu_icount, now);
    seqlock_write_unlock(&timers_state.vm_clock_seqlock,
                         &timers_state.vm_clock_lock);
}

/* Only guest state counts here: work queued by other threads does not. */
static bool is_asleep(CPUState *cpu)
{
    return cpu->halted && !cpu_has_work(cpu);
}

/*
 * Nanoseconds to the next timer that this thread runs, or -1.  The lists of
 * the AioContexts belong to the main loop and must not cut turns.
 */
static int64_t timer_deadline(void)
{
    return timerlist_deadline_ns(main_loop_tlg.tl[QEMU_CLOCK_VIRTUAL]);
}

/* The same in instructions from now, at most FAR_AWAY. */
static int64_t timer_limit(void)
{
    int64_t deadline = timer_deadline();

    if (deadline < 0) {
        return FAR_AWAY;
    }
    return MIN(icount_round(deadline), FAR_AWAY);
}

/* The machine's time in nanoseconds. */
static int64_t machine_ns(void)
{
    return icount_to_ns(par.global) +
           qatomic_read_i64(&timers_state.qemu_icount_bias);
}

static void trace_line(void)
{
    int ret = fprintf(trace.file, "%" PRId64 " %016" PRIx64 "\n",
                      machine_ns(), trace.hash);

    if (ret < 0) {
        warn_report("icount: trace=%s can't be written: %s; "
                    "the rest of the trace is missing",
                    trace.path, strerror(errno));
        fclose(trace.file);
        trace.file = NULL;
        return;
    }
    trace.bytes += ret;
}

/* A new step of the machine's time may have begun. */
static void trace_time(void)
{
    int64_t now;

    if (!trace.file || !trace.changed) {
        return;
    }
    now = machine_ns() / TRACE_STEP_NS;
    if (now != trace.step) {
        trace.step = now;
        trace.changed = false;
        if (trace.bytes < TRACE_BYTES_MAX) {
            trace_line();
        }
    }
}

static void trace_add(uint64_t value)
{
    trace.hash = mix(trace.hash ^ value);
}

static void trace_turn(CPUState *cpu)
{
    static GByteArray *registers;

    if (!trace.file) {
        return;
    }
    if (!registers) {
        registers = g_byte_array_new();
    }
    g_byte_array_set_size(registers, 0);
    for (int i = 0; i < ARRAY_SIZE(trace_registers); i++) {
        cpu->cc->gdb_read_register(cpu, registers, trace_registers[i]);
    }
    trace_add(cpu->cpu_index);
    trace_add(par.turn_begin);
    trace_add(par.local[cpu->cpu_index]);
    for (guint i = 0; i + 8 <= registers->len; i += 8) {
        trace_add(ldq_le_p(registers->data + i));
    }
    trace.changed = true;
}

static void trace_start(void)
{
    trace.hash = 0;
    trace.changed = false;
    trace.step = -1;
}

static void trace_end(Notifier *notify, void *data)
{
    if (trace.file) {
        trace_line();
    }
    if (trace.file && fclose(trace.file) != 0) {
        warn_report("icount: trace=%s can't be written: %s; "
                    "the rest of the trace is missing",
                    trace.path, strerror(errno));
    }
    trace.file = NULL;
}

/* Whoever was found asleep and is awake now was woken at @now. */
static void note_wakeups(int64_t now)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        uint32_t i = cpu->cpu_index;
        bool asleep = is_asleep(cpu);

        if (par.asleep[i] && !asleep) {
            par.local[i] = MAX(par.local[i], now);
            if (par.seed) {
                par.local[i] += icount_round(draw_ns(WAKEUP_MAX_NS));
            }
        }
        par.asleep[i] = asleep;
    }
}

static bool any_wakeup(void)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (par.asleep[cpu->cpu_index] && !is_asleep(cpu)) {
            return true;
        }
    }
    return false;
}

/*
 * The guest asked for a reset, a shutdown or a stop, and the main loop has
 * not done it yet.  How long that takes depends on the host, so no vCPU may
 * run in the meantime.
 */
static void hold(CPUState *cpu)
{
    par.held = true;
    par.holder = cpu->cpu_index;
}

static bool is_held(void)
{
    CPUState *cpu;

    if (par.held) {
        cpu = qemu_get_cpu(par.holder);
        par.held = cpu && !cpu->unplug && (cpu->stop || cpu->stopped);
    }
    return par.held || qemu_shutdown_requested_get() ||
           qemu_reset_requested_get();
}

/* Where until= is, in instructions; far away if it is not to come. */
static int64_t until_time(void)
{
    int64_t bias = qatomic_read_i64(&timers_state.qemu_icount_bias);

    if (!option_until || par.until_done) {
        return INT64_MAX;
    }
    return icount_round(option_until - bias);
}

/* Has the main loop stop the machine; nothing runs in the meantime. */
static void stop_at_until(void)
{
    par.until_done = true;
    current_cpu = qemu_get_cpu(par.last) ?: first_cpu;
    vm_stop(RUN_STATE_PAUSED);
    hold(current_cpu);
}

static void run_timers(void)
{
    CPUState *cpu = current_cpu;
    bool stopped = cpu->stop || cpu->stopped;

    qemu_clock_run_timers(QEMU_CLOCK_VIRTUAL);
    /* Timers of AioContexts are run by the main loop: tell it. */
    if (qemu_clock_deadline_ns_all(QEMU_CLOCK_VIRTUAL,
                                   QEMU_TIMER_ATTR_ALL) == 0 &&
        timer_deadline() != 0) {
        qemu_clock_notify(QEMU_CLOCK_VIRTUAL);
    }
    if (!stopped && (cpu->stop || cpu->stopped)) {
        /* A watchdog, for example. */
        hold(cpu);
    }
    note_wakeups(par.global);
}

static void vm_state_changed(void *opaque, bool running, RunState state)
{
    /*
     * The request has been carried out.  vCPUs that a debugger does not
     * resume stay stopped and hold nobody.
     */
    par.held = false;
    if (trace.file) {
        fflush(trace.file);
    }
}

/* All vCPUs sleep: jump to the next timer.  False if there is none. */
static bool jump_to_timer(void)
{
    int64_t deadline, next;

    qemu_clock_enable(QEMU_CLOCK_VIRTUAL, true);
    par.global = MAX(par.global, par.local[par.last]);
    clock_set(par.global);
    deadline = timer_deadline();
    if (deadline < 0) {
        deadline = qemu_clock_deadline_ns_all(QEMU_CLOCK_VIRTUAL,
                                              QEMU_TIMER_ATTR_ALL);
    }
    if (deadline < 0) {
        return false;
    }
    next = par.global + icount_round(deadline);
    if (next >= until_time()) {
        par.global = MAX(par.global, until_time());
        clock_set(par.global);
        stop_at_until();
        return true;
    }
    par.global = next;
    clock_set(par.global);
    run_timers();
    return true;
}

/*
 * Choose the vCPU that is furthest behind, and move the machine's time.  In
 * @second goes the time of the next one, or INT64_MAX.
 */
static CPUState *choose(int64_t *second)
{
    CPUState *cpu, *first = NULL;
    uint32_t first_rank = 0, order = par.seed ? par.order : par.last;
    int64_t deadline;

    *second = INT64_MAX;

    CPU_FOREACH(cpu) {
        uint32_t i = cpu->cpu_index, rank;
        int64_t local;

        /* A debugger may have resumed only some of the vCPUs. */
        if (par.asleep[i] || !cpu_can_run(cpu)) {
            continue;
        }
        par.local[i] = MAX(par.local[i], par.global);
        local = par.local[i];
        rank = (i + par.count - order - 1) % par.count;
        if (!first) {
            first = cpu;
            first_rank = rank;
        } else if (local < par.local[first->cpu_index] ||
                   (local == par.local[first->cpu_index] &&
                    rank < first_rank)) {
            *second = MIN(*second, par.local[first->cpu_index]);
            first = cpu;
            first_rank = rank;
        } else {
            *second = MIN(*second, local);
        }
    }
    if (!first) {
        return NULL;
    }
    deadline = timer_deadline();
    if (par.seed && deadline >= 0) {
        /* After a pause it may be ahead of timers that others wait for. */
        par.global = MIN(par.local[first->cpu_index],
                         par.global + icount_round(deadline));
    } else {
        par.global = par.local[first->cpu_index];
    }
    clock_set(par.global);
    return first;
}

/* Its time goes on, and others see nothing of it. */
static void pause_vcpu(CPUState *cpu)
{
    uint32_t max = draw(PAUSE_RARE) ? PAUSE_MAX_NS : PAUSE_RARE_MAX_NS;

    par.local[cpu->cpu_index] += icount_round(draw_ns(max));
    par.until_pause[cpu->cpu_index] = draw_ns(PAUSE_EVERY_MAX_NS);
}

/* Fix how far the chosen @cpu may run; @second is the time of the next one. */
static void begin_turn(CPUState *cpu, int64_t second)
{
    int64_t quantum = icount_parallel_quantum;

    par.turn_begin = par.local[cpu->cpu_index];
    if (par.seed) {
        quantum -= draw(quantum - quantum / TURN_MIN_FRACTION);
        par.order = draw(par.count);
    }
    par.turn_end = second == INT64_MAX ? INT64_MAX : second + quantum;
    if (par.seed) {
        par.turn_end = MIN(par.turn_end, par.turn_begin +
                           icount_round(par.until_pause[cpu->cpu_index]));
    }
}

static void end_turn(CPUState *cpu)
{
    uint32_t i = cpu->cpu_index;
    int64_t spent = par.local[i] - par.turn_begin;

    par.in_turn = false;
    trace_turn(cpu);
    if (par.seed) {
        par.until_pause[i] -= icount_to_ns(spent);
        par.local[i] += (spent * par.slower[i]) >> 16;
    }
}

/*
 * Until when the running @cpu may execute before the machine's time reaches
 * until=: the others have to be there too.
 */
static int64_t until_limit(CPUState *running)
{
    int64_t until = until_time();
    CPUState *cpu;

    if (until == INT64_MAX) {
        return until;
    }
    CPU_FOREACH(cpu) {
        if (cpu != running && !par.asleep[cpu->cpu_index] &&
            cpu_can_run(cpu) && par.local[cpu->cpu_index] < until) {
            return INT64_MAX;
        }
    }
    return until;
}

/* Run @cpu's turn, or a part of it. */
static void run_turn(CPUState *cpu)
{
    int64_t *local = &par.local[cpu->cpu_index];
    int64_t budget, now;
    int ret;

    qemu_clock_enable(QEMU_CLOCK_VIRTUAL,
                      !(cpu->singlestep_enabled & SSTEP_NOTIMER));
    clock_set(*local);
    budget = MIN(par.turn_end - *local, timer_limit());
    if (budget <= 0) {
        end_turn(cpu);
        clock_set(par.global);
        return;
    }
    par.in_turn = true;
    par.yield = false;
    par.cut = MAX(*local + budget - until_limit(cpu), 0);
    par.owed = 0;
    budget -= par.cut;
    if (budget <= 0) {
        clock_set(par.global);
        stop_at_until();
        return;
    }

    g_assert(cpu->neg.icount_decr.u16.low == 0);
    g_assert(cpu->icount_extra == 0);
    cpu->icount_budget = budget;
    cpu->neg.icount_decr.u16.low = MIN(budget, 0xffff);
    cpu->icount_extra = budget - cpu->neg.icount_decr.u16.low;

    current_cpu = cpu;
    bql_unlock();
    ret = tcg_cpu_exec(cpu);
    icount_update(cpu);
    bql_lock();

    cpu->neg.icount_decr.u16.low = 0;
    cpu->icount_extra = 0;
    cpu->icount_budget = 0;
    now = clock_get();
    *local = now + par.owed;

    /* Code for a single thread has no instructions that raise it. */
    g_assert(ret != EXCP_ATOMIC);
    if (ret == EXCP_DEBUG) {
        cpu_handle_guest_debug(cpu);
    }
    if (cpu->stop || cpu->stopped) {
        hold(cpu);
    }
    /*
     * What else made it leave (a kick by another thread, queued work) is no
     * reason to end the turn: the next call goes on with it.
     */
    if (par.yield || is_asleep(cpu) || any_wakeup()) {
        end_turn(cpu);
        note_wakeups(now);
    }
    clock_set(par.global);
}

/* One step of the machine; false if only another thread can cause the next. */
static bool step(void)
{
    CPUState *cpu;
    int64_t second;

    CPU_FOREACH(cpu) {
        /*
         * From here on what asks for attention is looked at, so an older
         * request to leave the execution loop is served.
         */
        qatomic_set_mb(&cpu->exit_request, 0);
        if (cpu->stop || !cpu_work_list_empty(cpu)) {
            return true;
        }
    }
    if (!runstate_is_running() || is_held()) {
        return false;
    }
    if (clock_get() != par.global) {
        /* A snapshot that was taken without parallel time was loaded. */
        par.global = clock_get();
        for (uint32_t i = 0; i < par.count; i++) {
            par.local[i] = par.global;
        }
        par.in_turn = false;
        seed_start();
        trace_start();
        par.until_done = false;
    }

    if (par.in_turn) {
        cpu = qemu_get_cpu(par.last);
        if (cpu && cpu_can_run(cpu) && !is_asleep(cpu) && !any_wakeup()) {
            run_turn(cpu);
            return true;
        }
        if (cpu) {
            end_turn(cpu);
        }
        par.in_turn = false;
    }

    note_wakeups(par.global);
    cpu = choose(&second);
    if (!cpu) {
        CPU_FOREACH(cpu) {
            if (!par.asleep[cpu->cpu_index]) {
                /* Awake but stopped by a debugger: time stands still. */
                return false;
            }
        }
        return jump_to_timer();
    }
    if (par.global >= until_time()) {
        stop_at_until();
        return true;
    }
    trace_time();
    par.last = cpu->cpu_index;
    if (timer_deadline() == 0) {
        run_timers();
        return true;
    }
    if (par.seed && par.until_pause[cpu->cpu_index] <= 0) {
        pause_vcpu(cpu);
        return true;
    }
    begin_turn(cpu, second);
    run_turn(cpu);
    return true;
}

static void force_rcu(Notifier *notify, void *data)
{
    rr_kick_vcpu_thread(NULL);
}

void icount_parallel_thread(void)
{
    static Notifier force_rcu_notifier = { .notify = force_rcu };
    CPUState *cpu;

    rcu_add_force_rcu_notifier(&force_rcu_notifier);
    while (true) {
        CPU_FOREACH(cpu) {
            current_cpu = cpu;
            qemu_wait_io_event_common(cpu);
        }
        CPU_FOREACH(cpu) {
            if (cpu->unplug && !cpu_can_run(cpu)) {
                tcg_cpu_destroy(cpu);
                break;
            }
        }
        if (!step()) {
            qemu_cond_wait_bql(first_cpu->halt_cond);
        }
    }
}

void icount_parallel_handle_interrupt(CPUState *cpu, int mask)
{
    CPUState *self = current_cpu;
    int64_t now;

    icount_handle_interrupt(cpu, mask);
    if (!self || !self->running || self == cpu) {
        return;
    }
    /*
     * The other one sleeps, or is behind this point in time: it has to get
     * here before this one goes on, or the answer takes a quantum.
     */
    now = clock_get() + self->icount_budget -
          (self->neg.icount_decr.u16.low + self->icount_extra);
    if (par.asleep[cpu->cpu_index] ? !is_asleep(cpu)
                                   : par.local[cpu->cpu_index] <= now) {
        par.yield = true;
        cpu_exit(self);
    }
}

int64_t icount_parallel_tlb_time(void)
{
    static int64_t now;

    /* Its window of 100 ms is that of a hundred flushes or so. */
    return now += 100 * SCALE_US;
}

void icount_parallel_spend(CPUState *cpu, int64_t ns)
{
    int64_t left = cpu->neg.icount_decr.u16.low + cpu->icount_extra;
    int64_t most = left + par.cut;
    int64_t cost = ns < 0 ? most : MIN(most, MAX(icount_round(ns), 1));

    /*
     * From the whole budget, not only from the part of it that is in the
     * decrementer: how it is divided depends on when other threads kick.
     * The same with what until= has cut off.
     */
    par.owed = MAX(cost - left, 0);
    left -= cost - par.owed;
    cpu->neg.icount_decr.u16.low = MIN(left, 0xffff);
    cpu->icount_extra = left - cpu->neg.icount_decr.u16.low;
    cpu->exception_index = -1;
    cpu_loop_exit(cpu);
}

static int pre_save(void *opaque)
{
    par.quantum = icount_parallel_quantum;
    par.shift = timers_state.icount_time_shift;
    return 0;
}

static int post_load(void *opaque, int version_id)
{
    if (par.shift != timers_state.icount_time_shift) {
        error_report("icount: the snapshot was taken with shift=%" PRIu32
                     " but shift=%d is set now; "
                     "use the same shift= as for the snapshot",
                     par.shift, timers_state.icount_time_shift);
        return -EINVAL;
    }
    if (par.quantum != icount_parallel_quantum) {
        warn_report("icount: the snapshot was taken with parallel=%" PRId64
                    ", the run goes on with parallel=%" PRId64,
                    par.quantum, icount_parallel_quantum);
    }
    if (par.last >= par.count) {
        error_report("icount: vCPU %" PRIu32 " of the snapshot's turn is not "
                     "below %" PRIu32 "; the snapshot is damaged",
                     par.last, par.count);
        return -EINVAL;
    }
    if (par.seed != option_seed) {
        seed_start();
    }
    trace_start();
    par.until_done = false;
    return 0;
}

static const VMStateDescription vmstate_icount_parallel = {
    .name = "icount-parallel",
    .version_id = 2,
    .minimum_version_id = 2,
    .pre_save = pre_save,
    .post_load = post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(count, struct ParallelTime,
                             "the largest number of vCPUs (-smp maxcpus=) "
                             "has to be the snapshot's"),
        VMSTATE_VARRAY_UINT32(local, struct ParallelTime, count, 1,
                              vmstate_info_int64, int64_t),
        VMSTATE_VARRAY_UINT32(asleep, struct ParallelTime, count, 1,
                              vmstate_info_uint8, uint8_t),
        VMSTATE_INT64(global, struct ParallelTime),
        VMSTATE_UINT32(last, struct ParallelTime),
        VMSTATE_BOOL(in_turn, struct ParallelTime),
        VMSTATE_INT64(turn_begin, struct ParallelTime),
        VMSTATE_INT64(turn_end, struct ParallelTime),
        VMSTATE_UINT64(seed, struct ParallelTime),
        VMSTATE_UINT64(prng, struct ParallelTime),
        VMSTATE_UINT32(order, struct ParallelTime),
        VMSTATE_VARRAY_UINT32(until_pause, struct ParallelTime, count, 1,
                              vmstate_info_int64, int64_t),
        VMSTATE_VARRAY_UINT32(slower, struct ParallelTime, count, 1,
                              vmstate_info_uint32, uint32_t),
        VMSTATE_INT64(quantum, struct ParallelTime),
        VMSTATE_UINT32(shift, struct ParallelTime),
        VMSTATE_END_OF_LIST()
    },
};

/* An option that is a number above 0, or absent or 0 for none. */
static bool read_number(QemuOpts *opts, const char *name, uint64_t max,
                        uint64_t *number, Error **errp)
{
    const char *value = qemu_opt_get(opts, name);

    *number = 0;
    if (value && (qemu_strtou64(value, NULL, 0, number) < 0 ||
                  strchr(value, '-') || *number > max)) {
        error_setg(errp, "icount: %s=%s found, expected a number from 1 to "
                   "%" PRIu64 ", or 0 for none", name, value, max);
        return false;
    }
    return true;
}

static bool configure_trace(QemuOpts *opts, Error **errp)
{
    static Notifier exit_notifier = { .notify = trace_end };

    trace_start();
    if (!qemu_opt_get(opts, "trace")) {
        return true;
    }
    trace.path = g_strdup(qemu_opt_get(opts, "trace"));
    trace.file = fopen(trace.path, "we");
    if (!trace.file) {
        error_setg_errno(errp, errno, "icount: trace=%s can't be opened for "
                         "writing; name a file in a directory that exists",
                         trace.path);
        return false;
    }
    /* A few thousand lines. */
    setvbuf(trace.file, NULL, _IOFBF, 64 * KiB);
    qemu_add_exit_notifier(&exit_notifier);
    return true;
}

bool icount_parallel_configure(QemuOpts *opts, Error **errp)
{
    const char *value = qemu_opt_get(opts, "parallel");
    const char *shift = qemu_opt_get(opts, "shift");
    static const char *const needs_parallel[] = { "seed", "trace", "until" };
    int64_t quantum;
    int i;

    if (!value || strcmp(value, "0") == 0) {
        for (i = 0; i < ARRAY_SIZE(needs_parallel); i++) {
            if (qemu_opt_get(opts, needs_parallel[i])) {
                error_setg(errp, "icount: %s= found without parallel=; set "
                           "parallel=10000 too", needs_parallel[i]);
                return false;
            }
        }
    }
    if (!value) {
        return true;
    }
    if (qemu_strtoi64(value, NULL, 0, &quantum) < 0 || quantum < 0 ||
        quantum > QUANTUM_MAX) {
        error_setg(errp, "icount: parallel=%s found, expected a number of "
                   "instructions from 1 to %d, or 0 for off; "
                   "10000 is a good start", value, QUANTUM_MAX);
        return false;
    }
    if (quantum == 0) {
        return true;
    }
    if (!shift || strcmp(shift, "auto") == 0) {
        error_setg(errp, "icount: parallel= found with %s, expected a fixed "
                   "rate; set shift=0",
                   shift ? "shift=auto" : "no shift=");
        return false;
    }
    if (qemu_opt_get_bool(opts, "sleep", true)) {
        error_setg(errp, "icount: parallel= found with sleep=on, which ties "
                   "virtual time to the host's; set sleep=off");
        return false;
    }
    if (qemu_opt_get(opts, "rr")) {
        error_setg(errp, "icount: parallel= found with rr=%s, expected no "
                   "record/replay; such a run repeats without it, remove rr=",
                   qemu_opt_get(opts, "rr"));
        return false;
    }
    if (!read_number(opts, "seed", UINT64_MAX, &option_seed, errp) ||
        !read_number(opts, "until", INT64_MAX / 2, &option_until, errp) ||
        !configure_trace(opts, errp)) {
        return false;
    }

    icount_parallel_quantum = quantum;
    par.count = current_machine->smp.max_cpus;
    par.local = g_new0(int64_t, par.count);
    par.asleep = g_new0(uint8_t, par.count);
    par.until_pause = g_new0(int64_t, par.count);
    par.slower = g_new0(uint32_t, par.count);
    seed_start();
    for (i = 0; i < par.count; i++) {
        /* Like a vCPU that was just plugged in: it waits to be woken. */
        par.asleep[i] = true;
    }
    qemu_add_vm_change_state_handler(vm_state_changed, NULL);
    vmstate_register(NULL, 0, &vmstate_icount_parallel, &par);
    return true;
}
