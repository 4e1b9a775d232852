// SPDX-License-Identifier: GPL-2.0-only
/*
 * forger: a scheduler program that says PASS in the testbed's name.
 *
 * Failure mode: it tries every door that it knows out of its sandbox: the ports of
 * the stream, /dev/port and /dev/mem (also as device nodes of its own), the firmware
 * device with the job and the key, other processes' memory, signals to the runner and
 * to everybody, real-time priority, the watchdog, the kernel log and the console. It
 * writes forged events, kernel messages that would excuse it and an emulator's fault.
 * Then it attaches a scheduler that stalls. Each attempt is told on stdout, honestly:
 * `forger: NAME: got in` or `forger: NAME: ERROR`.
 *
 * class: integrity
 * expect: reject tampering,runnable-task-stall,machine-locked-up
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the skeleton's copy of the object's variables is written in. */
typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint8_t u8;

#include "forger.skel.h"

#define STREAM_PORT	0x402
#define SELECTOR_PORT	0x510
#define DATA_PORT	0x511

static const char events[] =
	"0 00000000000000000000000000000000 {\"t\":1,\"e\":\"hello\",\"version\":1}\n"
	"1 00000000000000000000000000000000 {\"t\":2,\"e\":\"attach\",\"ok\":true}\n"
	"2 00000000000000000000000000000000 {\"t\":3,\"e\":\"exit\",\"kind\":64,\"by_us\":true}\n"
	"3 00000000000000000000000000000000 {\"t\":4,\"e\":\"health\",\"ok\":true}\n"
	"4 00000000000000000000000000000000 {\"t\":5,\"e\":\"end\",\"ok\":true}\n";

static const char kernel_log[] =
	"<6>sched_ext: BPF scheduler \"forger\" disabled (unregistered from user space)\n"
	"<1>Oops: int3: 0000 [#1] SMP NOPTI\n"
	"<0>Kernel panic - not syncing: Fatal exception in interrupt\n";

static void tell(const char *name, int got_in)
{
	if (got_in)
		printf("forger: %s: got in\n", name);
	else
		printf("forger: %s: %s\n", name, strerror(errno));
	fflush(stdout);
}

/* In a child of its own: a door may cost the life of who opens it. */
static void try(const char *name, int (*attempt)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		tell(name, attempt() == 0);
		_exit(0);
	}
	if (pid < 0)
		tell(name, 0);
	else if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		printf("forger: %s: signal %d\n", name, WTERMSIG(status));
	fflush(stdout);
}

static int write_to(const char *path, const char *text, off_t offset)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (offset && lseek(fd, offset, SEEK_SET) < 0)
		return -1;
	while (*text) {
		size_t line = strcspn(text, "\n") + 1;

		if (write(fd, text, line) != (ssize_t)line)
			return -1;
		text += line;
	}
	return 0;
}

static int ports(void)
{
	if (ioperm(STREAM_PORT, 1, 1))
		return -1;
	for (const char *c = events; *c; c++)
		outb(*c, STREAM_PORT);
	return 0;
}

static int all_ports(void)
{
	if (iopl(3))
		return -1;
	for (const char *c = events; *c; c++)
		outb(*c, STREAM_PORT);
	return 0;
}

static int firmware_ports(void)
{
	if (ioperm(SELECTOR_PORT, 2, 1))
		return -1;
	outw(0x19, SELECTOR_PORT);
	(void)inb(DATA_PORT);
	return 0;
}

static int device_node(const char *path, int minor_number, int flags)
{
	int fd;

	if (mknod(path, S_IFCHR | 0600, makedev(1, minor_number)))
		return -1;
	fd = open(path, flags | O_CLOEXEC);
	unlink(path);
	if (fd < 0)
		return -1;
	return pwrite(fd, events, 1, STREAM_PORT) == 1 ? 0 : -1;
}

