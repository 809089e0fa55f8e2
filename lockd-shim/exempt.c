// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that are NFS servers themselves and keep the cluster's grace period
 * by the daemon's word (nfs-ganesha on GFS2).  To the kernel their clients'
 * locks are locks of a local program; the gate would hold back the reclaims.
 *
 * By process, not by name: the daemon knows who it talks to.  When the daemon
 * goes, nobody speaks for them any more, and they are local programs like all
 * others.
 */

#include <linux/export.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "shim.h"

/*
 * Written under shim_mutex.  An entry keeps its struct pid, so no other process
 * can have the same pointer.
 */
static struct pid *exempt[LOCKD_SHIM_EXEMPT_MAX];
static unsigned int n_exempt;

bool lockd_shim_exempt(void)
{
	struct pid *me;
	int i;

	if (likely(!READ_ONCE(n_exempt)))
		return false;
	me = task_tgid(current);
	for (i = 0; i < ARRAY_SIZE(exempt); i++)
		if (READ_ONCE(exempt[i]) == me)
			return true;
	return false;
}
EXPORT_SYMBOL_GPL(lockd_shim_exempt);

static bool is_process(struct pid *pid)
{
	bool found;

	rcu_read_lock();
	found = pid_task(pid, PIDTYPE_TGID);
	rcu_read_unlock();
	return found;
}

static void drop(int i)
{
	struct pid *pid = exempt[i];

	WRITE_ONCE(exempt[i], NULL);
	WRITE_ONCE(n_exempt, n_exempt - 1);
	put_pid(pid);
}

static void drop_dead(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(exempt); i++)
		if (exempt[i] && !is_process(exempt[i]))
			drop(i);
}

int exempt_set(u32 nr, bool add, struct netlink_ext_ack *extack)
{
	struct pid *pid = find_get_pid(nr);
	int i, place = -1, ret = 0;

	lockdep_assert_held(&shim_mutex);

	drop_dead();
	if (!pid || !is_process(pid)) {
		NL_SET_ERR_MSG(extack, "there is no such process");
		ret = -ESRCH;
		goto out;
	}
	for (i = 0; i < ARRAY_SIZE(exempt); i++) {
		if (exempt[i] == pid) {
			if (!add)
				drop(i);
			goto out;
		}
		if (!exempt[i])
			place = i;
	}
	if (!add)
		goto out;
	if (place < 0) {
		NL_SET_ERR_MSG(extack, "too many processes are exempt");
		ret = -ENOSPC;
		goto out;
	}
	WRITE_ONCE(exempt[place], pid);
	WRITE_ONCE(n_exempt, n_exempt + 1);
	return 0;
out:
	put_pid(pid);
	return ret;
}

void exempt_clear(void)
{
	int i;

	lockdep_assert_held(&shim_mutex);

	for (i = 0; i < ARRAY_SIZE(exempt); i++)
		if (exempt[i])
			drop(i);
}

unsigned int exempt_count(void)
{
	lockdep_assert_held(&shim_mutex);

	drop_dead();
	return n_exempt;
}
