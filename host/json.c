// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define DEPTH 24

/* A whole document and nothing behind it; NULL if it is anything else. */
json *json_strict(const char *text, size_t n)
{
	struct json_tokener *t;
	json *o;

	/* A NUL, also an escaped one, would end a name or a text early, so that two readers see two documents. */
	if (n > 16 << 20 || memchr(text, 0, n) || memmem(text, n, "\\u0000", 6))
		return NULL;
	t = json_tokener_new_ex(DEPTH);
	if (!t)
		out_of_memory();
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(t, text, (int)n);
	if (json_tokener_get_error(t) == json_tokener_success) {
		size_t end = json_tokener_get_parse_end(t);

		while (end < n && strchr(" \t\r\n", text[end]))
			end++;
		if (end < n) {
			json_object_put(o);
			o = NULL;
		}
	} else {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(t);
	return o;
}

/* An object with no other names than these. */
bool json_only(json *o, const char *const *names)
{
	if (!json_object_is_type(o, json_type_object))
		return false;
	json_object_object_foreach(o, key, value)
	{
		const char *const *n = names;

		(void)value;
		while (*n && strcmp(*n, key))
			n++;
		if (!*n)
			return false;
	}
	return true;
}

json *json_get(json *o, const char *name, enum json_type type)
{
	json *found;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, name, &found) ||
	    !json_object_is_type(found, type))
		return NULL;
	return found;
}

/* A text without NUL, which a C program would take for its end. */
const char *json_text(json *o, const char *name)
{
	json *found = name ? json_get(o, name, json_type_string) : o;
	const char *text;

	if (!found || !json_object_is_type(found, json_type_string))
		return NULL;
	text = json_object_get_string(found);
	return strlen(text) == (size_t)json_object_get_string_len(found) ? text : NULL;
}

/* ---- the form of testbed/case.py: sorted keys, two spaces, ASCII, a final newline ---- */

struct text { char *at; size_t n, room; };

static void put(struct text *t, const char *s, size_t n)
{
	if (t->n + n + 1 > t->room) {
		t->room = (t->n + n + 1) * 2;
		t->at = realloc(t->at, t->room);
		if (!t->at)
			out_of_memory();
	}
	memcpy(t->at + t->n, s, n);
	t->n += n;
	t->at[t->n] = 0;
}

static void put_words(struct text *t, const char *fmt, ...)
{
	char buf[128];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	put(t, buf, (size_t)n < sizeof(buf) ? (size_t)n : sizeof(buf) - 1);
}

/* The tokener has checked that it is UTF-8. */
static void put_string(struct text *t, const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;

	put(t, "\"", 1);
	while (p < end) {
		static const char plain[] = "\b\t\n\f\r", letter[] = "btnfr";
		const char *found = *p ? strchr(plain, *p) : NULL;
		uint32_t c = *p;
		int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;

		p++;
		if (more) {
			c &= 0x3fu >> more;
			while (more-- && p < end)
				c = c << 6 | (*p++ & 0x3f);
			if (c >= 0x10000)
				put_words(t, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
			else
				put_words(t, "\\u%04x", c);
		} else if (found) {
			put_words(t, "\\%c", letter[found - plain]);
		} else if (c == '"' || c == '\\') {
			put_words(t, "\\%c", (int)c);
		} else if (c < ' ' || c == 0x7f) {
			put_words(t, "\\u%04x", c);
		} else {
			put(t, (const char *)p - 1, 1);
		}
	}
	put(t, "\"", 1);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_value(struct text *t, json *o, int depth)
{
	size_t n, i = 0;

	switch (json_object_get_type(o)) {
	case json_type_object: {
		const char **names;

		n = (size_t)json_object_object_length(o);
		if (!n) {
			put(t, "{}", 2);
			break;
		}
		names = calloc(n, sizeof(*names));
		if (!names)
			out_of_memory();
		json_object_object_foreach(o, key, value)
		{
			(void)value;
			names[i++] = key;
		}
		/* UTF-8 and Python's code points have the same order */
		qsort(names, n, sizeof(*names), by_name);
		for (i = 0; i < n; i++) {
			put_words(t, "%s%*s", i ? ",\n" : "{\n", 2 * depth + 2, "");
			put_string(t, names[i], strlen(names[i]));
			put(t, ": ", 2);
			put_value(t, json_object_object_get(o, names[i]), depth + 1);
		}
		put_words(t, "\n%*s}", 2 * depth, "");
		free(names);
		break;
	}
	case json_type_array:
		n = json_object_array_length(o);
		if (!n) {
			put(t, "[]", 2);
			break;
		}
		for (; i < n; i++) {
			put_words(t, "%s%*s", i ? ",\n" : "[\n", 2 * depth + 2, "");
			put_value(t, json_object_array_get_idx(o, i), depth + 1);
		}
		put_words(t, "\n%*s]", 2 * depth, "");
		break;
	case json_type_string:
		put_string(t, json_object_get_string(o), (size_t)json_object_get_string_len(o));
		break;
	case json_type_boolean:
		put_words(t, "%s", json_object_get_boolean(o) ? "true" : "false");
		break;
	case json_type_null:
		put(t, "null", 4);
		break;
	default: {	/* numbers: no manifest has any */
		const char *s = json_object_to_json_string(o);

		put(t, s, strlen(s));
	}
	}
}

char *json_canonical(json *o, size_t *n)
{
	struct text t = { 0 };

	put_value(&t, o, 0);
	put(&t, "\n", 1);
	*n = t.n;
	return t.at;
}

void json_put_text(json *o, const char *name, const char *value)
{
	char clean[2048];
	size_t n = 0;

	/* What the kernel or a program says need not be UTF-8, and a document of ours is. */
	for (; *value && n < sizeof(clean) - 1; value++)
		clean[n++] = *value >= ' ' && *value < 0x7f ? *value : *value == '\n' ? ' ' : '?';
	clean[n] = 0;
	json_object_object_add(o, name, json_object_new_string_len(clean, (int)n));
}

void json_put_u64(json *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, json_object_new_uint64(value));
}

void json_put_i64(json *o, const char *name, int64_t value)
{
	json_object_object_add(o, name, json_object_new_int64(value));
}

void json_put_real(json *o, const char *name, double value)
{
	char text[32];

	snprintf(text, sizeof(text), "%.2f", value);
	json_object_object_add(o, name, json_object_new_double_s(value, text));
}

void json_put_bool(json *o, const char *name, bool value)
{
	json_object_object_add(o, name, json_object_new_boolean(value));
}

void json_print(json *o)
{
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	struct text t = { 0 };

	/* one write: a line is there or not */
	put(&t, text, strlen(text));
	put(&t, "\n", 1);
	write_all(1, t.at, t.n);
	free(t.at);
	json_object_put(o);
}
