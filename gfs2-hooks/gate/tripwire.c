// SPDX-License-Identifier: GPL-2.0
/*
 * The tripwire on dlm_ls_stop().
 *
 * Problem scenario: a node dies; dlm_controld learns of it before graced does,
 * drops the dead node's POSIX locks and hands them to local waiters, before any
 * fencing.  But it stops the kernel's lockspace first, and that is here.  When
 * the function is entered the gate is closed, so the grants that follow find
 * it closed when they look again.
 *
 * Which lockspace it is cannot be told (struct dlm_ls is private to dlm): any
 * of them trips.
 */

#include <linux/module.h>

#include "gate.h"

static void notrace ls_stop_entered(unsigned long ip, unsigned long parent_ip,
				    struct ftrace_ops *ops,
				    struct ftrace_regs *fregs)
{
	if (!mutant_no_tripwire)
		lockd_shim_trip(LOCKD_SHIM_CAUSE_DLM_LS_STOP);
}

struct gate_hook gate_hook_ls_stop = {
	.function = "dlm_ls_stop",
	.module = "dlm",
	.bit = LOCKD_SHIM_HOOK_DLM_LS_STOP,
	.ops = {
		.func = ls_stop_entered,
		.flags = FTRACE_OPS_FL_PERMANENT,
	},
};
