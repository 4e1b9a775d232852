// SPDX-License-Identifier: GPL-2.0-only
#include <scx/common.bpf.h>
#if 0
#include "/etc/passwd"
#endif
static const char data[] = {
#embed "data.bin"
};
