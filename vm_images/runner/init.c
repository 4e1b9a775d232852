// SPDX-License-Identifier: GPL-2.0-only
/* What an init does: mounts, modules, the power switch. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner.h"

bool is_init;

/* Is something mounted there? (Another device than its parent directory's.) */
static bool mounted(const char *path)
{
	struct stat a, b;
	char up[128];

	snprintf(up, sizeof(up), "%s/..", path);
	return !stat(path, &a) && !stat(up, &b) && a.st_dev != b.st_dev;
}

void init_mounts(void)
{
	static const struct { const char *type, *at, *options; unsigned long flags; } m[] = {
		{ "devtmpfs", "/dev", "mode=755", MS_NOSUID },
		{ "proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV },
		{ "tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV },
		{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
		{ "cgroup2", "/sys/fs/cgroup", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "tracefs", "/sys/kernel/tracing", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "bpf", "/sys/fs/bpf", "mode=700", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	};

	for (size_t i = 0; i < sizeof(m) / sizeof(m[0]); i++) {
		mkdir(m[i].at, 0755);
		if (!mounted(m[i].at) && mount(m[i].type, m[i].at, m[i].type, m[i].flags, m[i].options))
			dprintf(2, "testbed-runner: cannot mount %s: %s\n", m[i].at, errno_name(errno));
	}
}

/* Uncompressed modules, one path in each line, in the order in which they are to be loaded. */
void init_modules(void)
{
	char list[8192], *line = list;

	if (read_file("/lib/testbed/modules", list, sizeof(list)) <= 0)
		return;
	while (*line) {
		char *end = line + strcspn(line, "\n");
		bool more = *end;
		int fd;

		*end = 0;
		if (*line && *line != '#') {
			fd = open(line, O_RDONLY | O_CLOEXEC);
			if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
				dprintf(2, "testbed-runner: cannot load %s: %s\n", line, errno_name(errno));
			if (fd >= 0)
				close(fd);
		}
		line = more ? end + 1 : end;
	}
	/*
	 * It has done its work, telling QEMU where vmcoreinfo is. Its files in /sys would show whoever runs here what QEMU
	 * has for the runner alone.
	 */
	syscall(SYS_delete_module, "qemu_fw_cfg", O_NONBLOCK);
}

void init_poweroff(void)
{
	sync();
	reboot(RB_POWER_OFF);
	/* Powering off failed: a reset is the only other way out (QEMU runs with -no-reboot). */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
