// SPDX-License-Identifier: GPL-2.0-only
/* Counts by logarithm. */
#include <string.h>

#include "schbench.h"

static unsigned int index_of(uint64_t value)
{
	unsigned int octave, index;

	if (value < STEPS)
		return value;
	octave = 63 - __builtin_clzll(value) - STEP_BITS;
	index = (octave + 1) * STEPS + ((value >> octave) & (STEPS - 1));
	return index < OCTAVES * STEPS ? index : OCTAVES * STEPS - 1;
}

static uint64_t highest_at(unsigned int index)
{
	unsigned int octave = index / STEPS;

	if (octave == 0)
		return index;
	return ((uint64_t)(STEPS + index % STEPS + 1) << (octave - 1)) - 1;
}

void histogram_clear(struct histogram *h)
{
	unsigned int generation = h->generation;

	memset(h, 0, sizeof(*h));
	h->generation = generation;
}

void histogram_add(struct histogram *h, uint64_t value)
{
	if (h->samples == 0 || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->counts[index_of(value)]++;
	h->samples++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	if (from->samples == 0)
		return;
	if (into->samples == 0 || from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned int i = 0; i < OCTAVES * STEPS; i++)
		into->counts[i] += from->counts[i];
	into->samples += from->samples;
}

uint64_t histogram_percentile(const struct histogram *h, double percent, uint64_t *below)
{
	double wanted = h->samples * percent / 100;
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i < OCTAVES * STEPS; i++) {
		seen += h->counts[i];
		if (seen && seen >= wanted)
			break;
	}
	if (below)
		*below = seen;
	if (h->samples == 0)
		return 0;
	return i < OCTAVES * STEPS && highest_at(i) < h->max ? highest_at(i) : h->max;
}
