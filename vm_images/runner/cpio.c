// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unpacks an uncompressed `newc` archive. The archive comes from the host, but what is in it may come from a stranger's
 * build: names that leave the directory, links and devices are refused, not repaired.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner.h"

static bool hex8(const uint8_t *p, uint32_t *v)
{
	*v = 0;
	for (int i = 0; i < 8; i++) {
		uint8_t c = p[i];

		*v <<= 4;
		if (c >= '0' && c <= '9')
			*v |= c - '0';
		else if (c >= 'a' && c <= 'f')
			*v |= c - 'a' + 10u;
		else if (c >= 'A' && c <= 'F')
			*v |= c - 'A' + 10u;
		else
			return false;
	}
	return true;
}

static bool name_ok(const char *n)
{
	if (!*n || *n == '/')
		return false;
	for (const char *p = n; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
		if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
			return false;
	return true;
}

int cpio_unpack(const uint8_t *data, size_t size, const char *into, char *why, size_t whylen)
{
	size_t at = 0;

	while (size - at >= 110) {
		const uint8_t *h = data + at;
		uint32_t mode, len, namelen;
		size_t body;
		const char *name;
		char path[4096];

		if (memcmp(h, "070701", 6) || !hex8(h + 14, &mode) || !hex8(h + 54, &len) || !hex8(h + 94, &namelen)) {
			snprintf(why, whylen, "no cpio header at byte %zu", at);
			return -EINVAL;
		}
		if (namelen < 2 || namelen > 4000 || namelen > size - at - 110 || h[110 + namelen - 1]) {
			snprintf(why, whylen, "bad name length at byte %zu", at);
			return -EINVAL;
		}
		name = (const char *)h + 110;
		body = (at + 110 + namelen + 3) & ~(size_t)3;
		if (body > size || len > size - body) {
			snprintf(why, whylen, "archive ends inside a file");
			return -EINVAL;
		}
		at = (body + len + 3) & ~(size_t)3;
		if (!strcmp(name, "TRAILER!!!"))
			return 0;
		if (!strncmp(name, "./", 2))
			name += 2;
		if (!strcmp(name, ".") || !*name)
			continue;
		if (!name_ok(name)) {
			snprintf(why, whylen, "refused name in the archive");
			return -EINVAL;
		}
		if (snprintf(path, sizeof(path), "%s/%s", into, name) >= (int)sizeof(path))
			return -ENAMETOOLONG;
		mkdir_parents(path);
		if (S_ISDIR(mode)) {
			if (mkdir(path, 0755) && errno != EEXIST) {
				snprintf(why, whylen, "mkdir %s: %s", name, errno_name(errno));
				return -errno;
			}
		} else if (S_ISREG(mode)) {
			int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode & 0111 ? 0755 : 0644);
			size_t done = 0;

			if (fd < 0) {
				snprintf(why, whylen, "create %s: %s", name, errno_name(errno));
				return -errno;
			}
			while (done < len) {
				ssize_t w = write(fd, data + body + done, len - done);

				if (w <= 0) {
					snprintf(why, whylen, "write %s: %s", name, errno_name(errno));
					close(fd);
					return -EIO;
				}
				done += (size_t)w;
			}
			close(fd);
		} else {
			snprintf(why, whylen, "neither file nor directory in the archive: %s", name);
			return -EINVAL;
		}
		if (at > size)
			break;
	}
	snprintf(why, whylen, "archive without its trailer");
	return -EINVAL;
}
