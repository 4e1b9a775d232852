// SPDX-License-Identifier: GPL-2.0-only
/*
 * What speaks against a bundle, on the host itself: the same rules and codes as testbed/promote/verify.py, with the host's
 * own policy, kernel, clock and log. Nothing of a payload is looked at before a trusted key has vouched for it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host.h"

#define PAYLOAD_TYPE "application/vnd.in-toto+json"
#define STATEMENT "https://in-toto.io/Statement/v1"
#define PREDICATE "https://in-toto.io/attestation/test-result/v0.1"
#define ANY_MODE "failure-modes"
#define CLOCKS_DIFFER 300	/* two machines' clocks may differ by so many seconds */
#define MAX_KEYS 64
#define MAX_KEY (16 << 10)
#define RAW_KEY 32

struct key { uint8_t raw[RAW_KEY]; char id[HEX]; };

void refuse(json *list, const char *code, const char *hint, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	json_object_array_add(list, complaint(code, hint, fmt, ap));
	va_end(ap);
}

/* ---- keys ---- */

/* SubjectPublicKeyInfo of an Ed25519 key (RFC 8410): always these bytes, then the key */
static bool parse_key(const char *pem, struct key *k)
{
	static const char begin[] = "-----BEGIN PUBLIC KEY-----", end[] = "-----END PUBLIC KEY-----";
	static const uint8_t head[12] = { 0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00 };
	const char *a = strstr(pem, begin), *b = a ? strstr(a, end) : NULL;
	uint8_t der[sizeof(head) + RAW_KEY];
	size_t n;

	if (!b)
		return false;
	a += sizeof(begin) - 1;
	if (sodium_base642bin(der, sizeof(der), a, (size_t)(b - a), "\r\n ", &n, NULL, sodium_base64_VARIANT_ORIGINAL) ||
	    n != sizeof(der) || memcmp(der, head, sizeof(head)))
		return false;
	memcpy(k->raw, der + sizeof(head), RAW_KEY);
	sha256_text(der, sizeof(der), k->id);
	return true;
}

