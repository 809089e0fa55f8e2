// SPDX-License-Identifier: GPL-2.0
/*
 * Locks of NFSv3 clients: lockd, NLM.
 *
 * lockd asks a filesystem with a lock operation of its own without waiting, and
 * dlm answers an asker with lm_grant later, from another thread.  On that way
 * 6.1 goes wrong three times: the owner that dlm tells to dlm_controld is
 * lockd's pid, the same for all clients, so that two of them can hold one lock;
 * lockd's unlock paths (rpc.nfsd 0, unlock_ip) name another owner, so that the
 * lock stays in dlm_controld for ever; and a cancellation, which GFS2 carries
 * out as an unlock, takes a lock that was held before with it.  Nor could a
 * grant be looked at again when it has gone to lm_grant().
 *
 * So dlm is shown these locks without lm_grant.  Then it waits for the answer
 * (lockd's thread waits, as nfsd's do), and the owner is that of the lock: one
 * for each process of each client.  The entry that it puts on the inode's list
 * gets its lock manager back right afterwards, since lockd knows its locks by
 * that.  Should unlock_ip pass over the list in between, then its tripwire has
 * closed the gate before, and the second look undoes the lock.
 *
 * For the same reason nobody waits in dlm for a conflict to end: lockd has one
 * thread.  Stock 6.1 tells a client that is ready to wait "denied", and its
 * program gets ENOLCK; what 6.12 keeps for the client would be granted past the
 * second look.  "Blocked" makes Linux clients ask again after 30 s, "grace period"
 * after 5 s, so that is what they are told.
 *
 * What is to be said to the client cannot be said by an errno.  nlmsvc_lock()
 * is hooked for that, and for what only it knows: is it a reclaim, of which
 * host, in which network namespace?
 *
 *	gate closed, new lock		NLM_LCK_DENIED_GRACE_PERIOD
 *	conflict, ready to wait		NLM_LCK_DENIED_GRACE_PERIOD
 *	reclaim, namespace not in	no answer: the client asks again (to a
 *	  state RECLAIM, or a conflict	reclaim, "grace period" means that it
 *					is lost)
 *	reclaim, host not on record	NLM_LCK_DENIED
 */

#include <linux/fs.h>
#include <linux/lockd/bind.h>
#include <linux/lockd/lockd.h>
#include <linux/module.h>
#include <linux/ratelimit.h>
#include <linux/sunrpc/svc.h>
#include <linux/sunrpc/svc_xprt.h>

#include "gate.h"
#include "gate_trace.h"

bool gate_nlm_refuse;

/* The request that lockd is at. */
struct nlm_call {
	struct task_struct *task;
	struct net *net;
	struct nlm_host *host;
	bool reclaim;
	bool wait;
	__be32 answer;			/* 0: lockd's own */
};

/* lockd has one thread. */
static struct nlm_call *nlm_call;

/* lockd's operations without lm_grant. */
static struct lock_manager_operations sync_ops;
static const struct lock_manager_operations *sync_ops_of;
static DEFINE_SPINLOCK(sync_ops_lock);

/* As dlm tells them apart. */
bool gate_is_nlm(const struct file_lock *fl)
{
	return fl->fl_lmops && fl->fl_lmops->lm_grant;
}

static void relabel(struct file *file,
		    const struct lock_manager_operations *theirs)
{
	struct file_lock_context *ctx = locks_inode_context(file_inode(file));
	struct file_lock *held;

	if (!ctx)
		return;
	spin_lock(&ctx->flc_lock);
	list_for_each_entry(held, &ctx->flc_posix, fl_list)
		if (held->fl_lmops == &sync_ops)
			held->fl_lmops = theirs;
	spin_unlock(&ctx->flc_lock);
}

int gate_nlm_original(struct gate_hook *hook, struct file *file, int cmd,
		      struct file_lock *fl)
{
	const struct lock_manager_operations *theirs = fl->fl_lmops;
	int ret;

	/* None of them waits in dlm. */
	if (cmd == F_CANCELLK)
		return 0;

	spin_lock(&sync_ops_lock);
	if (sync_ops_of != theirs) {
		sync_ops = *theirs;
		sync_ops.lm_grant = NULL;
		sync_ops_of = theirs;
	}
	spin_unlock(&sync_ops_lock);

	fl->fl_lmops = &sync_ops;
	fl->fl_flags &= ~FL_SLEEP;
	ret = gate_original(hook, file, cmd, fl);
	/* A test may have overwritten it. */
	if (fl->fl_lmops == &sync_ops)
		fl->fl_lmops = theirs;
	relabel(file, theirs);
	return ret;
}

static int refuse(struct nlm_call *call, struct file *file, int cmd,
		  struct file_lock *fl, __be32 answer)
{
	trace_gfs2_gate_refuse(file, cmd, fl, -ENOLCK);
	lockd_shim_count_deferred();
	if (call)
		call->answer = answer;
	return -ENOLCK;
}

