// SPDX-License-Identifier: GPL-2.0-only
/* `testbed-runner selftest`: what can be checked on any machine, without ports or privileges. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oracle.h"
#include "runner.h"

static int failures;

static void check(bool ok, const char *what)
{
	printf("%s %s\n", ok ? "ok" : "not ok", what);
	failures += !ok;
}

static void hex(char *to, const uint8_t *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sprintf(to + 2 * i, "%02x", d[i]);
}

static void sha(const char *text, size_t repeat, const char *want)
{
	struct sha256 s;
	uint8_t d[32];
	char h[65];

	sha256_init(&s);
	for (size_t i = 0; i < repeat; i++)
		sha256_update(&s, text, strlen(text));
	sha256_final(&s, d);
	hex(h, d, 32);
	check(!strcmp(h, want), "sha256 (FIPS 180-4)");
}

static void mac(const char *key, size_t n, const char *text, const char *want)
{
	struct iovec part = { (void *)text, strlen(text) };
	struct hmac m;
	uint8_t d[32];
	char h[65];

	hmac_init(&m, (const uint8_t *)key, n);
	hmac_sign(&m, &part, 1, d);
	hex(h, d, 32);
	check(!strcmp(h, want), "hmac-sha256 (RFC 4231)");
}

#define BELOW 4096

/* What functions that have returned left on the stack. */
static void __attribute__((noinline)) look_below(uint8_t *copy)
{
	uint8_t below[BELOW];

	asm volatile("" : "=m"(below));
	memcpy(copy, below, BELOW);
}

static void residue(void)
{
	static uint8_t key[32], digest[32], seen[4][BELOW];
	static struct hmac m;
	static char text[300];
	struct iovec parts[2] = { { text, 3 }, { text + 3, sizeof(text) - 3 } };

	for (int i = 0; i < 2; i++) {
		memset(key, 0x29 + i, sizeof(key));
		hmac_init(&m, key, sizeof(key));
		look_below(seen[i]);
		hmac_sign(&m, parts, 2, digest);
		look_below(seen[2 + i]);
	}
	check(!memcmp(seen[0], seen[1], BELOW), "hmac: nothing of a key is left on the stack");
	check(!memcmp(seen[2], seen[3], BELOW), "hmac: nothing of a MAC is left on the stack");
}

static int parse(const char *text, struct job *j)
{
	char why[256];

	return job_parse(strdup(text), j, why, sizeof(why));
}

static void jobs(void)
{
	struct job j;

	check(!parse("testbed-job 1\nseed 7\nlimit 1000\ncandidate program a%20b -x %\nsleep 5\nstart c canary cpu=each\n", &j),
	      "job: parsed");
	check(j.seed == 7 && j.limit_ms == 1000 && j.heartbeat_ms == 250 && j.nsteps == 2, "job: settings");
	check(j.candidate == CANDIDATE_PROGRAM && j.nargs == 3 && !strcmp(j.args[0], "a b") && !strcmp(j.args[2], ""), "job: words");
	check(!strcmp(j.steps[1].words[3], "cpu=each"), "job: step words");
	check(parse("testbed-job 2\n", &j) != 0, "job: other version refused");
	check(parse("", &j) != 0, "job: empty refused");
	check(parse("testbed-job 1\nfly 5\n", &j) != 0, "job: unknown verb refused");
	check(parse("testbed-job 1\nsleep x\n", &j) != 0, "job: number wanted");
	check(!parse("testbed-job 1\ncpu offline 1 2000\ncpu online 1 2000\n", &j) && j.nsteps == 2, "job: a CPU goes and comes");
	check(parse("testbed-job 1\ncpu away 1 2000\n", &j) != 0, "job: a CPU goes online or offline");
	check(parse("testbed-job 1\nsleep %0\n", &j) != 0, "job: broken escape refused");
	check(parse("testbed-job 1\nsleep %00\n", &j) != 0, "job: NUL refused");
	check(parse("testbed-job 1\nsleep 1\nseed 4\n", &j) != 0, "job: setting after a step refused");
}

