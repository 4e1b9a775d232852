// SPDX-License-Identifier: GPL-2.0-only
/*
 * Candidates that are a program with its own loader. It runs as root with few capabilities, in namespaces of its own and
 * on a read-only tree, so that its influence on the machine is the scheduler that it loads.
 *
 *   runner -> keeper (runner's pid namespace, real-time: starts and reaps the program even when nothing else runs)
 *               -> init of the new pid namespace (does nothing; its death kills all that is in there)
 *               -> the program
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oracle.h"
#include "runner.h"

/*
 * All that a scheduler's loader may need: BPF and PERFMON for struct_ops and tracing programs. What is not here is not
 * there, also not for root: no SYS_ADMIN, SYS_RAWIO, SYS_BOOT, SYS_MODULE, MKNOD, SYS_PTRACE, DAC_OVERRIDE, KILL.
 */
static const int kept[] = { CAP_BPF, CAP_PERFMON, CAP_IPC_LOCK, CAP_SYS_RESOURCE };

/*
 * The same tree once more, to be the program's root: whoever is in a chroot cannot make user namespaces, and in one of its
 * own the program would have all capabilities again.
 */
#define NEW_ROOT "/run/root"

static struct child *child;

/* ---- the runner's side ---- */

static int start_call(void *p)
{
	struct attach_result *r = p;
	static char *argv[512];
	int n = 0, err = 0;

	argv[n++] = "program";
	for (int i = 0; i < job.nargs && n < 510; i++)
		argv[n++] = job.args[i];
	argv[n] = NULL;
	oracle_spawning(GROUP_CANDIDATE);
	child = child_spawn(CHILD_PROGRAM, argv, true, &log_program, &err);
	oracle_spawning(0);
	if (!child) {
		r->err = -err;
		snprintf(r->detail, sizeof(r->detail), "cannot start the program: %s", errno_name(err));
	}
	return child ? 0 : err;
}

int program_start(struct attach_result *r)
{
	int e, result = 0;

	atomic_store(&shm->prog_pid, 0);
	atomic_store(&shm->prog_status, -1);
	e = pool_call(start_call, r, 10000, &result);
	if (e) {
		r->err = -e;
		snprintf(r->detail, sizeof(r->detail), "cannot start the program: fork has not returned");
	}
	return e ? e : result;
}

struct child *program_child(void)
{
	return child;
}

void program_signal(int sig)
{
	int pid = atomic_load(&shm->prog_pid);

	if (!child || child->exited)
		return;
	child->we_signalled = true;
	if (pid > 0)
		kill(pid, sig);
	else if (sig == SIGKILL)
		child_signal(child, sig);
}

void program_end_text(char *buf, size_t n)
{
	int st = atomic_load(&shm->prog_status);

	if (st == -1)
		st = child->status;
	if (WIFSIGNALED(st))
		snprintf(buf, n, "killed by signal %d; last line: %s", WTERMSIG(st), child->last_line);
	else
		snprintf(buf, n, "exit status %d; last line: %s", WEXITSTATUS(st), child->last_line);
}

void program_forget(void)
{
	if (child && child->exited) {
		child_free(child);
		child = NULL;
	}
}

/* ---- the keeper's side: a process of its own ---- */

static void fail(const char *what)
{
	dprintf(2, "testbed-runner: cannot confine the program: %s: %s\n", what, errno_name(errno));
	_exit(126);
}

static void readonly_tree(const char *path, bool recursive)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY };

	if (syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? AT_RECURSIVE : 0, &a, sizeof(a)))
		fail(path);
}

static void bind_over(const char *from, const char *to)
{
	if (mount(from, to, NULL, MS_BIND, NULL) && errno != ENOENT)
		fail(to);
}

/* A /dev with nothing in it that leads to hardware or to the machine's terminal. */
static void small_dev(void)
{
	static const char *const names[] = { "null", "zero", "full", "random", "urandom" };
	char from[64], to[64];

	mkdir("/tmp/dev", 0755);
	if (mount("dev", "/tmp/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k"))
		fail("tmpfs for /dev");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int fd;

		snprintf(from, sizeof(from), "/dev/%s", names[i]);
		snprintf(to, sizeof(to), "/tmp/dev/%s", names[i]);
		fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		close(fd);
		bind_over(from, to);
	}
	mkdir("/tmp/dev/shm", 01777);
	if (symlink("/proc/self/fd", "/tmp/dev/fd"))
		fail("/dev/fd");
	if (mount("/tmp/dev", "/dev", NULL, MS_BIND | MS_REC, NULL))
		fail("/dev");
}

