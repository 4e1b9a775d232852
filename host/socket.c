// SPDX-License-Identifier: GPL-2.0-only
/* The watcher's socket. The watcher never waits for a client: whoever does not read loses lines. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host.h"

#define MAX_CLIENTS 8
#define MAX_KEPT 64
#define OUT (64 << 10)

static int listener = -1;
static struct client {
	int fd;
	bool follows, stops;
	char in[64];
	size_t in_n, out_n;
	char out[OUT];
} clients[MAX_CLIENTS];
static char *told[MAX_KEPT];	/* what a follower that comes late must know */
static int told_n;

static int address(struct sockaddr_un *a)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	if (strlen(SOCKET_FILE) >= sizeof(a->sun_path))
		return -ENAMETOOLONG;
	strcpy(a->sun_path, SOCKET_FILE);
	return 0;
}

int server_open(void)
{
	struct sockaddr_un a;
	mode_t mask;
	int e = address(&a);

	for (int i = 0; i < MAX_CLIENTS; i++)
		clients[i].fd = -1;
	if (e)
		return e;
	unlink(SOCKET_FILE);	/* the lock says that nobody has it open */
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0)
		return -errno;
	mask = umask(0177);
	e = bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 4) ? -errno : 0;
	umask(mask);
	return e;
}

static void drop(struct client *c)
{
	close(c->fd);
	c->fd = -1;
}

static void flush(struct client *c)
{
	while (c->out_n) {
		ssize_t r = send(c->fd, c->out, c->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r <= 0) {
			if (r < 0 && errno != EAGAIN && errno != EINTR)
				drop(c);
			return;
		}
		memmove(c->out, c->out + r, c->out_n - (size_t)r);
		c->out_n -= (size_t)r;
	}
}

static void put(struct client *c, const char *line)
{
	size_t n = strlen(line);

	if (c->fd < 0 || c->out_n + n + 1 > OUT)
		return;
	memcpy(c->out + c->out_n, line, n);
	c->out[c->out_n + n] = '\n';
	c->out_n += n + 1;
	flush(c);
}

static const char *plain(json *o)
{
	return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

/* To everybody who follows; what is `kept` is told to those who come later too. */
void server_send(json *line, bool kept)
{
	const char *text = plain(line);

	for (int i = 0; i < MAX_CLIENTS; i++)
		if (clients[i].fd >= 0 && clients[i].follows)
			put(&clients[i], text);
	if (kept && told_n < MAX_KEPT)
		told[told_n++] = strdup(text);
	json_object_put(line);
}

void server_answer_stop(json *line)
{
	const char *text = plain(line);

	for (int i = 0; i < MAX_CLIENTS; i++)
		if (clients[i].fd >= 0 && clients[i].stops)
			put(&clients[i], text);
	json_object_put(line);
}

static void word(struct client *c, const char *w, struct client_words *told_us, json *(*status)(void))
{
	if (!strcmp(w, "beat")) {
		told_us->beats++;
	} else if (!strcmp(w, "lost")) {
		told_us->lost = true;
	} else if (!strcmp(w, "stop")) {
		c->stops = true;
		told_us->stop = true;
	} else if (!strcmp(w, "follow")) {
		c->follows = true;
		for (int i = 0; i < told_n; i++)
			put(c, told[i]);
	} else if (!strcmp(w, "status")) {
		json *o = status();

		put(c, plain(o));
		json_object_put(o);
	}
}

static void read_client(struct client *c, struct client_words *w, json *(*status)(void))
{
	for (int i = 0; i < 16; i++) {
		ssize_t r = recv(c->fd, c->in + c->in_n, sizeof(c->in) - 1 - c->in_n, MSG_DONTWAIT);
		char *end;

		if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR)) {
			drop(c);
			return;
		}
		if (r < 0)
			return;
		c->in_n += (size_t)r;
		c->in[c->in_n] = 0;
		while (c->fd >= 0 && (end = memchr(c->in, '\n', c->in_n))) {
			*end = 0;
			word(c, c->in, w, status);
			c->in_n -= (size_t)(end + 1 - c->in);
			memmove(c->in, end + 1, c->in_n);
		}
		if (c->fd < 0 || c->in_n == sizeof(c->in) - 1) {
			if (c->fd >= 0)
				drop(c);	/* no word is so long */
			return;
		}
	}
}

