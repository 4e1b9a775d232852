// SPDX-License-Identifier: GPL-2.0-only
/* Events: `SEQ MAC JSON` lines. Built on the caller's stack, numbered, signed and written under one lock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

#define BODY_MAX 4040	/* leaves room for `{"t":…,` and the closing brace within 4096 bytes of JSON */
#define STRING_MAX 3000	/* of one ordinary field, escaped */
#define CHUNK 2000

static pthread_mutex_t lock, log_lock;
static struct hmac mac;
static uint64_t seq;
static bool opened;

struct logsrc log_verifier, log_libbpf, log_program, log_kernel;

bool stream_is_open(void)
{
	return opened;
}

static void put(struct json *j, const char *s, size_t n)
{
	if (j->n + n > BODY_MAX) {
		j->full = true;
		return;
	}
	memcpy(j->b + j->n, s, n);
	j->n += (unsigned)n;
}

/* Escapes as much of value as fits into `room` bytes; returns how many raw bytes were taken. */
static size_t put_escaped(struct json *j, const char *value, size_t n, size_t room)
{
	static const char hex[] = "0123456789abcdef";
	size_t end = j->n + room, i;

	if (end > BODY_MAX)
		end = BODY_MAX;
	for (i = 0; i < n; i++) {
		unsigned char c = (unsigned char)value[i];

		if (c == '"' || c == '\\') {
			if (j->n + 2 > end)
				break;
			j->b[j->n++] = '\\';
			j->b[j->n++] = (char)c;
		} else if (c >= 0x20 && c < 0x7f) {
			if (j->n + 1 > end)
				break;
			j->b[j->n++] = (char)c;
		} else {
			if (j->n + 6 > end)
				break;
			memcpy(j->b + j->n, "\\u00", 4);
			j->b[j->n + 4] = hex[c >> 4];
			j->b[j->n + 5] = hex[c & 15];
			j->n += 6;
		}
	}
	return i;
}

/* false: no room for this field, which is then left out so that the object stays whole */
static bool key(struct json *j, const char *k, size_t need)
{
	if (j->n + strlen(k) + 4 + need > BODY_MAX) {
		j->full = true;
		return false;
	}
	put(j, ",\"", 2);
	put(j, k, strlen(k));
	put(j, "\":", 2);
	return true;
}

void ev_begin(struct json *j, const char *event)
{
	j->n = 0;
	j->full = false;
	put(j, "\"e\":\"", 5);
	put(j, event, strlen(event));
	put(j, "\"", 1);
}

static size_t str_room(struct json *j, const char *k, const char *value, size_t n, size_t max)
{
	size_t took, room;

	if (!key(j, k, 2))
		return 0;
	room = BODY_MAX - j->n - 2;
	put(j, "\"", 1);
	took = put_escaped(j, value, n, room < max ? room : max);
	put(j, "\"", 1);
	return took;
}

void ev_strn(struct json *j, const char *k, const char *value, size_t n)
{
	str_room(j, k, value, n, STRING_MAX);
}

void ev_str(struct json *j, const char *k, const char *value)
{
	ev_strn(j, k, value ? value : "", value ? strlen(value) : 0);
}

static size_t dec(char *to, uint64_t v)
{
	char tmp[24];
	size_t n = 0;

	do
		tmp[n++] = (char)('0' + v % 10);
	while (v /= 10);
	for (size_t i = 0; i < n; i++)
		to[i] = tmp[n - 1 - i];
	return n;
}

void ev_raw(struct json *j, const char *k, const char *value, size_t n)
{
	if (key(j, k, n))
		put(j, value, n);
}

void ev_u64(struct json *j, const char *k, uint64_t v)
{
	char t[24];

	if (key(j, k, 24))
		put(j, t, dec(t, v));
}

void ev_i64(struct json *j, const char *k, int64_t v)
{
	char t[24];

	if (!key(j, k, 24))
		return;
	if (v < 0)
		put(j, "-", 1);
	put(j, t, dec(t, v < 0 ? 0 - (uint64_t)v : (uint64_t)v));
}

void ev_bool(struct json *j, const char *k, bool v)
{
	if (key(j, k, 5))
		put(j, v ? "true" : "false", v ? 4 : 5);
}

static void fixed(struct json *j, const char *k, uint64_t v, unsigned places, uint64_t scale)
{
	char t[48];
	size_t n;
	uint64_t frac = v % scale;

	if (!key(j, k, 48))
		return;
	n = dec(t, v / scale);
	if (frac) {
		t[n++] = '.';
		for (unsigned i = places; i--; frac /= 10)
			t[n + i] = (char)('0' + frac % 10);
		n += places;
	}
	put(j, t, n);
}

void ev_milli(struct json *j, const char *k, uint64_t v)
{
	fixed(j, k, v, 3, 1000);
}

void ev_micro(struct json *j, const char *k, uint64_t v)
{
	fixed(j, k, v, 6, 1000000);
}