/* In the new namespaces, as pid 1 of the new one, because /proc is of the pid namespace of its mounter. */
static void confine_mounts(void)
{
	static const char *const hidden[] = { "/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf" };
	static const char *const locked[] = { "/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs" };

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("private mounts");
	if (mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m"))
		fail("/tmp");
	small_dev();
	if (mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m"))
		fail("/run");
	mkdir(NEW_ROOT, 0755);
	for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
		if (mount("none", hidden[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k") && errno != ENOENT)
			fail(hidden[i]);
	readonly_tree("/", true);
	{
		struct mount_attr a = { .attr_clr = MOUNT_ATTR_RDONLY };

		syscall(SYS_mount_setattr, AT_FDCWD, "/tmp", 0, &a, sizeof(a));
		syscall(SYS_mount_setattr, AT_FDCWD, "/run", 0, &a, sizeof(a));
	}
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		fail("/proc");
	/* root owns these files, and for many of them that alone is permission to write */
	for (size_t i = 0; i < sizeof(locked) / sizeof(locked[0]); i++) {
		if (access(locked[i], F_OK))
			continue;
		if (mount(locked[i], locked[i], NULL, MS_BIND | MS_REC, NULL))
			fail(locked[i]);
		readonly_tree(locked[i], true);
	}
	bind_over("/dev/null", "/proc/sysrq-trigger");
	bind_over("/dev/null", "/proc/kcore");
	bind_over("/dev/null", "/proc/kmsg");
	if (mount("/", NEW_ROOT, NULL, MS_BIND | MS_REC, NULL))
		fail(NEW_ROOT);
}

static void drop_caps(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { 0 };

	for (int c = 0; c < 64; c++) {
		bool keep = false;

		for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
			keep |= kept[i] == c;
		if (!keep && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) && errno != EINVAL)
			fail("capability bounding set");
		if (keep) {
			d[c / 32].permitted |= 1u << (c % 32);
			d[c / 32].effective |= 1u << (c % 32);
		}
	}
	if (syscall(SYS_capset, &h, d))
		fail("capset");
}

static bool is_dynamic(const char *path)
{
	Elf64_Ehdr h;
	Elf64_Phdr p;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool yes = false;

	if (fd < 0)
		return false;
	if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && !memcmp(h.e_ident, ELFMAG, SELFMAG))
		for (int i = 0; i < h.e_phnum && !yes; i++)
			yes = pread(fd, &p, sizeof(p), (off_t)(h.e_phoff + (uint64_t)i * sizeof(p))) == sizeof(p) &&
			      p.p_type == PT_INTERP;
	close(fd);
	return yes;
}

static void run_program(char **argv)
{
	static const char loader[] = "/job/lib/ld-linux-x86-64.so.2";
	static char path[4096], *with_loader[515];
	struct rlimit files = { 65536, 65536 }, core = { 0, 0 };
	int n = 0;

	setsid();
	job_path(argv[0], path, sizeof(path));
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &core);
	if (chroot(NEW_ROOT))
		fail(NEW_ROOT);
	drop_caps();
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("LC_ALL", "C.UTF-8", 1);
	if (!access("/job/lib", F_OK))
		setenv("LD_LIBRARY_PATH", "/job/lib", 1);
	if (chdir("/tmp"))
		fail("/tmp");
	if (!access(loader, X_OK) && is_dynamic(path)) {
		with_loader[n++] = (char *)loader;
		with_loader[n++] = path;
		for (int i = 1; argv[i] && n < 514; i++)
			with_loader[n++] = argv[i];
		argv = with_loader;
	}
	set_policy(0, SCHED_OTHER, 0);
	execv(argv == with_loader ? loader : path, argv);
	dprintf(2, "testbed-runner: cannot execute %s: %s\n", path, errno_name(errno));
	_exit(127);
}

#define PIDS_TRIED 1024
#define RESERVED_PIDS 300	/* of the kernel; it begins there again, too */

/*
 * Forks into the new pid namespace, with the same number in there as outside. A scheduler whose decisions are made in user
 * space tells its BPF half its own process number, to be found by it: in the kernel that is the number outside.
 */
static pid_t fork_program(pid_t after)
{
	pid_t pid = after;

	for (int tries = 0; tries < PIDS_TRIED; tries++) {
		pid_t wanted[2] = { pid + 1, pid + 1 };	/* from the inside out */
		struct clone_args args = {
			.exit_signal = SIGCHLD, .set_tid = (uintptr_t)wanted, .set_tid_size = 2,
		};
		long made = syscall(SYS_clone3, &args, sizeof(args));

		pid++;
		if (made >= 0 || (errno != EEXIST && errno != EINVAL))	/* taken; beyond pid_max */
			return (pid_t)made;
		if (errno == EINVAL)
			pid = RESERVED_PIDS;
	}
	return -1;
}

/* argv = program PATH ARG… */
int program_main(int argc, char **argv)
{
	int ready[2], status = 0;
	pid_t init, prog;
	char c;

	if (argc < 2)
		return 1;
	ports_drop();
	prctl(PR_SET_NAME, "tb-keeper");
	shm = mmap(NULL, sizeof(*shm), PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	if (shm == MAP_FAILED)
		fail("shared memory");
	close_range(3, ~0u, 0);
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWPID))
		fail("unshare");
	if (pipe2(ready, O_CLOEXEC))
		fail("pipe");
	init = fork();
	if (init < 0)
		fail("fork");
	if (!init) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "tb-pidns");
		confine_mounts();
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		munmap(shm, sizeof(*shm));
		close_range(0, ~0u, 0);
		for (;;)
			if (waitpid(-1, NULL, 0) < 0)
				pause();
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1) {
		kill(init, SIGKILL);
		return 126;
	}
	prog = fork_program(init);
	if (prog < 0)
		fail("fork");
	if (!prog) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		munmap(shm, sizeof(*shm));
		run_program(argv + 1);
	}
	atomic_store(&shm->prog_pid, prog);
	/* Only the program holds the output now: its end is the end of the pipe. */
	close_range(1, 2, 0);
	while (waitpid(prog, &status, 0) != prog)
		;
	atomic_store(&shm->prog_status, status);
	kill(init, SIGKILL);
	waitpid(init, NULL, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
