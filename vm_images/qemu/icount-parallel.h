/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parallel virtual time for -icount: every vCPU has a time of its own.
 *
 * See docs/parallel_time.md of the testbed for the argument why a run is a
 * function of its inputs.
 */
#ifndef SYSTEM_ICOUNT_PARALLEL_H
#define SYSTEM_ICOUNT_PARALLEL_H

#include "qemu/option.h"
#include "hw/core/cpu.h"

/* Instructions a vCPU may run ahead of the others; 0 is stock -icount. */
extern int64_t icount_parallel_quantum;
#define icount_parallel_enabled() (icount_parallel_quantum != 0)

/* Virtual time that one PAUSE takes, about what it takes on real hardware. */
#define ICOUNT_PARALLEL_PAUSE_NS 40

/* Reads parallel= of -icount; true when it is absent, 0, or accepted. */
bool icount_parallel_configure(QemuOpts *opts, Error **errp);

/* Body of the vCPU thread; called with the BQL held. */
G_NORETURN void icount_parallel_thread(void);

/* handle_interrupt of the accelerator. */
void icount_parallel_handle_interrupt(CPUState *cpu, int mask);

/*
 * What the sizing of the TLB takes for the time: it counts how often it is
 * asked, at flushes, which a guest's own doing decides.
 */
int64_t icount_parallel_tlb_time(void);

/*
 * Leave the current instruction, which was counted already, after it has
 * taken @ns more of this vCPU's time, or, if @ns is negative, all the time
 * until another vCPU or a timer is due.
 */
G_NORETURN void icount_parallel_spend(CPUState *cpu, int64_t ns);

#endif
