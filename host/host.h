// SPDX-License-Identifier: GPL-2.0-only
/* testbed-host: takes an attested scheduler on this machine, watches it, and takes it back (docs/reference/host.md). */
#ifndef TESTBED_HOST_H
#define TESTBED_HOST_H

#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VERSION "1"

/*
 * Where everything lies. Only a build for tests has another root, and then the one who runs it takes root's place as the
 * owner of what must be root's; there is no option and no variable for it.
 */
#ifdef TESTBED_ROOT
#define ROOT TESTBED_ROOT
#define OWNER geteuid()
#else
#define ROOT ""
#define OWNER 0
#endif

#define CONFIG_DIR ROOT "/etc/testbed"
#define TRUSTED_DIR CONFIG_DIR "/trusted.d"
#define LAW_FILE CONFIG_DIR "/promotion.json"
#define HEALTH_FILE CONFIG_DIR "/health"
#define STATE_DIR ROOT "/var/lib/testbed"
#define STAGED_DIR STATE_DIR "/staged"
#define EVIDENCE_DIR STATE_DIR "/evidence"
#define CURRENT_FILE STATE_DIR "/current"
#define LAST_GOOD_FILE STATE_DIR "/last-good"
#define AUDIT_FILE STATE_DIR "/audit.jsonl"
#define RESERVE_FILE STATE_DIR "/reserve"
#define RUN_DIR ROOT "/run/testbed"
#define LOCK_FILE RUN_DIR "/lock"
#define WATCHER_FILE RUN_DIR "/watcher"
#define SOCKET_FILE RUN_DIR "/host.sock"
#define SCX_DIR ROOT "/sys/kernel/sched_ext"
#define BTF_FILE ROOT "/sys/kernel/btf/vmlinux"
#define PROC_DIR ROOT "/proc"
#define TRACE_DIR ROOT "/sys/kernel/tracing"

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define HEX 65			/* a SHA-256 as text */
#define MAX_STAGES 16
#define MAX_ENVELOPE (4 << 20)
#define MAX_MANIFEST (1 << 20)
#define MAX_LAW (1 << 20)
#define MAX_OBJECT (32 << 20)
#define MAX_PROGRAM (512 << 20)
#define MAX_LIBRARIES 256
#define MAX_OPTIONS 256
#define PRIORITY 50		/* of the watcher, SCHED_FIFO */
#define LIFELINE_NS (10 * NSEC_PER_SEC)

enum exit_code { EXIT_FINE = 0, EXIT_REFUSED = 1, EXIT_WRONG_USE = 2, EXIT_HOST = 3 };

typedef struct json_object json;

/* ---- util.c: time, hashes, files that are read with bounds and written whole or not at all ---- */
uint64_t now_ns(void);
void sleep_until(uint64_t ns);
void sleep_ms(uint64_t ms);
int64_t wall_s(void);
void wall_text(int64_t s, char out[32]);
bool wall_parse(const char *text, int64_t *s);
void hex(const uint8_t *in, size_t n, char *out);
bool is_hex(const char *text, size_t n);
int set_fifo(int prio);	/* 0: an ordinary task */
void sha256_text(const void *data, size_t n, char out[HEX]);
/* At most `limit` bytes of a regular file, with a NUL behind them; NULL with errno set. EFBIG: it is longer. */
char *read_whole(int dirfd, const char *path, size_t limit, size_t *n);
/* A file of /proc or /sys: what one read gives, without the last line break. */
ssize_t read_word(const char *path, char *buf, size_t size);
uint64_t read_u64(const char *path, uint64_t fallback);
int write_word(const char *path, const char *value);
int write_atomic(const char *path, const void *data, size_t n, mode_t mode);
int write_all(int fd, const void *data, size_t n);
int sync_dir(const char *path);
int make_dirs(void);
bool owned_by_root(int fd);
void copy_text(char *to, size_t size, const char *from);
void boot_id(char out[40]);
const char *who(void);
/* An error or a refusal as every document tells it. */
json *complaint(const char *code, const char *hint, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* Ends the program: {"error": …} on stdout. */
void fail(enum exit_code code, const char *name, const char *hint, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 4, 5)));
void out_of_memory(void) __attribute__((noreturn));