static int new_lock(struct gate_hook *hook, struct nlm_call *call,
		    struct file *file, int cmd, struct file_lock *fl,
		    unsigned long ticket)
{
	__be32 later = call && call->reclaim ? nlm_drop_reply :
					       nlm_lck_denied_grace_period;
	struct gate_request req;
	int ret;

	if (!ticket)
		return refuse(call, file, cmd, fl, later);
	ret = gate_remember(file, fl, &req);
	if (ret)
		return ret;
	ret = gate_nlm_original(hook, file, cmd, fl);
	if (!ret && !gate_still_open(ticket) && !gate_nothing_new(&req)) {
		gate_undo(hook, file, fl, &req);
		gate_restore_request(fl, &req);
		ret = refuse(call, file, cmd, fl, later);
	}
	if (ret == -EAGAIN && call && call->wait) {
		/* To ENOLCK lockd keeps nothing of the request. */
		call->answer = later;
		ret = -ENOLCK;
	}
	gate_forget(&req);
	return ret;
}

static bool on_record(struct nlm_call *call)
{
	struct nsm_handle *nsm = call->host->h_nsmhandle;

	return lockd_shim_reclaim_host(call->net, call->host->h_name) ||
	       (nsm && (lockd_shim_reclaim_host(call->net, nsm->sm_addrbuf) ||
			lockd_shim_reclaim_host(call->net, nsm->sm_name)));
}

static int reclaimed_lock(struct gate_hook *hook, struct nlm_call *call,
			  struct file *file, int cmd, struct file_lock *fl)
{
	struct gate_request req;
	unsigned long ticket;
	int ret;

	ticket = lockd_shim_reclaim_begin(call->net);
	if (!ticket)
		return refuse(call, file, cmd, fl, nlm_drop_reply);
	if (!on_record(call)) {
		pr_warn_ratelimited("gfs2_gate: NFSv3 client %s is not on record and may not reclaim its lock on %s\n",
				    call->host->h_name,
				    file_inode(file)->i_sb->s_id);
		ret = refuse(call, file, cmd, fl, nlm_lck_denied);
		goto out;
	}
	ret = gate_remember(file, fl, &req);
	if (ret)
		goto out;
	ret = gate_nlm_original(hook, file, cmd, fl);
	if (ret == -EAGAIN) {
		ret = refuse(call, file, cmd, fl, nlm_drop_reply);
	} else if (!ret && !mutant_no_recheck &&
		   !lockd_shim_reclaim_valid(call->net, ticket)) {
		if (!gate_nothing_new(&req)) {
			gate_undo(hook, file, fl, &req);
			gate_restore_request(fl, &req);
		}
		ret = refuse(call, file, cmd, fl, nlm_drop_reply);
	}
	gate_forget(&req);
out:
	lockd_shim_reclaim_end(call->net);
	return ret;
}

int gate_nlm_lock(struct gate_hook *hook, struct file *file, int cmd,
		  struct file_lock *fl)
{
	struct nlm_call *call = READ_ONCE(nlm_call);
	unsigned long bypass = lockd_shim_bypass();

	if (call && call->task != current)
		call = NULL;
	if (gate_nlm_refuse) {
		trace_gfs2_gate_refuse(file, cmd, fl, -ENOLCK);
		pr_warn_ratelimited("gfs2_gate: NFSv3 lock on %s refused, as parameter nlm says; mount with vers=4\n",
				    file_inode(file)->i_sb->s_id);
		return -ENOLCK;
	}
	if (bypass)
		return new_lock(hook, call, file, cmd, fl, bypass);
	if (call && call->reclaim)
		return reclaimed_lock(hook, call, file, cmd, fl);
	return new_lock(hook, call, file, cmd, fl, lockd_shim_gate());
}

typedef __be32 (*nlmsvc_lock_fn)(struct svc_rqst *rqstp, struct nlm_file *file,
				 struct nlm_host *host, struct nlm_lock *lock,
				 int wait, struct nlm_cookie *cookie,
				 int reclaim);

static __be32 gated_nlmsvc_lock(struct svc_rqst *rqstp, struct nlm_file *file,
				struct nlm_host *host, struct nlm_lock *lock,
				int wait, struct nlm_cookie *cookie,
				int reclaim)
{
	nlmsvc_lock_fn original =
		(nlmsvc_lock_fn)READ_ONCE(gate_hook_nlmsvc_lock.original);
	struct nlm_call call = {
		.task = current,
		.net = SVC_NET(rqstp),
		.host = host,
		.reclaim = reclaim,
		.wait = wait,
	};
	__be32 ret = nlm_drop_reply;

	if (cmpxchg(&nlm_call, NULL, &call)) {
		WARN_ONCE(1, "gfs2_gate: lockd has more than one thread\n");
		goto out;
	}
	ret = original(rqstp, file, host, lock, wait, cookie, reclaim);
	WRITE_ONCE(nlm_call, NULL);
	if (call.answer)
		ret = call.answer;
out:
	gate_leave();
	return ret;
}

struct gate_hook gate_hook_nlmsvc_lock = {
	.function = "nlmsvc_lock",
	.module = "lockd",
	.bit = LOCKD_SHIM_HOOK_LOCKD_LOCK,
	.ops = GATE_REDIRECT_OPS,
	.replacement = gated_nlmsvc_lock,
};