/* For who holds the lock. */
static void say(const struct json *j)
{
	/* Under the lock, and not on the stack: what depends on the key is nobody's to find (sha256.c). */
	static char line[4400];
	static uint8_t digest[32];
	static const char hex[] = "0123456789abcdef";
	struct iovec parts[2];
	size_t n, at_mac, at_json;

	n = dec(line, seq++);
	line[n++] = ' ';
	at_mac = n;
	n += 32;
	line[n++] = ' ';
	at_json = n;
	memcpy(line + n, "{\"t\":", 5);
	n += 5;
	n += dec(line + n, now_ns());
	line[n++] = ',';
	memcpy(line + n, j->b, j->n);
	n += j->n;
	line[n++] = '}';
	parts[0] = (struct iovec){ line, at_mac };	/* `SEQ ` */
	parts[1] = (struct iovec){ line + at_json, n - at_json };
	hmac_sign(&mac, parts, 2, digest);
	for (size_t i = 0; i < 16; i++) {
		line[at_mac + 2 * i] = hex[digest[i] >> 4];
		line[at_mac + 2 * i + 1] = hex[digest[i] & 15];
	}
	line[n++] = '\n';
	debugcon_write(line, n);
}

void ev_send(struct json *j)
{
	if (!opened)
		return;
	pthread_mutex_lock(&lock);
	say(j);
	pthread_mutex_unlock(&lock);
}

/*
 * A new stream, which begins with who we are: what others have to say waits for the lock until then. The firmware talks on
 * the same port before us (SeaBIOS does), so our first line must begin one.
 */
static void begin(void)
{
	struct json j;
	size_t n;
	uint8_t *key = fwcfg_read("opt/testbed/key", &n);

	if (!key || n < 16)
		die("no key in fw_cfg");
	hmac_init(&mac, key, n);
	explicit_bzero(key, n);
	free(key);
	seq = 0;
	log_init(&log_verifier, "verifier", LOG_LIMIT_VERIFIER);
	log_init(&log_libbpf, "libbpf", LOG_LIMIT);
	log_init(&log_program, "program", LOG_LIMIT);
	log_init(&log_kernel, "kernel", LOG_LIMIT);
	debugcon_write("\n", 1);
	hello(&j);
	say(&j);
}

void stream_open(void)
{
	mutex_init_pi(&lock);
	mutex_init_pi(&log_lock);
	begin();
	opened = true;
}

void stream_hold(void)
{
	pthread_mutex_lock(&log_lock);
	pthread_mutex_lock(&lock);
}

void stream_again(void)
{
	begin();
	pthread_mutex_unlock(&lock);
	pthread_mutex_unlock(&log_lock);
}

void log_init(struct logsrc *l, const char *name, uint64_t limit)
{
	memset(l, 0, sizeof(*l));
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->limit = limit;
}

static void log_event(struct logsrc *l, const char *data, size_t n, size_t *took)
{
	struct json j;

	ev_begin(&j, "log");
	ev_str(&j, "source", l->name);
	ev_u64(&j, "lost", l->lost);
	l->told_lost = l->lost;
	*took = str_room(&j, "text", data, n < CHUNK ? n : CHUNK, BODY_MAX);
	ev_send(&j);
}

void log_put(struct logsrc *l, const char *data, size_t n)
{
	if (!opened)
		return;
	pthread_mutex_lock(&log_lock);
	while (n) {
		size_t took, take = n;

		if (l->used >= l->limit) {
			l->lost += n;
			break;
		}
		if (take > l->limit - l->used)
			take = (size_t)(l->limit - l->used);
		log_event(l, data, take, &took);
		l->used += took;
		data += took;
		n -= took;
	}
	pthread_mutex_unlock(&log_lock);
}

void log_close(struct logsrc *l)
{
	size_t took;

	pthread_mutex_lock(&log_lock);
	if (l->lost != l->told_lost)
		log_event(l, "", 0, &took);
	pthread_mutex_unlock(&log_lock);
}

/* The kernel's debug dump: its lines are collected to events of useful size. One user at a time (kmsg.c's lock). */
static char dump_buf[CHUNK];
static size_t dump_n, dump_used;

void dump_flush(void)
{
	size_t at = 0;

	while (at < dump_n) {
		struct json j;
		size_t took;

		ev_begin(&j, "dump");
		took = str_room(&j, "text", dump_buf + at, dump_n - at, BODY_MAX);
		ev_send(&j);
		if (!took)
			break;
		at += took;
	}
	dump_n = 0;
}

void dump_put(const char *data, size_t n)
{
	while (n) {
		size_t take = sizeof(dump_buf) - dump_n < n ? sizeof(dump_buf) - dump_n : n;

		if (dump_used >= LOG_LIMIT)
			return;
		memcpy(dump_buf + dump_n, data, take);
		dump_n += take;
		dump_used += take;
		data += take;
		n -= take;
		if (dump_n == sizeof(dump_buf))
			dump_flush();
	}
}