static void hists(void)
{
	static struct hist h;
	bool ok = true, same = true;

	for (uint64_t v = 1; v < 1ull << 39; v = v * 17 / 16 + 1) {
		uint64_t up = hist_upper(hist_bucket(v));

		ok &= up >= v && up <= v + v / 16 + 1 && hist_bucket(up) == hist_bucket(v) && hist_bucket(up + 1) == hist_bucket(v) + 1;
		same &= oracle_bucket(v) == hist_bucket(v) && oracle_bucket(up) == hist_bucket(up);
	}
	check(same && oracle_bucket(0) == 0 && oracle_bucket(~0ull) == HIST_BUCKETS - 1, "histogram: the oracle's is the same");
	check(ok, "histogram: buckets hold their values and are at most 1/16 wide");
	check(hist_bucket(~0ull) == HIST_BUCKETS - 1, "histogram: the last bucket takes the rest");
	for (uint64_t i = 1; i <= 1000; i++)
		hist_add(&h, i * 1000);
	check(h.max == 1000000 && h.n == 1000, "histogram: exact maximum");
	check(hist_quantile(&h, 500) >= 500000 && hist_quantile(&h, 500) < 535000, "histogram: median");
	check(hist_quantile(&h, 999) >= 999000 && hist_quantile(&h, 999) <= 1000000, "histogram: p99.9");
}

static size_t entry(char *to, const char *name, unsigned mode, const char *data)
{
	size_t n = (size_t)sprintf(to, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0,
				   (unsigned)strlen(data), 0, 0, 0, 0, (unsigned)strlen(name) + 1, 0);

	n += (size_t)sprintf(to + n, "%s", name) + 1;
	while (n & 3)
		to[n++] = 0;
	memcpy(to + n, data, strlen(data));
	n += strlen(data);
	while (n & 3)
		to[n++] = 0;
	return n;
}

static void archives(void)
{
	static char a[4096] __attribute__((aligned(4)));
	char dir[] = "/tmp/testbed-selftest-XXXXXX", path[256], got[64], why[256];
	struct stat st;
	size_t n;

	if (!mkdtemp(dir)) {
		check(false, "cpio: temporary directory");
		return;
	}
	n = entry(a, "d/f", 0100755, "hello");
	n += entry(a + n, "TRAILER!!!", 0, "");
	check(!cpio_unpack((uint8_t *)a, n, dir, why, sizeof(why)), "cpio: unpacked");
	snprintf(path, sizeof(path), "%s/d/f", dir);
	check(read_file(path, got, sizeof(got)) == 5 && !strcmp(got, "hello") && !stat(path, &st) && st.st_mode & 0100, "cpio: content");
	check(cpio_unpack((uint8_t *)a, n - 130, dir, why, sizeof(why)) != 0, "cpio: cut off refused");
	unlink(path);
	snprintf(path, sizeof(path), "%s/d", dir);
	rmdir(path);
	n = entry(a, "../x", 0100644, "");
	n += entry(a + n, "TRAILER!!!", 0, "");
	check(cpio_unpack((uint8_t *)a, n, dir, why, sizeof(why)) != 0, "cpio: name that leaves refused");
	n = entry(a, "l", 0120777, "/etc");
	n += entry(a + n, "TRAILER!!!", 0, "");
	check(cpio_unpack((uint8_t *)a, n, dir, why, sizeof(why)) != 0, "cpio: link refused");
	rmdir(dir);
}

static void events(void)
{
	struct json j;
	char big[5000];

	ev_begin(&j, "log");
	ev_str(&j, "text", "a\"b\\c\n\xc3\xa9");
	j.b[j.n] = 0;
	check(!strcmp(j.b, "\"e\":\"log\",\"text\":\"a\\\"b\\\\c\\u000a\\u00c3\\u00a9\""), "json: escapes");
	ev_begin(&j, "x");
	ev_milli(&j, "v", 1234567);
	ev_micro(&j, "w", 50000);
	ev_i64(&j, "n", INT64_MIN);
	j.b[j.n] = 0;
	check(!strcmp(j.b, "\"e\":\"x\",\"v\":1234.567,\"w\":0.050000,\"n\":-9223372036854775808"), "json: numbers");
	memset(big, 1, sizeof(big));
	ev_begin(&j, "x");
	ev_strn(&j, "a", big, sizeof(big));
	ev_strn(&j, "b", big, sizeof(big));
	ev_strn(&j, "c", big, sizeof(big));
	ev_u64(&j, "d", ~0ull);
	check(j.n <= 4060 && j.b[j.n - 1] != ',' && j.b[j.n - 1] != ':', "json: bounded and whole");
}

int selftest_main(void)
{
	unsigned char cpus[64];

	sha("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
	    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	sha("aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	mac("\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", 20, "Hi There",
	    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	mac("Jefe", 4, "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	residue();
	jobs();
	hists();
	archives();
	events();
	check(parse_cpulist("0-2,5,7-8\n", cpus, 64) == 6 && cpus[5] && !cpus[6], "cpu list");
	printf("%d failures\n", failures);
	return failures != 0;
}
