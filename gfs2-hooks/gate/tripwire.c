// SPDX-License-Identifier: GPL-2.0
/*
 * The tripwires: on dlm_ls_stop(), and where nfsd and lockd drop locks.
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

#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/nsproxy.h>
#include <linux/ptrace.h>
#include <net/net_namespace.h>

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

/*
 * Problem scenario: somebody stops a server by hand.  nfsd drops the locks of
 * its clients, which will reclaim them from wherever the server is started
 * next; until then anybody could take them.
 */

static struct net *net_argument(struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);

	return regs ? (struct net *)regs_get_kernel_argument(regs, 0) : NULL;
}

/* nfs4_state_start_net(net): a beginning only; nothing is closed for it. */
static void notrace nfsd_starts(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	struct net *net = net_argument(fregs);

	if (net)
		lockd_shim_server_start(net);
}

/* nfs4_state_shutdown_net(net): for a server that has NFSv3 only, too. */
static void notrace nfsd_stops(unsigned long ip, unsigned long parent_ip,
			       struct ftrace_ops *ops,
			       struct ftrace_regs *fregs)
{
	if (!mutant_no_tripwire)
		lockd_shim_server_stop(net_argument(fregs),
				       LOCKD_SHIM_CAUSE_NFSD_STOP);
}

/*
 * nlmsvc_invalidate_all(): lockd drops everything.  At its end that was told of
 * when nfsd stopped; by a signal nobody was told.
 */
static void notrace lockd_stops(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	if (mutant_no_tripwire)
		return;
	if ((current->flags & PF_KTHREAD) && gate_lockd_ends())
		lockd_shim_trip(LOCKD_SHIM_CAUSE_LOCKD_STOP);
	else
		lockd_shim_server_stop(NULL, LOCKD_SHIM_CAUSE_LOCKD_STOP);
}

/* By hand, through /proc/fs/nfsd, of the namespace that one is in. */
static void notrace unlocks(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct nsproxy *ns = current->nsproxy;

	if (!mutant_no_tripwire)
		lockd_shim_server_stop(ns ? ns->net_ns : NULL,
				       LOCKD_SHIM_CAUSE_LOCKD_STOP);
}

#define LISTEN(function_name, module_name, hook_bit, call) {		\
	.function = function_name,					\
	.module = module_name,						\
	.bit = hook_bit,						\
	.ops = {							\
		.func = call,						\
		.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_PERMANENT, \
	},								\
}

struct gate_hook gate_hook_nfsd_start =
	LISTEN("nfs4_state_start_net", "nfsd", LOCKD_SHIM_HOOK_NFSD_START,
	       nfsd_starts);
struct gate_hook gate_hook_nfsd_stop =
	LISTEN("nfs4_state_shutdown_net", "nfsd", LOCKD_SHIM_HOOK_NFSD_STOP,
	       nfsd_stops);
struct gate_hook gate_hook_lockd_stop =
	LISTEN("nlmsvc_invalidate_all", "lockd", LOCKD_SHIM_HOOK_LOCKD_STOP,
	       lockd_stops);
struct gate_hook gate_hook_unlock_ip =
	LISTEN("nlmsvc_unlock_all_by_ip", "lockd", LOCKD_SHIM_HOOK_UNLOCK_IP,
	       unlocks);
struct gate_hook gate_hook_unlock_fs =
	LISTEN("nlmsvc_unlock_all_by_sb", "lockd", LOCKD_SHIM_HOOK_UNLOCK_FS,
	       unlocks);
