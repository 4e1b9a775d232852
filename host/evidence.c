// SPDX-License-Identifier: GPL-2.0-only
/* What is kept of a rollback, for whoever looks at it afterwards. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host.h"

#define SAMPLES 600
#define SAMPLE_SIZE 512
#define MAX_ROLLBACKS 64

static char samples[SAMPLES][SAMPLE_SIZE];
static unsigned taken;

void evidence_reset(void)
{
	taken = 0;
}

void evidence_sample(json *sample)
{
	snprintf(samples[taken++ % SAMPLES], SAMPLE_SIZE, "%s",
		 json_object_to_json_string_ext(sample, JSON_C_TO_STRING_PLAIN));
}

/* So that the same failure of the same candidate is known again, on whichever host. */
void fingerprint(const char *code, const char *ops, const char *subject, char out[HEX])
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%s\n%s\n%s\n", code, ops, subject);

	sha256_text(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1, out);
}

static int put(const char *place, const char *name, const char *data, size_t n)
{
	char path[700];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	return n ? write_atomic(path, data, n, 0600) : 0;
}

int evidence_write(const struct record *r, json *rollback, char *place, size_t n)
{
	unsigned from = taken > SAMPLES ? taken - SAMPLES : 0;
	const char *text;
	char *all, folder[512];
	size_t len = 0;
	int e, i;

	place[0] = 0;
	snprintf(folder, sizeof(folder), EVIDENCE_DIR "/%s", r->id);
	if (mkdir(folder, 0700) && errno != EEXIST)
		return -errno;
	for (i = 1; i <= MAX_ROLLBACKS; i++) {
		snprintf(folder, sizeof(folder), EVIDENCE_DIR "/%s/%d", r->id, i);
		if (!mkdir(folder, 0700))
			break;
		if (errno != EEXIST)
			return -errno;
	}
	if (i > MAX_ROLLBACKS)
		return -EDQUOT;
	copy_text(place, n, folder);
	text = json_object_to_json_string_ext(rollback, JSON_C_TO_STRING_PRETTY);
	e = put(folder, "rollback.json", text, strlen(text));
	len = kmsg_tail(&text);
	e = put(folder, "kernel.log", text, len) ?: e;
	len = program_tail(&text);
	e = put(folder, "program.log", text, len) ?: e;
	len = object_log(&text);
	e = put(folder, "loader.log", text, len) ?: e;
	all = malloc((size_t)SAMPLES * (SAMPLE_SIZE + 1));
	if (!all)
		return -ENOMEM;
	for (len = 0; from < taken; from++)
		len += (size_t)sprintf(all + len, "%s\n", samples[from % SAMPLES]);
	e = put(folder, "samples.jsonl", all, len) ?: e;
	free(all);
	return e;
}