void server_look(struct client_words *w, json *(*status)(void))
{
	for (int n = 0; listener >= 0 && n < MAX_CLIENTS; n++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
		struct ucred who;
		socklen_t len = sizeof(who);

		if (fd < 0)
			break;
		while (i < MAX_CLIENTS && clients[i].fd >= 0)
			i++;
		if (i == MAX_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != OWNER) {
			close(fd);
			continue;
		}
		memset(&clients[i], 0, offsetof(struct client, out));
		clients[i].fd = fd;
	}
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (clients[i].fd >= 0)
			flush(&clients[i]);
		if (clients[i].fd >= 0)
			read_client(&clients[i], w, status);
	}
}

/* Gives what was said last some time to be read. */
void server_close(void)
{
	uint64_t end = now_ns() + NSEC_PER_SEC;
	bool waits = true;

	while (waits && now_ns() < end) {
		waits = false;
		for (int i = 0; i < MAX_CLIENTS; i++) {
			if (clients[i].fd >= 0)
				flush(&clients[i]);
			waits |= clients[i].fd >= 0 && clients[i].out_n;
		}
		sleep_ms(5);
	}
	unlink(SOCKET_FILE);
	close(listener);
	listener = -1;
}

/* ---- the other side ---- */

int client_open(void)
{
	struct sockaddr_un a;
	int e = address(&a), fd;

	if (e)
		return e;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		e = -errno;
		close(fd);
		return e;
	}
	return fd;
}

/* The next line, parsed; NULL: none by then, or the other side has gone (*closed). */
json *client_line(int fd, struct line_buffer *b, uint64_t end, bool *closed)
{
	*closed = false;
	for (;;) {
		char *stop = memchr(b->text, '\n', b->n);
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ns();
		ssize_t r;
		int ready;

		if (stop) {
			json *o = json_strict(b->text, (size_t)(stop - b->text));

			b->n -= (size_t)(stop + 1 - b->text);
			memmove(b->text, stop + 1, b->n);
			if (o)
				return o;
			continue;
		}
		if (b->n == sizeof(b->text))
			b->n = 0;	/* no line of ours */
		ready = poll(&p, 1, end > now ? (int)((end - now) / NSEC_PER_MSEC) + 1 : 0);
		if (ready <= 0 && now >= end)
			return NULL;
		if (ready <= 0)
			continue;
		r = recv(fd, b->text + b->n, sizeof(b->text) - b->n, 0);
		if (r <= 0) {
			*closed = true;
			return NULL;
		}
		b->n += (size_t)r;
	}
}

json *client_ask(const char *what, uint64_t patience_ms)
{
	static struct line_buffer b;
	int fd = client_open();
	bool closed;
	json *answer = NULL;

	b.n = 0;
	if (fd < 0)
		return NULL;
	if (!write_all(fd, what, strlen(what)) && !write_all(fd, "\n", 1))
		answer = client_line(fd, &b, now_ns() + patience_ms * NSEC_PER_MSEC, &closed);
	close(fd);
	return answer;
}

/* stdin's lines are heartbeats, the watcher's lines go to stdout. */
int client_follow(void)
{
	static struct line_buffer b;
	int fd = client_open();
	bool alive = true, kept = false, ended = false;

	if (fd < 0)
		return -errno;
	if (write_all(fd, "follow\n", 7))
		return -errno;
	while (!ended) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = alive ? 0 : -1, .events = POLLIN } };
		bool closed = false;
		json *o;

		if (poll(p, 2, 1000) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents) {
			char beats[512];
			ssize_t r = read(0, beats, sizeof(beats));

			if (r <= 0) {
				alive = false;
				write_all(fd, "lost\n", 5);
			} else if (memchr(beats, '\n', (size_t)r)) {
				write_all(fd, "beat\n", 5);
			}
		}
		if (!p[0].revents)
			continue;
		while (!ended && (o = client_line(fd, &b, 0, &closed))) {
			const char *event = json_text(o, "event");

			kept = event && !strcmp(event, "kept");
			ended = kept || (event && !strcmp(event, "done"));
			json_print(o);
		}
		if (closed)
			break;
	}
	close(fd);
	return kept ? 0 : ended ? 1 : -EPIPE;
}
