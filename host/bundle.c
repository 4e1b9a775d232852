// SPDX-License-Identifier: GPL-2.0-only
/*
 * What was uploaded: an attestation, the manifest of the candidate, and the files that the manifest names. Names and sizes
 * come from a stranger until the manifest's hash is found in a signed statement, and each file is what its hash says.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

#define OBJECT "candidate.bpf.o"
#define MAX_STAGED 16

/* One component of a path that can't lead anywhere else. */
static bool is_name(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 200 || s[0] == '.')
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s == '/' || *s == 0x7f || *s == '\\')
			return false;
	return true;
}

static bool is_digest(const char *s)
{
	return s && is_hex(s, 64);
}

/* The manifest as testbed/promote/statement.py makes it; nothing else is a candidate. */
bool manifest_parse(struct bundle *b)
{
	static const char *const top[] = { "schema", "loader", "candidate", NULL };
	static const char *const parts[] = { "kind", "name", "sha256", "source_sha256", "object_sha256", "program_sha256",
					     "libraries", "options", "ops_name", NULL };
	json *libraries, *options;
	const char *schema, *loader, *kind;

	b->manifest = json_strict(b->manifest_text, b->manifest_len);
	if (!b->manifest || !json_only(b->manifest, top))
		return false;
	schema = json_text(b->manifest, "schema");
	loader = json_text(b->manifest, "loader");
	b->candidate = json_get(b->manifest, "candidate", json_type_object);
	if (!schema || strcmp(schema, "testbed.manifest/1") || !loader || !b->candidate || !json_only(b->candidate, parts))
		return false;
	kind = json_text(b->candidate, "kind");
	b->name = json_text(b->candidate, "name");
	libraries = json_get(b->candidate, "libraries", json_type_object);
	options = json_get(b->candidate, "options", json_type_array);
	if (!kind || !b->name || !*b->name || strlen(b->name) > 255 || !libraries || !options ||
	    !is_digest(json_text(b->candidate, "sha256")) || json_object_object_length(libraries) > MAX_LIBRARIES ||
	    json_object_array_length(options) > MAX_OPTIONS)
		return false;
	for (size_t i = 0; i < json_object_array_length(options); i++)
		if (!json_text(json_object_array_get_idx(options, i), NULL))
			return false;
	json_object_object_foreach(libraries, soname, digest)
		if (!is_name(soname) || !is_digest(json_text(digest, NULL)))
			return false;
	b->program = !strcmp(kind, "program");
	if (strcmp(loader, b->program ? "its own program" : "testbed"))
		return false;
	if (b->program) {
		b->program_sha256 = json_text(b->candidate, "program_sha256");
		return is_name(b->name) && is_digest(b->program_sha256);
	}
	b->object_sha256 = json_text(b->candidate, "object_sha256");
	return (!strcmp(kind, "source") || !strcmp(kind, "object")) && is_digest(b->object_sha256) &&
	       !json_object_array_length(options) && !json_object_object_length(libraries);
}

bool bundle_each(json *candidate, bool (*each)(const char *, const char *, size_t, void *), void *arg)
{
	char path[512];
	const char *program = json_text(candidate, "program_sha256"), *object = json_text(candidate, "object_sha256");

	if (!program || strcmp(json_text(candidate, "kind"), "program"))
		return each(OBJECT, object, MAX_OBJECT, arg);
	snprintf(path, sizeof(path), "bin/%s", json_text(candidate, "name"));
	if (!each(path, program, MAX_PROGRAM, arg))
		return false;
	json *libraries = json_get(candidate, "libraries", json_type_object);
	json_object_object_foreach(libraries, soname, digest)
	{
		snprintf(path, sizeof(path), "lib/%s", soname);
		if (!each(path, json_object_get_string(digest), MAX_PROGRAM, arg))
			return false;
	}
	return true;
}

void bundle_path(const struct bundle *b, const char *name, char *to, size_t n)
{
	snprintf(to, n, "%s/files/%s", b->dir, name);
}

/* ---- one file, hashed and perhaps copied ---- */

