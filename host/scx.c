// SPDX-License-Identifier: GPL-2.0-only
/* sched_ext as sysfs tells it. That a call succeeded proves nothing, neither of attaching nor of taking back. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

/* What is looked at ten times a second. */
void scx_read(struct scx_state *s)
{
	s->present = read_word(SCX_DIR "/state", s->state, sizeof(s->state)) > 0;
	read_word(SCX_DIR "/root/ops", s->ops, sizeof(s->ops));
	s->enable_seq = read_u64(SCX_DIR "/enable_seq", 0);
}

bool scx_takes_all(void)
{
	return read_u64(SCX_DIR "/switch_all", 0) == 1;
}

uint64_t scx_rejected(void)
{
	return read_u64(SCX_DIR "/nr_rejected", 0);
}

bool scx_disabled_by(uint64_t end)
{
	struct scx_state s;

	for (;;) {
		scx_read(&s);
		if (!strcmp(s.state, "disabled"))
			return true;
		if (now_ns() >= end)
			return false;
		sleep_until(now_ns() + NSEC_PER_MSEC);
	}
}

/* The kernel's own way back, which needs nobody's help: it works when the call that should take back hangs. */
int scx_sysrq(void)
{
	return write_word(PROC_DIR "/sysrq-trigger", "S");
}
