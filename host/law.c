// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's promotion policy. It is the law here: whoever promotes can't send another one, and a file that anybody but
 * root could have written is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define SCHEMA "testbed.host/1"
#define HINT "an administrator installs one: testbed host install HOST --policy NAME"

static void damaged(const char *what)
{
	fail(EXIT_HOST, "bad-policy", HINT, "`" LAW_FILE "` is damaged: %s", what);
}

static json *child(json *o, const char *name, enum json_type type)
{
	json *found = json_get(o, name, type);

	if (!found)
		damaged(name);
	return found;
}

static uint64_t number(json *o, const char *name, uint64_t from, uint64_t to)
{
	int64_t v = json_object_get_int64(child(o, name, json_type_int));

	if (v < 0 || (uint64_t)v < from || (uint64_t)v > to)
		damaged(name);
	return (uint64_t)v;
}

static const char *text(json *o, const char *name)
{
	const char *found = json_text(o, name);

	if (!found || !*found)
		damaged(name);
	return found;
}

static bool all_texts(json *o)
{
	for (size_t i = 0; i < json_object_array_length(o); i++)
		if (!json_text(json_object_array_get_idx(o, i), NULL))
			return false;
	return true;
}

/* What verify.c reads without looking again. */
static void check_demands(const struct law *law)
{
	json *accepts = child(law->policy, "accepts", json_type_array), *risks = child(law->policy, "risks", json_type_array);
	json *runs = child(law->policy, "runs", json_type_object), *known = child(law->doc, "verdict_policies", json_type_object);
	json *machines = child(law->doc, "topologies", json_type_object), *wanted = child(runs, "topologies", json_type_array);

	if (!json_object_array_length(accepts))
		damaged("accepts");
	for (size_t i = 0; i < json_object_array_length(accepts); i++) {
		const char *name = text(json_object_array_get_idx(accepts, i), "policy");
		json *files = child(known, name, json_type_object), *scenarios = child(files, "scenarios", json_type_object);

		if (!is_hex(text(files, "sha256"), 64))
			damaged(name);
		json_object_object_foreach(scenarios, key, value)
			if (!json_text(value, NULL) || !is_hex(json_object_get_string(value), 64))
				damaged(key);
	}
	for (size_t i = 0; i < json_object_array_length(risks); i++)
		text(json_object_array_get_idx(risks, i), "code");
	if (!all_texts(child(runs, "clocks", json_type_array)) || !all_texts(wanted))
		damaged("runs");
	for (size_t i = 0; i < json_object_array_length(wanted); i++)
		text(machines, json_object_get_string(json_object_array_get_idx(wanted, i)));
	number(runs, "seeds", 1, 1000);
	if (!all_texts(child(law->doc, "failure_modes", json_type_array)))
		damaged("failure_modes");
	number(law->policy, "max_age_days", 1, 3650);
	child(law->policy, "same_kernel", json_type_boolean);
	text(child(law->policy, "benefit", json_type_object), "demand");
	child(child(law->policy, "signatures", json_type_object), "self_signed", json_type_boolean);
}

void law_load(struct law *law)
{
	static const char *const top[] = { "schema", "policy", "verdict_policies", "topologies", "failure_modes", NULL };
	json *canary, *limits, *pressure;
	const char *schema;
	char *data;
	size_t n;
	int fd = open(LAW_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	memset(law, 0, sizeof(*law));
	if (fd < 0)
		fail(EXIT_HOST, "no-policy", HINT, "this host has no promotion policy: `" LAW_FILE "`: %s", strerror(errno));
	if (!owned_by_root(fd))
		fail(EXIT_HOST, "untrusted-file", "chown root and chmod 644, and look who has written it",
		     "`" LAW_FILE "` is not a file that only root can write");
	close(fd);
	data = read_whole(AT_FDCWD, LAW_FILE, MAX_LAW, &n);
	if (!data)
		fail(EXIT_HOST, "bad-policy", HINT, "can't read `" LAW_FILE "`: %s", strerror(errno));
	law->doc = json_strict(data, n);
	free(data);
	if (!law->doc || !json_only(law->doc, top))
		damaged("it is no such document");
	schema = text(law->doc, "schema");
	if (strcmp(schema, SCHEMA))
		damaged("schema, expected " SCHEMA);
	law->policy = child(law->doc, "policy", json_type_object);
	if (strcmp(text(law->policy, "kind"), "promotion"))
		damaged("kind, expected promotion");
	law->name = text(law->policy, "name");
	canary = child(law->policy, "canary", json_type_array);
	law->nstages = (int)json_object_array_length(canary);
	if (law->nstages < 1 || law->nstages > MAX_STAGES)
		damaged("canary");
	for (int i = 0; i < law->nstages; i++) {
		json *one = json_object_array_get_idx(canary, (size_t)i);
		const char *scope = text(one, "scope");

		copy_text(law->stages[i].name, sizeof(law->stages[i].name), text(one, "name"));
		law->stages[i].partial = !strcmp(scope, "partial");
		if (!law->stages[i].partial && strcmp(scope, "all"))
			damaged("scope");
		if (law->stages[i].partial && i && !law->stages[i - 1].partial)
			damaged("canary: a partial stage behind one for all tasks");
		law->stages[i].duration_ms = number(one, "duration", 1000, 366ull * 86400 * 1000);
	}
	limits = child(law->policy, "limits", json_type_object);
	law->watchdog_ms = number(limits, "watchdog", 100, 30000);
	law->wait_ms = number(limits, "wait", 10, law->watchdog_ms);
	law->detach_ms = number(limits, "detach", 100, 10000);
	law->attempts = (int)number(limits, "attempts", 1, 10);
	if (!json_object_object_get_ex(limits, "pressure", &pressure) ||
	    !(json_object_is_type(pressure, json_type_double) || json_object_is_type(pressure, json_type_int)))
		damaged("pressure");
	law->pressure = json_object_get_double(pressure);
	if (!(law->pressure > 0 && law->pressure <= 100))
		damaged("pressure");
	law->persist = json_object_get_boolean(child(law->policy, "persist", json_type_boolean));
	check_demands(law);
}
