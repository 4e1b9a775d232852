// SPDX-License-Identifier: GPL-2.0-only
/* The machine as its kernel sees it: cores, caches, nodes, scheduling domains; and CPUs that go and come back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

#define CPU "/sys/devices/system/cpu/"
#define NODE "/sys/devices/system/node/"
#define MAX_CPUS 1024
#define MAX_CACHES 16

/* Groups of CPUs as the kernel writes them, one space between two: "0-1 2-3". */
struct groups { char text[1000]; };

/* `list` without its line break, if it is not there yet. What has no room is left out, never cut. */
static void group_add(struct groups *g, char *list)
{
	char *end = g->text + strlen(g->text), *at = g->text;
	size_t n = strcspn(list, "\n");

	list[n] = 0;
	while (n && (at = strstr(at, list))) {
		if ((at == g->text || at[-1] == ' ') && (!at[n] || at[n] == ' '))
			return;
		at += n;
	}
	if (n && (size_t)(end - g->text) + n + 2 < sizeof(g->text))
		sprintf(end, "%s%s", end > g->text ? " " : "", list);
}

/* The CPUs that share the last cache of a CPU which holds data; empty if the kernel knows of none. */
static void last_cache(int cpu, char *list, size_t size)
{
	char path[128], word[64];
	uint64_t last = 0;

	list[0] = 0;
	for (int i = 0; i < MAX_CACHES; i++) {
		uint64_t level;

		snprintf(path, sizeof(path), CPU "cpu%d/cache/index%d/type", cpu, i);
		if (read_file(path, word, sizeof(word)) <= 0)
			break;
		snprintf(path, sizeof(path), CPU "cpu%d/cache/index%d/level", cpu, i);
		level = read_u64(path, 0);
		if (!strncmp(word, "Instruction", 11) || level <= last)
			continue;
		snprintf(path, sizeof(path), CPU "cpu%d/cache/index%d/shared_cpu_list", cpu, i);
		if (read_file(path, list, size) > 0)
			last = level;
	}
}

/* Names of CPU 0's scheduling domains, smallest first: what the kernel's own scheduler makes of all this. */
static void domains(char *names, size_t size)
{
	static char text[16 << 10];
	char *save = NULL, *line;
	bool first = false;

	names[0] = 0;
	if (read_file("/proc/schedstat", text, sizeof(text)) <= 0)
		return;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[32];
		size_t n = strlen(names);

		if (!strncmp(line, "cpu", 3)) {
			if (first)
				return;
			first = true;
		}
		/* "domain0 MC 3 …"; kernels before 6.15 have no name there, and a mask is in small letters */
		if (first && sscanf(line, "domain%*u %31[A-Z]", name) == 1 && n + strlen(name) + 2 < size)
			snprintf(names + n, size - n, "%s%s", n ? " " : "", name);
	}
}

void topology_tell(struct json *j)
{
	static struct groups cores, llcs, nodes;
	static unsigned char cpus[MAX_CPUS];
	char path[128], list[512], names[128];

	online_cpus(cpus, MAX_CPUS);
	for (int c = 0; c < MAX_CPUS; c++) {
		if (!cpus[c])
			continue;
		snprintf(path, sizeof(path), CPU "cpu%d/topology/thread_siblings_list", c);
		if (read_file(path, list, sizeof(list)) > 0)
			group_add(&cores, list);
		last_cache(c, list, sizeof(list));
		group_add(&llcs, list);
	}
	if (read_file(NODE "has_cpu", list, sizeof(list)) > 0) {
		parse_cpulist(list, cpus, MAX_CPUS);
		for (int n = 0; n < MAX_CPUS; n++) {
			if (!cpus[n])
				continue;
			snprintf(path, sizeof(path), NODE "node%d/cpulist", n);
			if (read_file(path, list, sizeof(list)) > 0)
				group_add(&nodes, list);
		}
	}
	domains(names, sizeof(names));
	if (read_file(CPU "present", list, sizeof(list)) <= 0)
		list[0] = 0;
	ev_i64(j, "present", parse_cpulist(list, cpus, MAX_CPUS));
	ev_str(j, "cores", cores.text);
	ev_str(j, "llcs", llcs.text);
	ev_str(j, "nodes", nodes.text);
	ev_str(j, "domains", names);
}

/* ---- CPUs that go and come back ---- */

struct switch_call { char path[64], value[2]; };

static int switch_call(void *p)
{
	struct switch_call *c = p;

	return write_file(c->path, c->value);
}

int cpu_switch(const char *how, int cpu, uint64_t ms, char *why, size_t whylen)
{
	static struct switch_call call;	/* static: a call that never returns still uses it */
	static bool stuck;
	bool online = !strcmp(how, "online");
	int e, result = 0;

	if (stuck) {
		snprintf(why, whylen, "an earlier CPU has not gone %s in time", call.value[0] == '1' ? "online" : "offline");
		return -EBUSY;
	}
	snprintf(call.path, sizeof(call.path), CPU "cpu%d/online", cpu);
	strcpy(call.value, online ? "1" : "0");
	/* The kernel waits there for its threads on that CPU, which the candidate schedules. */
	e = pool_call(switch_call, &call, ms, &result);
	stuck = e == -ETIMEDOUT;
	if (e) {
		snprintf(why, whylen, "CPU %d has not gone %s in time: %s", cpu, how, errno_name(e));
		return e;
	}
	if (!result && read_u64(call.path, 2) != online)
		result = -EIO;
	if (result)
		snprintf(why, whylen, "CPU %d can't go %s: %s", cpu, how, errno_name(result));
	return result;
}