/* The host's trust must lie where nobody but root could have put it; a file that does not is no reason to go on. */
static int trusted_keys(struct key *keys)
{
	static const char hint[] = "chown root and chmod 644, and look who has written it";
	int dir = open(TRUSTED_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *d = dir >= 0 ? fdopendir(dir) : NULL;
	struct dirent *entry;
	struct stat st;

	if (!d)
		return 0;
	if (fstat(dir, &st) || st.st_uid != OWNER || st.st_mode & (S_IWGRP | S_IWOTH))
		fail(EXIT_HOST, "untrusted-file", hint, "`" TRUSTED_DIR "` is not a folder that only root can write");
	while ((entry = readdir(d))) {
		size_t len = strlen(entry->d_name), size;
		char *pem;
		int fd;

		if (len < 5 || entry->d_name[0] == '.' || strcmp(entry->d_name + len - 4, ".pub"))
			continue;
		fd = openat(dir, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0 || !owned_by_root(fd))
			fail(EXIT_HOST, "untrusted-file", hint, "`" TRUSTED_DIR "/%s` is not a file that only root can write", entry->d_name);
		close(fd);
		pem = read_whole(dir, entry->d_name, MAX_KEY, &size);
		if (!pem || n == MAX_KEYS || !parse_key(pem, &keys[n]))
			fail(EXIT_HOST, "bad-key", "`testbed attest` writes public keys, as `.pub`",
			     "`" TRUSTED_DIR "/%s` holds no public Ed25519 key (PEM)", entry->d_name);
		free(pem);
		n++;
	}
	closedir(d);
	return n;
}

/* ---- the envelope ---- */

/* Decoded, with a NUL behind it; NULL if it is not base64. */
static uint8_t *decoded(const char *text, size_t *n)
{
	size_t len = strlen(text);
	uint8_t *out = malloc(len / 4 * 3 + 4);

	if (!out)
		out_of_memory();
	if (sodium_base642bin(out, len / 4 * 3 + 3, text, len, NULL, n, NULL, sodium_base64_VARIANT_ORIGINAL)) {
		free(out);
		return NULL;
	}
	out[*n] = 0;
	return out;
}

/* The payload if the envelope is one; *keyid is the trusted key that has signed it, or empty. */
static uint8_t *open_envelope(const struct bundle *b, size_t *n, char keyid[HEX], char *named, size_t named_len, int *nkeys)
{
	static const char *const top[] = { "payloadType", "payload", "signatures", NULL };
	static const char *const inner[] = { "keyid", "sig", NULL };
	static struct key keys[MAX_KEYS];
	json *o = json_strict(b->attestation, b->attestation_len), *signatures;
	const char *type, *text;
	uint8_t *payload = NULL, *message = NULL;
	size_t head;

	keyid[0] = named[0] = 0;
	*nkeys = trusted_keys(keys);
	signatures = json_get(o, "signatures", json_type_array);
	type = json_text(o, "payloadType");
	text = json_text(o, "payload");
	if (!o || !json_only(o, top) || !type || strcmp(type, PAYLOAD_TYPE) || !text || !signatures ||
	    json_object_array_length(signatures) < 1 || json_object_array_length(signatures) > 16)
		goto out;
	payload = decoded(text, n);
	if (!payload)
		goto out;
	/* DSSE's pre-authentication encoding binds the payload to its type. */
	message = malloc(*n + 128);
	if (!message)
		out_of_memory();
	head = (size_t)sprintf((char *)message, "DSSEv1 %zu %s %zu ", strlen(PAYLOAD_TYPE), PAYLOAD_TYPE, *n);
	memcpy(message + head, payload, *n);
	for (size_t i = 0; i < json_object_array_length(signatures); i++) {
		json *one = json_object_array_get_idx(signatures, i);
		const char *sig = json_text(one, "sig"), *id = json_text(one, "keyid");
		size_t len, at = strlen(named);
		uint8_t *raw;

		if (!json_only(one, inner) || !sig || (json_object_object_get_ex(one, "keyid", NULL) && !id) || !(raw = decoded(sig, &len))) {
			free(payload);
			payload = NULL;
			goto out;
		}
		snprintf(named + at, named_len - at, "%s%.16s", i ? ", " : "", id && *id ? id : "?");
		for (int k = 0; k < *nkeys && len == crypto_sign_BYTES && !keyid[0]; k++)
			if (!crypto_sign_verify_detached(raw, message, head + *n, keys[k].raw))
				strcpy(keyid, keys[k].id);
		free(raw);
	}
out:
	free(message);
	json_object_put(o);
	return payload;
}

/* ---- the statement ---- */

static const char *digest_of(json *descriptor)
{
	const char *found = json_text(json_get(descriptor, "digest", json_type_object), "sha256");

	return found ? found : "";
}

static json *named(json *configuration, const char *name)
{
	json *found = NULL;

	for (size_t i = 0; i < json_object_array_length(configuration); i++) {
		json *one = json_object_array_get_idx(configuration, i);

		if (strcmp(json_text(one, "name"), name))
			continue;
		if (found)
			return NULL;
		found = one;
	}
	return found;
}

static json *annotations(json *configuration, const char *name)
{
	json *found = named(configuration, name);

	return found ? json_get(found, "annotations", json_type_object) : NULL;
}

static bool is_texts(json *o)
{
	if (!json_object_is_type(o, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(o); i++)
		if (!json_text(json_object_array_get_idx(o, i), NULL))
			return false;
	return true;
}

static bool are_texts(json *o)
{
	if (!json_object_is_type(o, json_type_object))
		return false;
	json_object_object_foreach(o, key, value)
	{
		(void)key;
		if (!json_text(value, NULL))
			return false;
	}
	return true;
}

static bool are_clocks(json *o)
{
	if (!is_texts(o))
		return false;
	for (size_t i = 0; i < json_object_array_length(o); i++) {
		const char *clock = json_object_get_string(json_object_array_get_idx(o, i));

		if (strcmp(clock, "sim") && strcmp(clock, "live"))
			return false;
	}
	return true;
}

static bool has_text(json *list, const char *text)
{
	for (size_t i = 0; i < json_object_array_length(list); i++)
		if (!strcmp(json_object_get_string(json_object_array_get_idx(list, i)), text))
			return true;
	return false;
}

static bool is_descriptor(json *o, bool annotated)
{
	static const char *const with[] = { "name", "digest", "annotations", NULL };
	static const char *const without[] = { "name", "digest", NULL };
	json *digest = json_get(o, "digest", json_type_object);

	if (!json_only(o, annotated ? with : without) || !json_text(o, "name") || !are_texts(digest) || !json_object_object_length(digest))
		return false;
	return !json_object_object_get_ex(o, "annotations", NULL) || json_get(o, "annotations", json_type_object);
}

/* What the verifier said of the candidate's BPF programs: no part of the manifest, so it is looked at here. */
static bool is_programs(json *o)
{
	static const char *const fields[] = { "name", "section", "instructions", "verified_instructions", NULL };

	if (!json_object_is_type(o, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(o); i++) {
		json *one = json_object_array_get_idx(o, i), *value;

		if (!json_only(one, fields) || !json_text(one, "name") ||
		    (json_object_object_get_ex(one, "section", &value) && !json_text(value, NULL)))
			return false;
		for (int k = 2; k < 4; k++)
			if (json_object_object_get_ex(one, fields[k], &value) && value && !json_object_is_type(value, json_type_int))
				return false;
	}
	return true;
}

struct statement {
	json *root, *subject, *configuration, *candidate, *kernel, *policy, *judged, *told, *ran;
};

/* What is wrong with it; NULL if it is a statement that `testbed attest` makes. */
static const char *parse_statement(const char *payload, size_t n, struct statement *s)
{
	static const char *const top[] = { "_type", "subject", "predicateType", "predicate", NULL };
	static const char *const inner[] = { "result", "configuration", "passedTests", "warnedTests", "failedTests", NULL };
	static const char *const ran[] = { "clocks", "seeds", "topologies", "digests", NULL };
	static const char *const told[] = { "id", "benefit", "baseline", "not_checked", NULL };
	static const char *const judged[] = { "version", "judge", "time", "self_signed", NULL };
	json *predicate, *subjects, *passed, *found = NULL;
	const char *text;

	memset(s, 0, sizeof(*s));
	s->root = json_strict(payload, n);
	if (!json_only(s->root, top))
		return "it is no in-toto statement";
	text = json_text(s->root, "_type");
	if (!text || strcmp(text, STATEMENT))
		return "`_type` is not " STATEMENT;
	text = json_text(s->root, "predicateType");
	if (!text || strcmp(text, PREDICATE))
		return "`predicateType` is not " PREDICATE;
	subjects = json_get(s->root, "subject", json_type_array);
	predicate = json_get(s->root, "predicate", json_type_object);
	if (!subjects || json_object_array_length(subjects) != 1 || !is_descriptor(json_object_array_get_idx(subjects, 0), false))
		return "`subject` is not one subject";
	s->subject = json_object_array_get_idx(subjects, 0);
	text = json_text(predicate, "result");
	if (!json_only(predicate, inner) || !text || strcmp(text, "PASSED"))
		return "`result` is not PASSED";
	passed = json_get(predicate, "passedTests", json_type_array);
	if (!passed || !is_texts(passed) || !json_object_array_length(passed))
		return "`passedTests` names none";
	if (json_object_object_get_ex(predicate, "warnedTests", &found) && !is_texts(found))
		return "`warnedTests`";
	if (json_object_object_get_ex(predicate, "failedTests", &found) &&
	    (!json_object_is_type(found, json_type_array) || json_object_array_length(found)))
		return "`failedTests` names some";
	s->configuration = json_get(predicate, "configuration", json_type_array);
	if (!s->configuration)
		return "`configuration` is missing";
	for (size_t i = 0; i < json_object_array_length(s->configuration); i++)
		if (!is_descriptor(json_object_array_get_idx(s->configuration, i), true))
			return "`configuration` holds something else than resources";
	s->candidate = annotations(s->configuration, "candidate");
	s->kernel = named(s->configuration, "kernel");
	s->policy = named(s->configuration, "policy");
	s->judged = annotations(s->configuration, "testbed");
	s->told = annotations(s->configuration, "verdict");
	s->ran = annotations(s->configuration, "runs");
	if (!s->candidate || !s->kernel || !s->policy)
		return "it does not name one candidate, one kernel and one policy";
	if (json_object_object_get_ex(s->candidate, "programs", &found) && !is_programs(found))
		return "`candidate` can't be read";
	if (!json_only(s->judged, judged) || !json_text(s->judged, "version") || !json_text(s->judged, "time") ||
	    !json_get(s->judged, "judge", json_type_int) || !json_get(s->judged, "self_signed", json_type_boolean))
		return "`testbed` can't be read";
	if (!json_only(s->told, told) || !json_text(s->told, "id") || !json_text(s->told, "benefit") || !json_text(s->told, "baseline") ||
	    !is_texts(json_get(s->told, "not_checked", json_type_array)))
		return "`verdict` can't be read";
	if (!json_only(s->ran, ran) || !are_clocks(json_get(s->ran, "clocks", json_type_array)) ||
	    !is_texts(json_get(s->ran, "topologies", json_type_array)) || !json_get(s->ran, "seeds", json_type_int) ||
	    json_object_get_int64(json_get(s->ran, "seeds", json_type_int)) < 0 ||
	    !are_texts(json_get(s->ran, "digests", json_type_object)))
		return "`runs` can't be read";
	return NULL;
}

/* The manifest of the candidate that the statement describes, as testbed/promote/statement.py writes it. */
static char *manifest_of(json *candidate, size_t *n)
{
	json *root = json_object_new_object(), *parts = NULL;
	const char *kind = json_text(candidate, "kind");
	char *text;

	json_object_deep_copy(candidate, &parts, NULL);
	json_object_object_del(parts, "programs");
	json_object_object_add(root, "schema", json_object_new_string("testbed.manifest/1"));
	json_object_object_add(root, "loader", json_object_new_string(kind && !strcmp(kind, "program") ? "its own program" : "testbed"));
	json_object_object_add(root, "candidate", parts);
	text = json_canonical(root, n);
	json_object_put(root);
	return text;
}

/* ---- one reason after the other ---- */

static void check_bytes(json *out, const struct bundle *b, const struct statement *s)
{
	char digest[HEX], which[300];
	size_t n;
	char *known = manifest_of(s->candidate, &n);

	sha256_text(known, n, digest);
	/* the manifest that was uploaded may be any text; this one is made of what was signed */
	if (strcmp(digest, digest_of(s->subject)) || strcmp(json_text(s->subject, "name"), json_text(s->candidate, "name") ?: ""))
		refuse(out, "contradiction", "", "the subject is not the digest of the candidate that the statement describes");
	if (n != b->manifest_len || memcmp(known, b->manifest_text, n)) {
		char differing[256] = "";

		json_object_object_foreach(b->candidate, key, value)
		{
			json *other = NULL;
			size_t at = strlen(differing);

			json_object_object_get_ex(s->candidate, key, &other);
			if (!json_object_equal(value, other) && strcmp(key, "options"))
				snprintf(differing + at, sizeof(differing) - at, "%s`%s`", at ? ", " : "", key);
		}
		if (!json_object_equal(json_object_object_get(b->candidate, "options"), json_object_object_get(s->candidate, "options")))
			refuse(out, "other-options", "options change what a scheduler does: run it with these",
			       "attested with other options than are to be used");
		if (differing[0] || json_object_array_length(out) == 0)
			refuse(out, "other-bytes", "upload the case that was attested", "this is not the candidate that was attested: %s differ",
			       differing[0] ? differing : "its manifest's bytes");
	}
	free(known);
	if (bundle_altered(b, which, sizeof(which)))
		refuse(out, "other-bytes", "stage it again", "`files/%s` is not the file that was attested", which);
}

static void check_kernel(json *out, const struct statement *s, const struct law *law, struct told *told)
{
	json *about = json_get(s->kernel, "annotations", json_type_object);
	const char *release = json_text(about, "release"), *version = json_text(about, "version"), *btf = json_text(about, "btf_sha256");
	struct utsname u;
	char digest[HEX], built[128];

	uname(&u);
	snprintf(built, sizeof(built), "Debian %.100s ", version ? version : "");
	copy_text(told->kernel, sizeof(told->kernel), release ? release : "?");
	if (!json_object_get_boolean(json_get(law->policy, "same_kernel", json_type_boolean)))
		return;
	if (!release || strcmp(release, u.release)) {
		refuse(out, "other-kernel", "judge it on this kernel: testbed run --kernel", "judged on linux %s, to be loaded on %s",
		       told->kernel, u.release);
		return;
	}
	/* Debian keeps a release's name over several builds, and says in the kernel itself which one it is. */
	if (version && strstr(u.version, "Debian ") && !strstr(u.version, built)) {
		refuse(out, "other-kernel", "judge it on this kernel: testbed run --kernel", "judged on linux %s in version %s, this one is `%s`",
		       release, version, u.version);
		return;
	}
	btf_sha256(digest);
	if (btf && strcmp(btf, digest))
		refuse(out, "other-btf", "judge it on this kernel: testbed run --kernel",
		       "the kernel's types (BTF) are not those of the kernel that it was judged on, though both are linux %s", release);
}

static void newest(json *line, void *arg)
{
	int64_t *last = arg, t;
	const char *time = json_text(line, "time");

	if (time && wall_parse(time, &t) && t > *last)
		*last = t;
}

static void check_age(json *out, const struct statement *s, const struct law *law, struct told *told)
{
	int64_t made, now = wall_s(), days = json_object_get_int64(json_get(law->policy, "max_age_days", json_type_int)), last = 0;
	char a[32], b[32];
	int torn, lines;

	if (!wall_parse(json_text(s->judged, "time"), &made)) {
		refuse(out, "not-a-test-result", "", "the attestation's time can't be read");
		return;
	}
	told->attested = made;
	wall_text(made, a);
	wall_text(now, b);
	audit_walk(newest, &last, &torn, &lines);
	if (now + CLOCKS_DIFFER < last) {
		char c[32];

		wall_text(last, c);
		refuse(out, "clock-went-back", "set this host's clock", "now is %s by this host's clock, its log was last written at %s", b, c);
	}
	if (made > now + CLOCKS_DIFFER)
		refuse(out, "from-the-future", "set one of the clocks", "attested at %s, now is %s", a, b);
	if (now - made > days * 86400)
		refuse(out, "expired", "`testbed attest` the case again, or run the candidate again", "attested %lld days ago, `%s` takes %lld",
		       (long long)(now - made) / 86400, law->name, (long long)days);
}

static void check_verdict_policy(json *out, const struct statement *s, const struct law *law)
{
	json *accepts = json_get(law->policy, "accepts", json_type_array), *about = json_get(s->policy, "annotations", json_type_object);
	json *known = json_get(law->doc, "verdict_policies", json_type_object), *files;
	const char *name = json_text(about, "name");
	bool accepted = false;

	for (size_t i = 0; name && i < json_object_array_length(accepts); i++)
		accepted |= !strcmp(json_text(json_object_array_get_idx(accepts, i), "policy"), name);
	if (!accepted) {
		refuse(out, "other-policy", "run it with a verdict policy that this host accepts", "judged by `%s`, which `%s` does not accept",
		       name ? name : "?", law->name);
		return;
	}
	files = json_get(known, name, json_type_object);
	if (strcmp(digest_of(s->policy), json_text(files, "sha256")))
		refuse(out, "altered-policy", "the policies of the two differ: run the candidate again, or install this host's policy again",
		       "judged by another `%s` than the one that this host knows", name);
	json *scenarios = json_get(files, "scenarios", json_type_object);
	json_object_object_foreach(scenarios, scenario, sha256)
	{
		char wanted[256];
		const char *found = "";

		snprintf(wanted, sizeof(wanted), "scenario/%s", scenario);
		/* the last one counts, as in Python */
		for (size_t i = 0; i < json_object_array_length(s->configuration); i++) {
			json *one = json_object_array_get_idx(s->configuration, i);

			if (!strcmp(json_text(one, "name"), wanted))
				found = digest_of(one);
		}
		if (strcmp(found, json_object_get_string(sha256)))
			refuse(out, "altered-scenario", "the scenarios of the two differ: run the candidate again, or install this host's policy again",
			       "scenario `%s` was another one than the one that this host knows", scenario);
	}
}

static void check_demands(json *out, const struct statement *s, const struct law *law)
{
	json *runs = json_get(law->policy, "runs", json_type_object), *clocks = json_get(runs, "clocks", json_type_array);
	json *machines = json_get(runs, "topologies", json_type_array), *known = json_get(law->doc, "topologies", json_type_object);
	json *ran = json_get(s->ran, "clocks", json_type_array), *topologies = json_get(s->ran, "topologies", json_type_array);
	json *risks = json_get(law->policy, "risks", json_type_array), *unchecked = json_get(s->told, "not_checked", json_type_array);
	json *modes = json_get(law->doc, "failure_modes", json_type_array);
	int64_t seeds = json_object_get_int64(json_get(s->ran, "seeds", json_type_int));
	int64_t demanded = json_object_get_int64(json_get(runs, "seeds", json_type_int));
	const char *benefit = json_text(s->told, "benefit"), *demand = json_text(json_get(law->policy, "benefit", json_type_object), "demand");
	bool self_signed = json_object_get_boolean(json_get(s->judged, "self_signed", json_type_boolean)), any = false;

	if (self_signed && !json_object_get_boolean(json_get(json_get(law->policy, "signatures", json_type_object), "self_signed", json_type_boolean)))
		refuse(out, "self-signed", "let an account attest that the author can't use: `testbed attest --signer`",
		       "signed by a key that whoever asked for it can read, which `%s` does not take", law->name);
	check_verdict_policy(out, s, law);
	for (size_t i = 0; i < json_object_array_length(clocks); i++) {
		const char *clock = json_object_get_string(json_object_array_get_idx(clocks, i));

		if (!has_text(ran, clock)) {
			refuse(out, "clock-missing", "run it with it", "no run under `%s`, which `%s` demands", clock, law->name);
			break;
		}
	}
	if (seeds < demanded)
		refuse(out, "too-few-seeds", "testbed run --seeds N", "%lld orders of events, `%s` demands %lld", (long long)seeds, law->name,
		       (long long)demanded);
	for (size_t i = 0; i < json_object_array_length(machines); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(machines, i));

		if (!has_text(topologies, json_text(known, name)))
			refuse(out, "topology-missing", "testbed run --topology NAME", "no run on `%s`, which `%s` demands", name, law->name);
	}
	if (!strcmp(benefit, "worse") && !strcmp(demand, "not-worse"))
		refuse(out, "worse", "`testbed report CASE` says where", "it is worse than %s", json_text(s->told, "baseline"));
	if (strcmp(benefit, "better") && !strcmp(demand, "better"))
		refuse(out, "not-better", "", "it is %s than %s, expected better", benefit, json_text(s->told, "baseline"));
	for (size_t i = 0; i < json_object_array_length(risks); i++)
		any |= !strcmp(json_text(json_object_array_get_idx(risks, i), "code"), ANY_MODE);
	for (size_t i = 0; i < json_object_array_length(unchecked); i++) {
		const char *code = json_object_get_string(json_object_array_get_idx(unchecked, i));
		bool accepted = any && has_text(modes, code);

		for (size_t k = 0; k < json_object_array_length(risks); k++)
			accepted |= !strcmp(json_text(json_object_array_get_idx(risks, k), "code"), code);
		if (!accepted)
			refuse(out, "risk-not-accepted", "run what checks it, or name the risk in the promotion policy",
			       "nothing was checked of `%s`, and `%s` does not accept that", code, law->name);
	}
}

static void check_scope(json *out, const struct bundle *b, const struct law *law)
{
	bool all = false, some = false;
	int partial;

	for (int i = 0; i < law->nstages; i++) {
		all |= !law->stages[i].partial;
		some |= law->stages[i].partial;
	}
	if (b->program) {
		if (some)
			refuse(out, "scope", "use a policy whose stages are for all tasks",
			       "`%s` begins with a stage for tasks that ask for it, which nobody can ask of a program", law->name);
		return;
	}
	partial = object_is_partial(b);
	if (partial < 0)
		refuse(out, "bad-object", "build it again", "the object can't be read: %s", strerror(-partial));
	else if (partial && all)
		refuse(out, "scope", "use a policy whose stages are all partial, or judge it without SCX_OPS_SWITCH_PARTIAL",
		       "it was judged on tasks that ask for it only, and `%s` has a stage for all", law->name);
}

struct attempts { const char *subject; int used; bool open; };

static void count(json *line, void *arg)
{
	struct attempts *a = arg;
	const char *what = json_text(line, "what"), *subject = json_text(line, "subject");

	if (!what || !subject || strcmp(subject, a->subject))
		return;
	/* Counted when it begins: an attempt that took the machine with it has no end in the log. */
	if (!strcmp(what, "start")) {
		a->used++;
		a->open = true;
	} else if (!strcmp(what, "kept") || !strcmp(what, "stopped") || !strcmp(what, "not-started")) {
		a->used -= a->open;
		a->open = false;
	} else if (!strcmp(what, "rolled-back") || !strcmp(what, "not-back") || !strcmp(what, "lost")) {
		a->open = false;
	} else if (!strcmp(what, "forgiven")) {
		a->used = 0;
		a->open = false;
	}
}

int attempts_used(const char *subject, bool own)
{
	struct attempts a = { subject, 0, false };
	int torn, lines;

	audit_walk(count, &a, &torn, &lines);
	return a.used - (own && a.open);
}

json *verify(const struct bundle *b, const struct law *law, struct told *told)
{
	json *out = json_object_new_array();
	struct statement s = { 0 };
	char names[512];
	const char *wrong;
	int nkeys, used;
	size_t n;
	uint8_t *payload = open_envelope(b, &n, told->keyid, names, sizeof(names), &nkeys);

	if (!payload) {
		refuse(out, "not-an-attestation", "`testbed attest CASE` makes one", "`attestation.json` is no envelope of an attestation");
		return out;
	}
	if (!told->keyid[0]) {
		refuse(out, "unknown-key", "they were changed after they were signed, or whoever signed is not trusted here",
		       "no trusted key has signed these bytes (they name %s; %d keys are trusted)", names, nkeys);
		free(payload);
		return out;
	}
	wrong = parse_statement((const char *)payload, n, &s);
	free(payload);
	if (wrong) {
		refuse(out, "not-a-test-result", "expected an in-toto statement that `testbed attest` made",
		       "the payload is no test result of a scheduler: %s", wrong);
		json_object_put(s.root);
		return out;
	}
	copy_text(told->case_id, sizeof(told->case_id), json_text(s.told, "id"));
	check_bytes(out, b, &s);
	check_kernel(out, &s, law, told);
	check_age(out, &s, law, told);
	check_demands(out, &s, law);
	if (!json_object_array_length(out))
		check_scope(out, b, law);	/* only bytes that were attested are given to a parser */
	used = attempts_used(b->subject, told->begun);
	if (used >= law->attempts)
		refuse(out, "attempts-used-up", "look at the evidence, then as root: testbed-host forgive ID",
		       "it was tried %d times here and did not last, `%s` allows %d", used, law->name, law->attempts);
	json_object_put(s.root);
	return out;
}