/* Opens DIR/files/PATH; no component may be a link. */
static int open_file(int dir, const char *path)
{
	char folder[8] = "";
	int at = openat(dir, "files", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), fd = -1, e;
	const char *name = strchr(path, '/');

	if (at >= 0 && name) {
		int sub;

		snprintf(folder, sizeof(folder), "%.*s", (int)(name - path), path);
		sub = openat(at, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		e = errno;
		close(at);
		errno = e;
		at = sub;
	}
	if (at >= 0) {
		fd = openat(at, name ? name + 1 : path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		e = errno;
		close(at);
		errno = e;
	}
	return fd;
}

/* Reads `from` to its end, into `to` as well if it is one; 0 or -errno. */
static int hash_file(int from, int to, size_t limit, char digest[HEX])
{
	static uint8_t block[1 << 16];
	crypto_hash_sha256_state state;
	uint8_t out[crypto_hash_sha256_BYTES];
	struct stat st;
	size_t total = 0;
	int e;

	if (fstat(from, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size > limit)
		return -EFBIG;
	crypto_hash_sha256_init(&state);
	for (;;) {
		ssize_t r = read(from, block, sizeof(block));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		total += (size_t)r;
		if (total > limit)
			return -EFBIG;
		crypto_hash_sha256_update(&state, block, (size_t)r);
		e = to >= 0 ? write_all(to, block, (size_t)r) : 0;
		if (e)
			return e;
	}
	crypto_hash_sha256_final(&state, out);
	hex(out, sizeof(out), digest);
	return 0;
}

struct altered { int dir; char *which; size_t n; };

static bool same(const char *path, const char *sha256, size_t limit, void *arg)
{
	struct altered *a = arg;
	int fd = open_file(a->dir, path);
	char digest[HEX] = "";

	if (fd >= 0) {
		if (hash_file(fd, -1, limit, digest))
			digest[0] = 0;
		close(fd);
	}
	if (!strcmp(digest, sha256))
		return true;
	copy_text(a->which, a->n, path);
	return false;
}

bool bundle_altered(const struct bundle *b, char *which, size_t n)
{
	struct altered a = { open(b->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), which, n };
	bool fine;

	fine = bundle_each(b->candidate, same, &a);
	if (a.dir >= 0)
		close(a.dir);
	return !fine;
}

int bundle_open(const char *id, struct bundle *b)
{
	char text[HEX];
	int dir, e = 0;

	memset(b, 0, sizeof(*b));
	if (!is_hex(id, 64))
		return -ENOENT;
	copy_text(b->id, sizeof(b->id), id);
	snprintf(b->dir, sizeof(b->dir), STAGED_DIR "/%s", id);
	dir = open(b->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -ENOENT;
	b->attestation = read_whole(dir, "attestation.json", MAX_ENVELOPE, &b->attestation_len);
	b->manifest_text = read_whole(dir, "manifest.json", MAX_MANIFEST, &b->manifest_len);
	close(dir);
	if (!b->attestation || !b->manifest_text)
		e = -EBADMSG;
	if (!e) {
		sha256_text(b->attestation, b->attestation_len, text);
		if (strcmp(text, id) || !manifest_parse(b))
			e = -EBADMSG;
		sha256_text(b->manifest_text, b->manifest_len, b->subject);
	}
	if (e)
		bundle_close(b);
	return e;
}

void bundle_close(struct bundle *b)
{
	free(b->attestation);
	free(b->manifest_text);
	json_object_put(b->manifest);
	memset(b, 0, sizeof(*b));
}

/* ---- staging ---- */

static void remove_tree(int at, const char *name, int depth)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	while (d && depth < 4 && (entry = readdir(d))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(fd, entry->d_name, 0))
			remove_tree(fd, entry->d_name, depth + 1);
	}
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	unlinkat(at, name, AT_REMOVEDIR);
}

static bool is_needed(const char *id)
{
	struct record r;
	bool needed = false;

	if (!record_read(CURRENT_FILE, &r))
		needed = !strcmp(r.id, id) || !strcmp(r.previous, id);
	if (!needed && !record_read(LAST_GOOD_FILE, &r))
		needed = !strcmp(r.id, id);
	return needed;
}

/* What was never finished goes, and the oldest beyond what may lie here. */
static void make_room(void)
{
	int at = open(STAGED_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (;;) {
		int fd = dup(at), n = 0;
		DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
		struct dirent *entry;
		char oldest[256] = "";
		time_t when = 0;

		if (!d)
			break;
		rewinddir(d);
		while ((entry = readdir(d))) {
			struct stat st;

			if (entry->d_name[0] == '.' && !strncmp(entry->d_name, ".new.", 5))
				remove_tree(at, entry->d_name, 0);
			if (entry->d_name[0] == '.' || fstatat(at, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
				continue;
			n++;
			if (!is_needed(entry->d_name) && (!when || st.st_mtime < when)) {
				when = st.st_mtime;
				copy_text(oldest, sizeof(oldest), entry->d_name);
			}
		}
		closedir(d);
		if (n < MAX_STAGED || !oldest[0])
			break;
		remove_tree(at, oldest, 0);
	}
	if (at >= 0)
		close(at);
}

struct copying { int from, to; char which[300]; int err; };

static bool copy_one(const char *path, const char *sha256, size_t limit, void *arg)
{
	struct copying *c = arg;
	int in = open_file(c->from, path), out = -1;
	char digest[HEX] = "", target[600];

	snprintf(target, sizeof(target), "files/%s", path);
	copy_text(c->which, sizeof(c->which), path);
	c->err = in < 0 ? -errno : 0;
	if (!c->err) {
		out = openat(c->to, target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
		c->err = out < 0 ? -errno : hash_file(in, out, limit, digest);
	}
	/* a candidate's program runs as another user */
	if (!c->err && (fchmod(out, 0755) || fsync(out)))
		c->err = -errno;
	if (!c->err && strcmp(digest, sha256))
		c->err = -EBADMSG;
	if (out >= 0)
		close(out);
	if (in >= 0)
		close(in);
	return !c->err;
}

static int write_at(int dir, const char *name, const char *data, size_t n)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), e;

	if (fd < 0)
		return -errno;
	e = write_all(fd, data, n);
	if (!e && fsync(fd))
		e = -errno;
	close(fd);
	return e;
}

static void not_read(const char *name)
{
	int e = errno;

	fail(e == EFBIG || e == EINVAL || e == ELOOP || e == ENOENT || e == ENOTDIR ? EXIT_REFUSED : EXIT_HOST, "bad-bundle",
	     "upload it again: attestation.json, manifest.json and files/, regular files and no links", "can't take `%s`: %s", name,
	     strerror(e));
}

static void full(int e)
{
	bool disk = e == -ENOSPC || e == -EDQUOT;

	fail(EXIT_HOST, disk ? "disk-full" : "io", disk ? "free space on the file system of " STATE_DIR : "look at the kernel's log",
	     "can't write below " STATE_DIR ": %s", strerror(-e));
}

static int sync_below(int dir)
{
	static const char *const folders[] = { "files/bin", "files/lib", "files", "." };

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		int fd = openat(dir, folders[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			continue;
		if (fsync(fd)) {
			int e = -errno;

			close(fd);
			return e;
		}
		close(fd);
	}
	return 0;
}

void bundle_stage(const char *from)
{
	struct bundle b = { 0 };
	struct copying c = { .from = open(from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) };
	char temporary[64];
	int staged, e;
	json *out;

	if (c.from < 0)
		not_read(from);
	b.attestation = read_whole(c.from, "attestation.json", MAX_ENVELOPE, &b.attestation_len);
	if (!b.attestation)
		not_read("attestation.json");
	b.manifest_text = read_whole(c.from, "manifest.json", MAX_MANIFEST, &b.manifest_len);
	if (!b.manifest_text)
		not_read("manifest.json");
	if (!manifest_parse(&b))
		fail(EXIT_REFUSED, "bad-manifest", "upload what `testbed promote` makes", "`manifest.json` is no manifest of a candidate");
	sha256_text(b.attestation, b.attestation_len, b.id);
	sha256_text(b.manifest_text, b.manifest_len, b.subject);
	staged = open(STAGED_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (staged < 0 || flock(staged, LOCK_EX))	/* one uploads at a time, since each tidies up */
		full(-errno);
	make_room();
	snprintf(temporary, sizeof(temporary), ".new.%d", (int)getpid());
	if (mkdirat(staged, temporary, 0711))
		full(-errno);
	c.to = openat(staged, temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	e = c.to < 0 || mkdirat(c.to, "files", 0711) || (b.program && (mkdirat(c.to, "files/bin", 0711) || mkdirat(c.to, "files/lib", 0711)))
		    ? -errno : 0;
	if (!e && !bundle_each(b.candidate, copy_one, &c)) {
		remove_tree(staged, temporary, 0);
		if (c.err == -EBADMSG)
			fail(EXIT_REFUSED, "other-bytes", "upload the files of the case that was attested",
			     "`files/%s` is not the file that the manifest names", c.which);
		if (c.err == -ENOSPC || c.err == -EDQUOT || c.err == -EIO)
			full(c.err);
		errno = -c.err;
		not_read(c.which);
	}
	if (!e)
		e = write_at(c.to, "attestation.json", b.attestation, b.attestation_len);
	if (!e)
		e = write_at(c.to, "manifest.json", b.manifest_text, b.manifest_len);
	if (!e)
		e = sync_below(c.to);
	if (!e) {
		struct bundle known;

		/* The same attestation once more: what lies there may be damaged, so it is replaced. */
		if (renameat(staged, temporary, staged, b.id)) {
			e = -errno;
			if (e == -ENOTEMPTY || e == -EEXIST) {
				char which[300];
				bool sound = !bundle_open(b.id, &known) && !strcmp(known.subject, b.subject) && !bundle_altered(&known, which, sizeof(which));

				e = 0;
				if (!sound) {
					remove_tree(staged, b.id, 0);
					e = renameat(staged, temporary, staged, b.id) ? -errno : 0;
				}
			}
		}
	}
	remove_tree(staged, temporary, 0);
	if (!e && fsync(staged))
		e = -errno;
	if (e)
		full(e);
	out = json_object_new_object();
	json_put_bool(out, "staged", true);
	json_put_text(out, "id", b.id);
	json_put_text(out, "subject", b.subject);
	json_put_text(out, "name", b.name);
	json_print(out);
	close(staged);
	bundle_close(&b);
}
