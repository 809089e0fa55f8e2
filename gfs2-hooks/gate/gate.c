// SPDX-License-Identifier: GPL-2.0
/*
 * The gate on GFS2's lock operations.
 *
 *			closed			while it closes
 *	unlock, test	pass			pass
 *	F_SETLK, local	-EAGAIN			granted: undone, -EAGAIN
 *	F_SETLKW, local	waits			granted: undone, waits
 *	flock, local	like F_SETLK(W)		like F_SETLK(W)
 *	NFSv4, new	-ETIMEDOUT		granted: undone, -ETIMEDOUT
 *	NFSv4, reclaim	its namespace in state RECLAIM, or -ETIMEDOUT
 *	NLM		see nlm.c
 *
 * While the gate is bypassed a reclaim is a lock like any other: it passes, as
 * on a node without this module, and is undone if the bypass ends meanwhile.
 *
 * nfsd turns -ETIMEDOUT into NFS4ERR_DELAY: the client tries again later.  With
 * -EAGAIN it would say NFS4ERR_DENIED, and the program on the client would be
 * told of a conflict that there is not.
 *
 * After each grant the gate is looked at again (see lockd_shim.h).  Problem
 * scenario: a program waits in F_SETLKW behind a lock of a client of a dead
 * node.  When dlm_controld drops that lock, it grants the program's, although
 * the client has a right to reclaim it.  By then the tripwire has closed the
 * gate, so the grant is undone before the program sees it, and the program
 * waits for the end of grace.
 */

#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sunrpc/svc.h>
#include <linux/sunrpc/svc_xprt.h>

#include "gate.h"
#include "gate_trace.h"

#ifdef GRACED_MUTANTS
bool mutant_no_recheck;
module_param(mutant_no_recheck, bool, 0644);
bool mutant_no_tripwire;
module_param(mutant_no_tripwire, bool, 0644);
bool mutant_no_restore;
module_param(mutant_no_restore, bool, 0644);
#endif

bool gate_still_open(unsigned long ticket)
{
	return mutant_no_recheck || lockd_shim_gate() == ticket;
}

/* To the filesystem; an NLM lock in its own way. */
int gate_pass(struct gate_hook *hook, struct file *file, int cmd,
	      struct file_lock *fl)
{
	return gate_is_nlm(fl) ? gate_nlm_original(hook, file, cmd, fl) :
				 gate_original(hook, file, cmd, fl);
}

/* Unlocks, tests and cancellations. */
static bool always_passes(int cmd, const struct file_lock *fl)
{
	return fl->fl_type == F_UNLCK || IS_GETLK(cmd) || cmd == F_CANCELLK;
}

typedef int (*remember_fn)(struct file *file, struct file_lock *fl,
			   struct gate_request *req);
typedef int (*undo_fn)(struct gate_hook *hook, struct file *file,
		       struct file_lock *fl, const struct gate_request *req);

/* @remember and @undo make it POSIX or flock. */
static int ask(struct gate_hook *hook, struct file *file, int cmd,
	       struct file_lock *fl, remember_fn remember, undo_fn undo)
{
	bool waited = false;
	struct gate_request req;
	unsigned long ticket;
	int ret;

	for (;;) {
		ticket = lockd_shim_gate();
		if (!ticket || (!waited && IS_SETLKW(cmd) &&
				lockd_shim_queue())) {
			/* Its requests are kept back by its own grace. */
			if (lockd_shim_exempt())
				return gate_original(hook, file, cmd, fl);
			trace_gfs2_gate_refuse(file, cmd, fl,
					       IS_SETLKW(cmd) ? 0 : -EAGAIN);
			if (!IS_SETLKW(cmd))
				return -EAGAIN;
			ret = lockd_shim_wait(waited, GATE_SETLKW_STATE);
			if (ret)
				return ret;
			waited = true;
			continue;
		}

		ret = remember(file, fl, &req);
		if (ret)
			return ret;
		ret = gate_original(hook, file, cmd, fl);
		if (waited)
			lockd_shim_through();
		if (ret || gate_still_open(ticket) || gate_nothing_new(&req) ||
		    lockd_shim_exempt()) {
			gate_forget(&req);
			return ret;
		}
		undo(hook, file, fl, &req);
		gate_restore_request(fl, &req);
		gate_forget(&req);
		if (!IS_SETLKW(cmd))
			return -EAGAIN;
		/* Once more, and wait if the gate is still closed. */
		waited = true;
	}
}

/*
 * A local program's lock.  One that may wait for ever holds the module too: an
 * rmmod is refused then.  Without that it would take the hooks away, and hang
 * until that program has got its lock.
 */
static int local_gate(struct gate_hook *hook, struct file *file, int cmd,
		      struct file_lock *fl, remember_fn remember, undo_fn undo)
{
	int ret;

	if (!IS_SETLKW(cmd))
		return ask(hook, file, cmd, fl, remember, undo);
	/* While the module is being unloaded: as if it were gone. */
	if (!try_module_get(THIS_MODULE))
		return gate_original(hook, file, cmd, fl);
	ret = ask(hook, file, cmd, fl, remember, undo);
	module_put(THIS_MODULE);
	return ret;
}

static int deferred(struct file *file, int cmd, struct file_lock *fl)
{
	lockd_shim_count_deferred();
	trace_gfs2_gate_refuse(file, cmd, fl, -ETIMEDOUT);
	return -ETIMEDOUT;
}