/* ---- json.c: strict reading, and the one canonical form ---- */
json *json_strict(const char *text, size_t n);
bool json_only(json *o, const char *const *names);
json *json_get(json *o, const char *name, enum json_type type);
const char *json_text(json *o, const char *name);
char *json_canonical(json *o, size_t *n);
void json_put_text(json *o, const char *name, const char *value);
void json_put_u64(json *o, const char *name, uint64_t value);
void json_put_i64(json *o, const char *name, int64_t value);
void json_put_real(json *o, const char *name, double value);
void json_put_bool(json *o, const char *name, bool value);
/* One line on stdout; the object is given away. */
void json_print(json *o);

/* ---- law.c: the host's promotion policy ---- */
struct stage { char name[64]; bool partial; uint64_t duration_ms; };
struct law {
	json *doc, *policy;
	const char *name;
	struct stage stages[MAX_STAGES];
	int nstages;
	uint64_t watchdog_ms, wait_ms, detach_ms;
	double pressure;
	int attempts;
	bool persist;
};
void law_load(struct law *law);

/* ---- bundle.c: what was uploaded ---- */
struct bundle {
	char id[HEX], subject[HEX];
	char dir[512];
	char *attestation;
	size_t attestation_len;
	char *manifest_text;
	size_t manifest_len;
	json *manifest, *candidate;
	bool program;
	const char *name, *object_sha256, *program_sha256;
};
/* Copies an uploaded directory in; ends the program if it is refused. */
void bundle_stage(const char *from);
/* 0, -ENOENT: not staged, -EBADMSG: damaged */
int bundle_open(const char *id, struct bundle *b);
void bundle_close(struct bundle *b);
/* The first file that is not what the manifest says; false if all are. */
bool bundle_altered(const struct bundle *b, char *which, size_t n);
void bundle_path(const struct bundle *b, const char *name, char *to, size_t n);
/* What DIR/files holds: calls `each` until it returns false. */
bool bundle_each(json *candidate, bool (*each)(const char *path, const char *sha256, size_t limit, void *arg), void *arg);
bool manifest_parse(struct bundle *b);

