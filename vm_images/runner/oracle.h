/* SPDX-License-Identifier: GPL-2.0-only */
/* What the oracle's programs (oracle.bpf.c) and the runner share: the layout of the memory that both have mapped. */
#ifndef ORACLE_H
#define ORACLE_H

#define ORACLE_TASKS 32768	/* by pid; the kernel's own bound for small machines */
#define ORACLE_GROUPS 160
#define ORACLE_CPUS 64
#define ORACLE_RECORDS 8192	/* powers of two, both */
#define ORACLE_BUCKETS 640	/* as struct hist */

/* Whose task it is. From GROUP_FIRST on: one group for each load and program of the job. */
enum { GROUP_OTHERS, GROUP_KTHREADS, GROUP_CANDIDATE, GROUP_RUNNER, GROUP_FIRST };

enum { RECORD_SWITCH = 1, RECORD_WAKEUP };
enum { LEFT_SLEEPING, LEFT_RUNNABLE, LEFT_DEAD };
enum { FREEZE_NOT, FREEZE_WINDOW, FREEZE_TROUBLE };

struct oracle_task {
	unsigned long long since;	/* runnable and not running since then; 0: it is not */
	unsigned long long started;	/* running since then; 0: it is not, or it ran before we looked */
	unsigned long long cpus;	/* of this wait: the CPUs at which it is counted as waiting, ~0 all */
	unsigned long long run_ns;
	unsigned int pid;
	unsigned short group, next_group;	/* next_group: of the processes that this thread makes */
	unsigned short cpu;		/* where it ran last, plus one */
	unsigned char judged;		/* this wait is of the class that a sched_ext scheduler decides about */
	unsigned char kthread;
	char comm[16];			/* of a dead one */
	unsigned int unused;
};

struct oracle_group {
	unsigned long long waits, max, run_ns, runs, preemptions, migrations;
	unsigned int bucket[ORACLE_BUCKETS];
};

/*
 * How long there has been anybody who waits. `word` holds how many do (16 bits) and since when there has been at least
 * one (48 bits of ns, three days), so that both change at once; `total` is what the times before that add up to.
 */
struct oracle_queue { unsigned long long word, total; };

struct oracle_cpu {
	unsigned long long idle_since, idle_ns, wasted_ns;
	unsigned long long any_at, own_at;	/* both queues' time when it became idle */
	struct oracle_queue own;		/* who may run here and not everywhere */
};

struct oracle_record {
	unsigned long long t;
	unsigned int pid, next;
	unsigned short cpu;
	unsigned char kind, left;
	unsigned int unused;
};

/* log2 of a number that is not 0; there is no instruction for it that every program may use */
static inline unsigned int oracle_log2(unsigned long long v)
{
	unsigned int n = 0;

	if (v >> 32) {
		n += 32;
		v >>= 32;
	}
	if (v >> 16) {
		n += 16;
		v >>= 16;
	}
	if (v >> 8) {
		n += 8;
		v >>= 8;
	}
	if (v >> 4) {
		n += 4;
		v >>= 4;
	}
	if (v >> 2) {
		n += 2;
		v >>= 2;
	}
	return n + (unsigned int)(v >> 1);
}

/* as hist_bucket() */
static inline unsigned int oracle_bucket(unsigned long long v)
{
	unsigned int e, b;

	if (v < 16)
		return (unsigned int)v;
	e = oracle_log2(v);
	b = (e - 3) * 16 + (unsigned int)(v >> (e - 4) & 15);
	return b < ORACLE_BUCKETS ? b : ORACLE_BUCKETS - 1;
}

#endif
