// SPDX-License-Identifier: GPL-2.0-only
/* What this host is, for whoever wants to promote something to it. Needs no privileges. */
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host.h"

static void file_sha256(const char *path, char out[HEX])
{
	static uint8_t block[1 << 16];
	crypto_hash_sha256_state state;
	uint8_t digest[crypto_hash_sha256_BYTES];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	out[0] = 0;
	if (fd < 0)
		return;
	crypto_hash_sha256_init(&state);
	while ((r = read(fd, block, sizeof(block))) > 0)
		crypto_hash_sha256_update(&state, block, (size_t)r);
	close(fd);
	if (r < 0)
		return;
	crypto_hash_sha256_final(&state, digest);
	hex(digest, sizeof(digest), out);
}

void btf_sha256(char out[HEX])
{
	file_sha256(BTF_FILE, out);
}

json *host_facts(void)
{
	json *o = json_object_new_object(), *kernel = json_object_new_object(), *scx = json_object_new_object();
	json *program = json_object_new_object();
	struct record r;
	struct scx_state s;
	struct utsname u;
	char text[HEX], boot[40];

	uname(&u);
	boot_id(boot);
	btf_sha256(text);
	json_put_text(kernel, "release", u.release);
	json_put_text(kernel, "version", u.version);
	json_put_text(kernel, "machine", u.machine);
	json_put_text(kernel, "btf_sha256", text);
	scx_read(&s);
	json_put_bool(scx, "present", s.present);
	json_put_text(scx, "state", s.state);
	json_put_text(scx, "ops", s.ops);
	json_put_u64(scx, "enable_seq", s.enable_seq);
	json_put_u64(scx, "nr_rejected", scx_rejected());
	json_put_bool(scx, "ours", !record_read(CURRENT_FILE, &r) && s.ops[0] && !strcmp(r.boot, boot) && !strcmp(r.ops, s.ops) &&
					   r.enable_seq == s.enable_seq);
	file_sha256("/proc/self/exe", text);
	json_put_text(program, "version", VERSION);
	json_put_text(program, "sha256", text);
	json_put_text(o, "schema", "testbed.host-facts/1");
	json_put_text(o, "boot", boot);
	json_put_text(o, "hostname", u.nodename);
	json_put_i64(o, "time", wall_s());
	json_put_i64(o, "cpus", sysconf(_SC_NPROCESSORS_ONLN));
	json_put_bool(o, "pressure", !access(PROC_DIR "/pressure/cpu", R_OK));
	json_put_bool(o, "root", geteuid() == OWNER);
	json_object_object_add(o, "kernel", kernel);
	json_object_object_add(o, "sched_ext", scx);
	json_object_object_add(o, "program", program);
	return o;
}