/* ---- verify.c: everything that speaks against a bundle ---- */
struct told {
	bool begun;		/* asked for by the watcher, whose attempt is in the log already */
	char case_id[64];	/* of the verdict */
	char kernel[128];
	int64_t attested;
	char keyid[HEX];
};
/* An array of {code, message, hint}; empty: nothing speaks against it. */
json *verify(const struct bundle *b, const struct law *law, struct told *told);
void refuse(json *list, const char *code, const char *hint, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* own: the one that has begun is the asker's, and is not counted */
int attempts_used(const char *subject, bool own);

/* ---- audit.c: the log that is only ever appended to ---- */
/* Takes the fields; 0 or -errno. */
int audit(const char *what, json *fields);
/* Calls `each` for every sound line; the number of the first broken line, 0 if the chain holds. */
int audit_walk(void (*each)(json *line, void *arg), void *arg, int *torn, int *lines);
int reserve_make(void);
void reserve_give(void);

/* ---- record.c: what is supposed to run, and who is at it ---- */
struct record {
	char id[HEX], subject[HEX], case_id[64], previous[HEX], by[64], boot[40], ops[128], stage[64], kernel_end[256];
	char phase[16];	/* starting, canary, kept, rolled-back, stopped */
	char limit[32];	/* of a rollback */
	int64_t started, since;
	uint64_t enable_seq;
};
int record_read(const char *path, struct record *r);
int record_write(const char *path, const struct record *r);
/* A file descriptor that holds the lock, or -EWOULDBLOCK with the words of who has it. */
int lock_take(const char *path, const char *words, char *holder, size_t n);
bool watcher_alive(void);

/* ---- facts.c ---- */
json *host_facts(void);
/* "" where there is no BTF */
void btf_sha256(char out[HEX]);

/* ---- scx.c: the kernel's own word ---- */
struct scx_state { char state[32], ops[128]; uint64_t enable_seq; bool present; };
void scx_read(struct scx_state *s);
bool scx_takes_all(void);
uint64_t scx_rejected(void);
bool scx_disabled_by(uint64_t end);
int scx_sysrq(void);

/* ---- kmsg.c: what the kernel says meanwhile ---- */
struct kernel_words {
	bool left;		/* `BPF scheduler "X" disabled` was said */
	char reason[256], message[1024];
	char alarm[256];	/* first line that speaks of a lock-up, a stall, an oops */
	const char *alarm_code;
	uint64_t lines;
};
void kmsg_open(void);
int kmsg_fd(void);
void kmsg_drain(void);
/* `all`: the last words too */
void kmsg_reset(bool all);
struct kernel_words *kmsg_words(void);
/* The last words, for the evidence. */
size_t kmsg_tail(const char **text);
uint64_t trace_lines(void);

/* ---- load.c: candidates that are a BPF object ---- */
struct attach {
	bool ok;
	const char *stage;
	int err;
	char detail[1400];
	char ops[128];
	uint64_t enable_seq;
	uint32_t timeout_ms;
	/* what is asked for */
	const struct bundle *bundle;
	bool partial;
	uint64_t watchdog_ms;
};
/* Does the object say that it takes only tasks that ask for it? -errno if it can't be read. */
int object_is_partial(const struct bundle *b);
int object_load(void *attach);
int object_attach(void *attach);
int object_detach(void *unused);
int object_close(void *unused);
size_t object_log(const char **text);

/* ---- spawn.c: what is not ours ---- */
void spawn_init(void);
uid_t spawn_uid(void);
gid_t spawn_gid(void);
/* pid or -errno; `out` is its stdout and stderr, `cgroup` a cgroup.procs to enter */
pid_t spawn(const char *path, char **argv, const int *caps, int ncaps, int out, const char *cgroup);

/* ---- program.c: candidates that are a program ---- */
int program_start(struct attach *a);
bool program_running(void);
bool program_gone(void);
void program_end_text(char *to, size_t n);
void program_signal(int sig);
void program_kill_all(void);
void program_forget(void);
void program_drain(void);
uint64_t program_lines(void);
size_t program_tail(const char **text);

/* ---- hands.c: calls that may not return ---- */
int hands_start(void);
/* 0 or -EBUSY: an earlier one has not returned */
int hands_begin(int (*fn)(void *), void *arg);
bool hands_done(int *result);

/* ---- scribe.c: writes that may take long ---- */
int scribe_start(void);
void scribe_audit(const char *what, json *fields);
void scribe_record(const char *path, const struct record *r);
int scribe_failed(void);
bool scribe_flush(uint64_t ms);

/* ---- probe.c: an ordinary thread on each CPU that wants to run now and then ---- */
int probes_start(bool partial);
/* Longest wait since the last call, or that of whoever waits now. */
uint64_t probes_wait(int *cpu);
void probes_stop(void);

/* ---- health.c: the user's own check ---- */
const char *health_init(void);
/* NULL, or why it is unhealthy. */
const char *health_look(uint64_t now);
bool health_idle(void);
void health_stop(void);

/* ---- evidence.c ---- */
void evidence_reset(void);
void evidence_sample(json *sample);
int evidence_write(const struct record *r, json *rollback, char *place, size_t n);
void fingerprint(const char *code, const char *ops, const char *subject, char out[HEX]);

/* ---- socket.c: watcher and followers ---- */
struct line_buffer { char text[16 << 10]; size_t n; };
struct client_words { bool stop, lost; uint64_t beats; };
int server_open(void);
void server_look(struct client_words *w, json *(*status)(void));
void server_send(json *line, bool kept);
void server_answer_stop(json *line);
void server_close(void);
int client_open(void);
json *client_line(int fd, struct line_buffer *b, uint64_t end, bool *closed);
json *client_ask(const char *what, uint64_t patience_ms);
int client_follow(void);

/* ---- watch.c ---- */
int watch(void);

/* ---- promoter.c: the verbs that a promoter uses ---- */
int verb_check(const char *id);
int verb_start(const char *id);
int verb_follow(void);
int verb_stop(void);
int verb_status(void);
int verb_history(void);
int verb_forgive(const char *id);
/* Against the kernel as it is now; one of ours that was kept is no other. */
void check_kernel_now(json *refusals, const struct record *ours);

#endif
