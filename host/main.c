// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

static int verb_facts(void)
{
	json_print(host_facts());
	return EXIT_FINE;
}

static int verb_stage(const char *from)
{
	bundle_stage(from);
	return EXIT_FINE;
}

static const struct verb {
	const char *name, *operand;
	bool root;
	int (*plain)(void);
	int (*with)(const char *);
} verbs[] = {
	{ "facts", NULL, false, verb_facts, NULL }, { "stage", "DIR", true, NULL, verb_stage }, { "check", "ID", true, NULL, verb_check },
	{ "start", "ID", true, NULL, verb_start }, { "follow", NULL, true, verb_follow, NULL }, { "stop", NULL, true, verb_stop, NULL },
	{ "status", NULL, true, verb_status, NULL }, { "history", NULL, true, verb_history, NULL },
	{ "forgive", "ID", true, NULL, verb_forgive }, { "watch", NULL, true, watch, NULL },
};

static void usage(void)
{
	fail(EXIT_WRONG_USE, "usage", "docs/reference/host.md",
	     "usage: testbed-host facts | stage DIR | check ID | start ID | follow | stop | status | history | forgive ID | watch | --version");
}

/* 0, 1 and 2 are open, so that no file of ours is taken for one of them. */
static void standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

int main(int argc, char **argv)
{
	const struct verb *v = verbs, *end = verbs + sizeof(verbs) / sizeof(verbs[0]);
	int e;

	standard_files();
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	if (sodium_init() < 0)
		fail(EXIT_HOST, "memory", "try again", "libsodium can't begin");
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		puts("testbed-host " VERSION);
		return EXIT_FINE;
	}
	while (argc >= 2 && v < end && strcmp(v->name, argv[1]))
		v++;
	if (argc < 2 || v == end || argc != (v->operand ? 3 : 2))
		usage();
	if (v->root && geteuid() != OWNER)
		fail(EXIT_WRONG_USE, "not-root", "sudo -n testbed-host", "`%s` needs root", v->name);
	e = v->root ? make_dirs() : 0;
	if (e)
		fail(EXIT_HOST, e == -ENOSPC ? "disk-full" : "io", "look at " STATE_DIR " and " RUN_DIR, "can't make the folders: %s", strerror(-e));
	return v->operand ? v->with(argv[2]) : v->plain();
}
