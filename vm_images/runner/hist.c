// SPDX-License-Identifier: GPL-2.0-only
/* Log-linear histogram of nanoseconds, 16 buckets an octave (6 % wide); the maximum is kept exactly. */
#include "runner.h"

unsigned hist_bucket(uint64_t v)
{
	unsigned e, b;

	if (v < 16)
		return (unsigned)v;
	e = 63u - (unsigned)__builtin_clzll(v);
	b = (e - 3) * 16 + (unsigned)(v >> (e - 4) & 15);
	return b < HIST_BUCKETS ? b : HIST_BUCKETS - 1;
}

/* the largest value that falls into a bucket */
uint64_t hist_upper(unsigned b)
{
	if (b < 16)
		return b;
	return ((uint64_t)(16 + b % 16 + 1) << (b / 16 - 1)) - 1;
}

void hist_add(struct hist *h, uint64_t v)
{
	h->n++;
	if (v > h->max)
		h->max = v;
	h->b[hist_bucket(v)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->n += from->n;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		into->b[i] += from->b[i];
}

/* Upper edge of the bucket that holds the quantile, never above the maximum: errs to the bad side, by 6 % at most. */
uint64_t hist_quantile(const struct hist *h, unsigned per_mille)
{
	uint64_t rank = (h->n * per_mille + 999) / 1000, sum = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		sum += h->b[i];
		if (sum >= rank && sum)
			return hist_upper(i) < h->max ? hist_upper(i) : h->max;
	}
	return h->max;
}
