// SPDX-License-Identifier: GPL-2.0-only
/* The machine's two doors, used without any driver: fw_cfg (in) and isa-debugcon (out); and pvpanic, which stops it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>

#include "runner.h"

#define DEBUGCON 0x402
#define FWCFG_SELECT 0x510
#define FWCFG_DATA 0x511
#define FWCFG_FILE_DIR 0x19
#define PVPANIC 0x505
#define PVPANIC_PANICKED 1
#define MAX_ITEM (1u << 30)

int ports_open(void)
{
	if (ioperm(DEBUGCON, 1, 1) || ioperm(FWCFG_SELECT, 2, 1) || ioperm(PVPANIC, 1, 1))
		return -errno;
	return 0;
}

void machine_stop(void)
{
	outb(PVPANIC_PANICKED, PVPANIC);
}

void ports_drop(void)
{
	/* A child inherits the right; the last bit taken away frees the whole bitmap. */
	ioperm(DEBUGCON, 1, 0);
	ioperm(FWCFG_SELECT, 2, 0);
	ioperm(PVPANIC, 1, 0);
}

bool debugcon_present(void)
{
	return inb(DEBUGCON) == 0xe9;	/* what the device answers to a read */
}

void debugcon_write(const char *data, size_t n)
{
	asm volatile("rep outsb" : "+S"(data), "+c"(n) : "d"((uint16_t)DEBUGCON) : "memory");
}

static void fwcfg_take(void *to, size_t n)
{
	asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"((uint16_t)FWCFG_DATA) : "memory");
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void *fwcfg_read(const char *name, size_t *size)
{
	uint8_t head[4], entry[64];
	uint32_t count;

	outw(0, FWCFG_SELECT);
	fwcfg_take(head, 4);
	if (memcmp(head, "QEMU", 4))
		return NULL;
	outw(FWCFG_FILE_DIR, FWCFG_SELECT);
	fwcfg_take(head, 4);
	count = be32(head);
	for (uint32_t i = 0; i < count && i < 4096; i++) {
		uint32_t len;
		char *data;

		fwcfg_take(entry, sizeof(entry));
		entry[63] = 0;
		if (strcmp((char *)entry + 8, name))
			continue;
		len = be32(entry);
		if (len > MAX_ITEM)
			return NULL;
		data = malloc((size_t)len + 1);
		if (!data)
			return NULL;
		outw((uint16_t)(entry[4] << 8 | entry[5]), FWCFG_SELECT);
		fwcfg_take(data, len);
		data[len] = 0;
		*size = len;
		return data;
	}
	return NULL;
}
