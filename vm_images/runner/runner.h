/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest runner: executes one job inside the machine under test and reports over an I/O port.
 * Contract: docs/reference/guest-protocol.md. Two rules explain most of the shape of this program:
 *
 *  - Whoever reports must never need the scheduler under test. So the monitor (main thread) is SCHED_FIFO 99 with
 *    locked, prefaulted memory, takes only priority-inheriting locks and never allocates.
 *  - Whatever may block for ever (loading, attaching, forking, a health probe) runs on a thread of the pool, made
 *    before any candidate is attached, and is waited for with a limit.
 */
#ifndef RUNNER_H
#define RUNNER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define PROTOCOL_VERSION 1
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull

#define PRIO_MONITOR 99
#define PRIO_STEPS 50
#define PRIO_LOAD_HELPER 40

/* ---- util.c ---- */
uint64_t now_ns(void);
void sleep_until(uint64_t ns);
void sleep_ms(uint64_t ms);
void mutex_init_pi(pthread_mutex_t *m);
int set_fifo(pid_t tid, int prio);
int set_policy(pid_t tid, int policy, int prio);
ssize_t read_file(const char *path, char *buf, size_t size);	/* NUL-terminated, at most size-1 bytes */
int write_file(const char *path, const char *value);		/* 0 or -errno */
uint64_t read_u64(const char *path, uint64_t fallback);
int mkdir_parents(const char *path);
int parse_cpulist(const char *text, unsigned char *cpus, int max);	/* returns the count */
int online_cpus(unsigned char *cpus, int max);
const char *errno_name(int err);
void die(const char *what);	/* before the stream works: to the console, then the end */

struct rng { uint64_t s; };
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);

/* ---- sha256.c ---- */
struct sha256 { uint32_t h[8]; uint64_t len; uint8_t buf[64]; };
struct hmac { struct sha256 inner, outer; };	/* states after the padded key: each MAC costs no key setup */
void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t n);
void sha256_final(struct sha256 *s, uint8_t out[32]);
void hmac_init(struct hmac *h, const uint8_t *key, size_t n);
void hmac_sign(const struct hmac *h, const struct iovec *parts, int count, uint8_t out[32]);

/* ---- ports.c ---- */
int ports_open(void);		/* the right to use them; -errno */
void ports_drop(void);		/* a child gives that right away */
bool debugcon_present(void);
void debugcon_write(const char *data, size_t n);
void *fwcfg_read(const char *name, size_t *size);	/* malloc'd with a NUL behind, or NULL */
void machine_stop(void);	/* the host takes a snapshot here, or does not listen */

/* ---- cpio.c ---- */
int cpio_unpack(const uint8_t *data, size_t size, const char *into, char *why, size_t whylen);

/* ---- stream.c ---- */
struct json { unsigned n; bool full; char b[4200]; };
void stream_open(void);				/* with the key of fw_cfg; says hello */
void stream_hold(void);				/* nobody says anything until … */
void stream_again(void);			/* … a stream with a key of its own begins */
bool stream_is_open(void);
void ev_begin(struct json *j, const char *event);
void ev_str(struct json *j, const char *key, const char *value);
void ev_strn(struct json *j, const char *key, const char *value, size_t n);
void ev_u64(struct json *j, const char *key, uint64_t v);
void ev_i64(struct json *j, const char *key, int64_t v);
void ev_bool(struct json *j, const char *key, bool v);
void ev_milli(struct json *j, const char *key, uint64_t thousandths);	/* a decimal number, three places */
void ev_raw(struct json *j, const char *key, const char *value, size_t n);	/* JSON already */
void ev_micro(struct json *j, const char *key, uint64_t millionths);
void ev_send(struct json *j);

struct logsrc { char name[48]; uint64_t limit, used, lost, told_lost; };
void log_init(struct logsrc *l, const char *name, uint64_t limit);
void log_put(struct logsrc *l, const char *data, size_t n);
void log_close(struct logsrc *l);	/* says what was lost, if that has not been said */
void dump_put(const char *data, size_t n);
void dump_flush(void);
#define LOG_LIMIT (512u << 10)
#define LOG_LIMIT_VERIFIER (4u << 20)
extern struct logsrc log_verifier, log_libbpf, log_program, log_kernel;