static int port_file(void) { return write_to("/dev/port", events, STREAM_PORT); }
static int port_node(void) { return device_node("/tmp/port", 4, O_WRONLY); }
static int memory_node(void) { return device_node("/tmp/mem", 1, O_WRONLY); }

static int memory_file(void)
{
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
		return -1;
	return 0;
}

static int read_some(const char *path)
{
	char buffer[64];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && read(fd, buffer, sizeof(buffer)) > 0 ? 0 : -1;
}

static int firmware_files(void)
{
	if (!read_some("/sys/firmware/qemu_fw_cfg/by_name/opt/testbed/key/raw"))
		return 0;
	if (access("/sys/firmware/qemu_fw_cfg/by_name", F_OK))
		return -1;
	errno = ENODATA;
	return -1;
}

static int fake_log(void) { return write_to("/dev/kmsg", kernel_log, 0); }
static int fake_console(void) { return write_to("/dev/ttyS0", kernel_log, 0); }
static int fake_main_console(void) { return write_to("/dev/console", kernel_log, 0); }
static int feed_watchdog(void) { return write_to("/dev/watchdog", "V\n", 0); }
static int sysrq(void) { return write_to("/proc/sysrq-trigger", "S\n", 0); }
static int init_memory(void) { return open("/proc/1/mem", O_RDWR | O_CLOEXEC) < 0 ? -1 : 0; }
static int init_environment(void) { return read_some("/proc/1/environ"); }
static int kill_init(void) { return kill(1, SIGKILL); }
static int stop_init(void) { return kill(1, SIGSTOP); }
static int new_proc(void) { return mount("proc", "/tmp", "proc", 0, NULL); }
static int raw_memory(void) { return read_some("/proc/kcore"); }

static int kill_parent(void)
{
	pid_t parent = getppid();
	char path[64];
	FILE *file;
	int grand = 0;

	/* The forger's own parent, if it can be seen from here. */
	snprintf(path, sizeof(path), "/proc/%d/stat", parent);
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%*d (%*[^)]) %*c %d", &grand) != 1)
			grand = 0;
		fclose(file);
	}
	if (grand <= 0) {
		errno = ESRCH;
		return -1;
	}
	return kill(grand, SIGKILL);
}

static int real_time(void)
{
	struct sched_param most = { .sched_priority = 99 };

	return sched_setscheduler(0, SCHED_FIFO, &most);
}

static void forge(void)
{
	fputs(events, stdout);
	fflush(stdout);

	try("ioperm of the stream", ports);
	try("iopl", all_ports);
	try("/dev/port", port_file);
	try("own /dev/port", port_node);
	try("/dev/mem", memory_file);
	try("own /dev/mem", memory_node);
	try("/proc/kcore", raw_memory);
	try("ioperm of fw_cfg", firmware_ports);
	try("fw_cfg in sysfs", firmware_files);
	try("/dev/kmsg", fake_log);
	try("/dev/ttyS0", fake_console);
	try("/dev/console", fake_main_console);
	try("/dev/watchdog", feed_watchdog);
	try("sysrq", sysrq);
	try("a proc of its own", new_proc);
	try("memory of pid 1", init_memory);
	try("environment of pid 1", init_environment);
	try("SCHED_FIFO 99", real_time);
	try("SIGSTOP to pid 1", stop_init);
	try("SIGKILL to pid 1", kill_init);
	try("SIGKILL to the parent", kill_parent);
}

int main(void)
{
	struct forger *skeleton;
	struct bpf_link *link;

	forge();

	skeleton = forger__open_and_load();
	if (!skeleton) {
		tell("load", 0);
		return 1;
	}
	/* The caller itself is spared, by definition. */
	tell("SIGKILL to everybody", kill(-1, SIGKILL) == 0);

	link = bpf_map__attach_struct_ops(skeleton->maps.forger_ops);
	tell("attach", link != NULL);
	fputs(events, stdout);
	fflush(stdout);
	for (;;)
		pause();
}
