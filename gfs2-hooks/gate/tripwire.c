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
 * next; until then anybody could take them, here and on other nodes.  So what
 * drops locks is replaced: it closes the gate, waits for the others'
 * (lockd_shim_drop_wait()), and goes on then.
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

typedef void (*nfsd_stop_fn)(struct net *net);
typedef void (*lockd_stop_fn)(void);
typedef int (*unlock_fn)(void *which);

static void dropping(struct net *net, enum lockd_shim_cause cause)
{
	if (mutant_no_tripwire)
		return;
	lockd_shim_server_stop(net, cause);
	lockd_shim_drop_wait();
}

/* For a server that has NFSv3 only, too. */
static void gated_nfsd_stop(struct net *net)
{
	nfsd_stop_fn original =
		(nfsd_stop_fn)READ_ONCE(gate_hook_nfsd_stop.original);

	dropping(net, LOCKD_SHIM_CAUSE_NFSD_STOP);
	original(net);
	gate_leave();
}

/*
 * lockd drops everything.  At its end that was told of when nfsd stopped; by a
 * signal nobody was told.
 */
static void gated_lockd_stop(void)
{
	lockd_stop_fn original =
		(lockd_stop_fn)READ_ONCE(gate_hook_lockd_stop.original);

	if (!(current->flags & PF_KTHREAD) || !gate_lockd_ends())
		dropping(NULL, LOCKD_SHIM_CAUSE_LOCKD_STOP);
	else if (!mutant_no_tripwire)
		lockd_shim_trip(LOCKD_SHIM_CAUSE_LOCKD_STOP);
	original();
	gate_leave();
}

/* By hand, through /proc/fs/nfsd, of the namespace that one is in. */
static int gated_unlock(struct gate_hook *hook, void *which)
{
	unlock_fn original = (unlock_fn)READ_ONCE(hook->original);
	struct nsproxy *ns = current->nsproxy;
	int ret;

	dropping(ns ? ns->net_ns : NULL, LOCKD_SHIM_CAUSE_LOCKD_STOP);
	ret = original(which);
	gate_leave();
	return ret;
}

static int gated_unlock_ip(struct sockaddr *server)
{
	return gated_unlock(&gate_hook_unlock_ip, server);
}

static int gated_unlock_fs(struct super_block *sb)
{
	return gated_unlock(&gate_hook_unlock_fs, sb);
}

struct gate_hook gate_hook_nfsd_start = {
	.function = "nfs4_state_start_net",
	.module = "nfsd",
	.bit = LOCKD_SHIM_HOOK_NFSD_START,
	.ops = {
		.func = nfsd_starts,
		.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_PERMANENT,
	},
};

#define REPLACE(function_name, module_name, hook_bit, by) {	\
	.function = function_name,				\
	.module = module_name,					\
	.bit = hook_bit,					\
	.ops = GATE_REDIRECT_OPS,				\
	.replacement = by,					\
}

struct gate_hook gate_hook_nfsd_stop =
	REPLACE("nfs4_state_shutdown_net", "nfsd", LOCKD_SHIM_HOOK_NFSD_STOP,
		gated_nfsd_stop);
struct gate_hook gate_hook_lockd_stop =
	REPLACE("nlmsvc_invalidate_all", "lockd", LOCKD_SHIM_HOOK_LOCKD_STOP,
		gated_lockd_stop);
struct gate_hook gate_hook_unlock_ip =
	REPLACE("nlmsvc_unlock_all_by_ip", "lockd", LOCKD_SHIM_HOOK_UNLOCK_IP,
		gated_unlock_ip);
struct gate_hook gate_hook_unlock_fs =
	REPLACE("nlmsvc_unlock_all_by_sb", "lockd", LOCKD_SHIM_HOOK_UNLOCK_FS,
		gated_unlock_fs);