/* ---- pool.c ---- */
void pool_start(void);
/* runs fn(arg) on a waiting thread; -ETIMEDOUT: still running, arg must stay alive; -EBUSY: no thread left */
int pool_call(int (*fn)(void *), void *arg, uint64_t timeout_ms, int *result);

/* ---- hist.c ---- */
#define HIST_BUCKETS 640
struct hist { uint64_t n, max, epoch; uint32_t b[HIST_BUCKETS]; };
unsigned hist_bucket(uint64_t v);
uint64_t hist_upper(unsigned bucket);
void hist_add(struct hist *h, uint64_t v);
void hist_merge(struct hist *into, const struct hist *from);
uint64_t hist_quantile(const struct hist *h, unsigned per_mille);

/* ---- loads.c: memory shared with the children, which they alone write (except `epoch` and `go`) ---- */
#define MAX_SLOTS 512
#define EXIT_CGROUP 9	/* a load that could not enter its cgroup */
struct slot {
	_Atomic uint64_t due;	/* since when this task has been waiting; 0: it is not */
	_Atomic uint64_t work, roundtrips, forks, errors, moves;
	_Atomic int ready;
	_Atomic int pid;
	_Atomic uint32_t turn;	/* of a `lock`: whose it is, in the load's first slot */
	int kind, cpu, index;
	struct hist total, window;
};
struct shared {
	_Atomic uint64_t epoch;		/* number of the measurement window; tasks start their window's figures afresh */
	_Atomic int prog_pid, prog_status;
	struct slot slot[MAX_SLOTS];
};
extern struct shared *shm;
extern int shm_fd;
int shared_create(void);
int load_main(int argc, char **argv);	/* the child's side */
const char *load_name(uint64_t seed);

/* ---- children.c ---- */
enum child_kind { CHILD_NONE, CHILD_LOAD, CHILD_EXEC, CHILD_PROGRAM, CHILD_PROBE };
struct child {
	enum child_kind kind;
	pid_t pid;
	bool exited, we_signalled, told;
	int status;
	uint64_t ended;
	int out_fd;		/* read end of its output, -1 none */
	int load, slot;		/* of a load */
	struct logsrc log;	/* of an exec */
	struct logsrc *to;
	char last_line[256];
	unsigned last_len;
	bool last_done;
};
#define MAX_CHILDREN 600
void children_init(void);
/* argv[0] must be the runner's own mode word; starts /proc/self/exe with it. Returns the child or NULL with *err. */
struct child *child_spawn(enum child_kind kind, char *const argv[], bool with_output, struct logsrc *to, int *err);
void child_free(struct child *c);
void children_reap(void);
void children_drain(void);	/* read output that has come */
void child_signal(struct child *c, int sig);
bool child_gone(struct child *c);
void children_report_deaths(void);
int exec_main(int argc, char **argv);
int probe_main(int argc, char **argv);

/* ---- measure.c: the runner's side of loads ---- */
int load_start(int nwords, char **words, char *why, size_t whylen);
int load_stop(const char *name, char *why, size_t whylen);	/* -ENOENT: no such load */
void loads_kill_all(void);
void window_begin(const char *name);
int window_end(const char *name);
uint64_t loads_worst_wait(uint64_t now);

/* ---- oracle.c: what the kernel's tracepoints say ---- */
void oracle_load(void);
bool oracle_works(void);
void oracle_start(void);
int oracle_group(const char *name);	/* of a load or program, for whom is counted from now on */
void oracle_spawning(int group);	/* what this thread forks belongs to it; 0 to nobody */
uint64_t oracle_cputime(pid_t pid);	/* ns */
void oracle_window_begin(void);
void oracle_window_close(void);
void oracle_window_end(const char *name, uint64_t duration, uint64_t switches);
void oracle_report(int group);		/* figures since the group's start */
void oracle_watch(bool trouble);	/* the monitor's: is it time to tell what led to this? */
void oracle_end(void);

/* ---- kmsg.c: kernel log and sched_ext's tracepoints ---- */
struct kernel_exit { bool seen; char ops[128], reason[160], message[1200]; bool kind_seen; uint32_t kind; };
void kmsg_open(void);
void trace_open(void);
void kernel_drain(void);
void kernel_exit_reset(void);
void kernel_exit_get(struct kernel_exit *e);