/* A new lock: nfsd looks at its own grace first, this is for what slipped past. */
static int nfs_new_lock(struct gate_hook *hook, struct file *file, int cmd,
			struct file_lock *fl, unsigned long ticket)
{
	struct gate_request req;
	int ret;

	if (!ticket)
		return deferred(file, cmd, fl);
	ret = gate_remember(file, fl, &req);
	if (ret)
		return ret;
	ret = gate_original(hook, file, cmd, fl);
	if (!ret && !gate_still_open(ticket) && !gate_nothing_new(&req)) {
		gate_undo(hook, file, fl, &req);
		gate_restore_request(fl, &req);
		ret = deferred(file, cmd, fl);
	}
	gate_forget(&req);
	return ret;
}

/*
 * The network namespace that a lock of nfsd's came from.  An nfsd thread runs
 * the function of that name, with its struct svc_rqst as argument; anything
 * else that may call itself a lock manager is not known to us.
 */
static struct net *nfsd_net(const struct file_lock *fl)
{
	struct module *owner = fl->fl_lmops->lm_mod_owner;
	struct svc_rqst *rqstp;
	void *func;

	if (!(current->flags & PF_KTHREAD) || !owner)
		return NULL;
	func = kthread_func(current);
	if (!func || !within_module((unsigned long)func, owner))
		return NULL;
	rqstp = kthread_data(current);
	return SVC_NET(rqstp);
}

/*
 * A conflict is no reason to refuse a reclaim for good.  While the gates are
 * closed nobody else can rightly hold the lock: it is a grant that is about to
 * be undone on some node, or the old server's lock on its way out.  Told
 * NFS4ERR_DENIED, the client would give the lock up for lost; so it is told to
 * come again, until its grace is over.
 */
static int nfs_reclaim(struct gate_hook *hook, struct file *file, int cmd,
		       struct file_lock *fl)
{
	unsigned long ticket = lockd_shim_bypass();
	struct net *net = nfsd_net(fl);
	struct gate_request req;
	int ret;

	if (ticket)
		return nfs_new_lock(hook, file, cmd, fl, ticket);
	ticket = net ? lockd_shim_reclaim_begin(net) : 0;
	if (!ticket)
		return deferred(file, cmd, fl);

	ret = gate_remember(file, fl, &req);
	if (ret)
		goto out;
	ret = gate_original(hook, file, cmd, fl);
	if (ret == -EAGAIN) {
		ret = deferred(file, cmd, fl);
	} else if (!ret && !mutant_no_recheck &&
		   !lockd_shim_reclaim_valid(net, ticket)) {
		if (!gate_nothing_new(&req)) {
			gate_undo(hook, file, fl, &req);
			gate_restore_request(fl, &req);
		}
		ret = deferred(file, cmd, fl);
	}
	gate_forget(&req);
out:
	lockd_shim_reclaim_end(net);
	return ret;
}

/*
 * The replacements.  gate_redirect() counted them in, they count themselves out.
 * No memory is sought in filesystems meanwhile: one of them may be this GFS2,
 * frozen, and an undo must not wait for that.
 */

static int gated_lock(struct file *file, int cmd, struct file_lock *fl)
{
	struct gate_hook *hook = &gate_hook_lock;
	unsigned int nofs = memalloc_nofs_save();
	int ret;

	/*
	 * 6.1's lockd asks for tests without any flag, and GFS2 says ENOLCK to
	 * what is not FL_POSIX.
	 */
	if (IS_GETLK(cmd) && !fl->fl_flags)
		fl->fl_flags = FL_POSIX;

	if (!gate_gated(file))
		ret = gate_original(hook, file, cmd, fl);
	else if (always_passes(cmd, fl))
		ret = gate_pass(hook, file, cmd, fl);
	else if (!fl->fl_lmops)
		ret = local_gate(hook, file, cmd, fl, gate_remember, gate_undo);
	else if (gate_is_nlm(fl))
		ret = gate_nlm_lock(hook, file, cmd, fl);
	else if (fl->fl_flags & FL_RECLAIM)
		ret = nfs_reclaim(hook, file, cmd, fl);
	else
		ret = nfs_new_lock(hook, file, cmd, fl, lockd_shim_gate());
	memalloc_nofs_restore(nofs);
	gate_leave();
	return ret;
}

static int gated_flock(struct file *file, int cmd, struct file_lock *fl)
{
	struct gate_hook *hook = &gate_hook_flock;
	unsigned int nofs = memalloc_nofs_save();
	int ret;

	if (always_passes(cmd, fl) || !gate_gated(file))
		ret = gate_original(hook, file, cmd, fl);
	else
		ret = local_gate(hook, file, cmd, fl, gate_remember_flock,
				 gate_undo_flock);
	memalloc_nofs_restore(nofs);
	gate_leave();
	return ret;
}

struct gate_hook gate_hook_lock = {
	.function = "gfs2_lock",
	.module = "gfs2",
	.bit = LOCKD_SHIM_HOOK_GFS2_LOCK,
	.ops = GATE_REDIRECT_OPS,
	.replacement = gated_lock,
};

struct gate_hook gate_hook_flock = {
	.function = "gfs2_flock",
	.module = "gfs2",
	.bit = LOCKD_SHIM_HOOK_GFS2_FLOCK,
	.ops = GATE_REDIRECT_OPS,
	.replacement = gated_flock,
};
