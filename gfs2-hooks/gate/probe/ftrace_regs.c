// SPDX-License-Identifier: GPL-2.0
/* Since 6.2 ftrace_instruction_pointer_set() has another name. */
#include <linux/ftrace.h>

void probe(struct ftrace_regs *fregs, unsigned long ip);
void probe(struct ftrace_regs *fregs, unsigned long ip)
{
	ftrace_regs_set_instruction_pointer(fregs, ip);
}