/* ---- btf.c: what the running kernel calls things ---- */
int kbtf_load(void);
bool kbtf_enum(const char *name, uint64_t *value);
const char *kbtf_exit_kind(uint32_t kind);
bool kbtf_exit_kind_value(const char *name, uint32_t *kind);

/* ---- scx.c ---- */
struct scx_state { char state[24], ops[128]; uint64_t enable_seq, rejected; };
struct attach_result {
	bool ok;
	const char *stage;
	int err;
	char detail[1024], ops[128];
	uint64_t enable_seq, timeout_ms, elapsed;
};
void scx_init(void);
void scx_read(struct scx_state *s);
void scx_watch(void);		/* the monitor's look: has it left? */
bool scx_is_ours(void);
bool scx_has_left(void);		/* it was enabled, nobody asked it to leave, and it left */
bool scx_is_gone(void);		/* it was to be enabled and is not */
int scx_attach(uint64_t ms, char *why, size_t whylen);
void scx_keep(void);		/* what is attached now is what the next attach is to find */
int scx_detach(uint64_t ms, bool kill, char *why, size_t whylen);	/* kill: a program gets no chance to tidy up */

/* ---- object.c ---- */
struct uei_copy { uint32_t kind; int64_t code; char reason[160], message[1100]; };
int object_load(void *result);		/* struct attach_result; for pool_call */
int object_attach(void *result);
int object_detach(void *unused);
void object_close(void);
bool object_uei(struct uei_copy *u);

/* ---- program.c ---- */
int program_start(struct attach_result *r);
struct child *program_child(void);
void program_signal(int sig);
void program_end_text(char *buf, size_t n);
void program_forget(void);
int program_main(int argc, char **argv);

/* ---- health.c ---- */
bool health_check(uint64_t ms, char *why, size_t whylen);

/* ---- topology.c ---- */
void topology_tell(struct json *j);	/* the rest of `hello` */
int cpu_switch(const char *how, int cpu, uint64_t ms, char *why, size_t whylen);	/* how: online, offline */

/* ---- cgroup.c ---- */
int cgroup_make(const char *name, int nfiles, char **files, char *why, size_t whylen);	/* files: NAME=VALUE */
int cgroup_remove(const char *name, char *why, size_t whylen);
int cgroup_enter(const char *name);	/* the calling process */
void cgroup_rounds(struct slot *s, uint64_t period_us, void (*begins)(struct slot *, uint64_t),
		   void (*over)(struct slot *, uint64_t));

/* ---- starving.c ---- */
bool starving_scan(uint64_t limit_ms);	/* whether anybody starves */

/* ---- monitor.c ---- */
void monitor_start(void);
void monitor_again(uint64_t watchdog_ms);	/* time counts from now on */
void monitor_run(void);		/* until the steps are done or the limit is over */
void monitor_steps_done(bool ok);
bool job_over(void);
void watchdog_arm(uint64_t ms);
void watchdog_disarm(void);

/* ---- job.c ---- */
struct step { int nwords; char **words; };
enum candidate_kind { CANDIDATE_NONE, CANDIDATE_OBJECT, CANDIDATE_PROGRAM };
struct job {
	uint64_t seed, limit_ms, heartbeat_ms, watchdog_ms, timeout_ms, starved_ms, oracle, callbacks;
	enum candidate_kind candidate;
	int nargs;
	char **args;		/* candidate's words: path, arguments */
	int nsteps;
	struct step *steps;
};
extern struct job job;
int job_parse(char *text, struct job *j, char *why, size_t whylen);
void job_run(void);
const char *job_path(const char *path, char *buf, size_t n);	/* relative ones are below /job */

/* ---- world.c ---- */
void warm_start(void);
void world_vary(uint64_t seed);
int world_saved(char *why, size_t whylen);	/* the job is another one behind it */

/* ---- init.c ---- */
extern bool is_init;
void init_mounts(void);
void init_modules(void);
void init_poweroff(void);

/* ---- main.c ---- */
void hello(struct json *j);		/* who we are, the first event of a stream */
void told_job(void);

int selftest_main(void);

#endif
