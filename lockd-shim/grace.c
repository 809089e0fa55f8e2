// SPDX-License-Identifier: GPL-2.0
/*
 * Network namespaces: a lock_manager on the kernel's grace list in each of
 * them while the gate is closed, and the permission to reclaim.
 *
 * Grace is private to a namespace.  Problem scenario: server A is down and its
 * clients will reclaim; server B runs on the same node in another namespace,
 * and nothing keeps its clients from taking A's locks.  So every namespace is
 * held, and one that appears later is held from its first moment.
 */

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/lockd/bind.h>
#include <linux/module.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "shim.h"
#include "trace.h"

struct shim_net {
	struct list_head link;		/* in shim_nets */
	struct net *net;
	struct lock_manager lm;
	bool held;			/* @lm is on the grace list */
	unsigned long reclaim;		/* ticket; 0: no permission */
	u64 reclaim_epoch;		/* that it was given for */
	atomic_t in_flight;
};

static unsigned int shim_net_id;

/* Under shim_mutex. */
static LIST_HEAD(shim_nets);
static unsigned long shim_nets_generation;
static unsigned long reclaim_last_ticket;
static bool hold_all = true;

static struct shim_net *shim_net(struct net *net)
{
	return net_generic(net, shim_net_id);
}

unsigned long lockd_shim_reclaim_begin(struct net *net)
{
	struct shim_net *sn = shim_net(net);
	unsigned long ticket;

	atomic_inc(&sn->in_flight);
	/* Counted before we look: one that is not counted has seen nothing. */
	smp_mb__after_atomic();
	ticket = READ_ONCE(sn->reclaim);
	if (!ticket)
		atomic_dec(&sn->in_flight);
	return ticket;
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_begin);

bool lockd_shim_reclaim_valid(struct net *net, unsigned long ticket)
{
	/* The grant before our look; pairs with net_withdraw(). */
	smp_mb();
	return READ_ONCE(shim_net(net)->reclaim) == ticket;
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_valid);

void lockd_shim_reclaim_end(struct net *net)
{
	/* All that the reclaim did, before it counts as over. */
	smp_mb__before_atomic();
	atomic_dec(&shim_net(net)->in_flight);
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_end);

static void net_hold(struct shim_net *sn, bool hold)
{
	lockdep_assert_held(&shim_mutex);

	/* The kernel warns of a lock_manager that is added twice. */
	if (hold == sn->held)
		return;
	if (hold)
		locks_start_grace(sn->net, &sn->lm);
	else
		locks_end_grace(&sn->lm);
	sn->held = hold;
}

static void net_status(struct shim_net *sn, struct shim_net_status *st)
{
	st->ino = sn->net->ns.inum;
	st->cookie = sn->net->net_cookie;
	if (sn->reclaim)
		st->state = LOCKD_SHIM_STATE_RECLAIM;
	else if (lockd_shim_gate())
		st->state = LOCKD_SHIM_STATE_OPEN;
	else
		st->state = LOCKD_SHIM_STATE_CLOSED;
	st->in_flight = atomic_read(&sn->in_flight);
	st->held = sn->held;
	st->in_grace = locks_in_grace(sn->net);
	st->opens_blocked = opens_in_grace(sn->net);
}

static void net_notify(struct shim_net *sn, bool up)
{
	struct shim_net_status st;

	net_status(sn, &st);
	shim_notify_net(&st, up);
}

/*
 * A reclaim that is inside the filesystem's lock operation has the old ticket
 * and finds out by lockd_shim_reclaim_valid(); nobody waits for it here, it
 * may be waiting for a DLM that is stopped.
 */
static void net_withdraw(struct shim_net *sn)
{
	lockdep_assert_held(&shim_mutex);

	if (!sn->reclaim)
		return;
	WRITE_ONCE(sn->reclaim, 0);
	/* Reclaims end before opens begin; pairs with reclaim_valid(). */
	smp_mb();
	WRITE_ONCE(sn->lm.block_opens, false);
	trace_lockd_shim_reclaim(sn->net->ns.inum, false, sn->reclaim_epoch);
	net_notify(sn, true);
}

void grace_hold_all(bool hold)
{
	struct shim_net *sn;

	lockdep_assert_held(&shim_mutex);

	hold_all = hold;
	list_for_each_entry(sn, &shim_nets, link)
		net_hold(sn, hold);
}

void grace_withdraw_others(u64 epoch)
{
	struct shim_net *sn;

	list_for_each_entry(sn, &shim_nets, link)
		if (sn->reclaim_epoch != epoch)
			net_withdraw(sn);
}

void grace_withdraw_all(void)
{
	struct shim_net *sn;

	list_for_each_entry(sn, &shim_nets, link)
		net_withdraw(sn);
}

unsigned int grace_reclaiming(void)
{
	struct shim_net *sn;
	unsigned int n = 0;

	lockdep_assert_held(&shim_mutex);

	list_for_each_entry(sn, &shim_nets, link)
		n += !!sn->reclaim;
	return n;
}

/* The caller has made sure that the gate is closed and the epoch right. */
void grace_reclaim_set(struct net *net, bool reclaim, u64 epoch)
{
	struct shim_net *sn = shim_net(net);

	lockdep_assert_held(&shim_mutex);

	if (!reclaim) {
		net_withdraw(sn);
		return;
	}
	sn->reclaim_epoch = epoch;
	if (sn->reclaim)
		return;

	/* Opens first: no reclaim of one may meet a new open. */
	WRITE_ONCE(sn->lm.block_opens, true);
	/* As above, the other way round. */
	smp_mb();
	WRITE_ONCE(sn->reclaim, ++reclaim_last_ticket);
	trace_lockd_shim_reclaim(net->ns.inum, true, epoch);
	net_notify(sn, true);
}

void grace_net_status(struct net *net, struct shim_net_status *st)
{
	lockdep_assert_held(&shim_mutex);
	net_status(shim_net(net), st);
}

/* For dumps; false behind the last one. */
bool grace_nth_status(unsigned long n, unsigned long *generation,
		      struct shim_net_status *st)
{
	struct shim_net *sn;

	lockdep_assert_held(&shim_mutex);

	*generation = shim_nets_generation;
	list_for_each_entry(sn, &shim_nets, link) {
		if (n--)
			continue;
		net_status(sn, st);
		return true;
	}
	return false;
}

static int __net_init grace_net_init(struct net *net)
{
	struct shim_net *sn = shim_net(net);

	sn->net = net;
	INIT_LIST_HEAD(&sn->lm.list);
	atomic_set(&sn->in_flight, 0);

	mutex_lock(&shim_mutex);
	list_add_tail(&sn->link, &shim_nets);
	shim_nets_generation++;
	net_hold(sn, hold_all);
	net_notify(sn, true);
	mutex_unlock(&shim_mutex);
	return 0;
}

/* Runs before that of module grace, which wants its list empty. */
static void __net_exit grace_net_exit(struct net *net)
{
	struct shim_net *sn = shim_net(net);

	mutex_lock(&shim_mutex);
	net_withdraw(sn);
	net_hold(sn, false);
	list_del(&sn->link);
	shim_nets_generation++;
	net_notify(sn, false);
	mutex_unlock(&shim_mutex);
}

static struct pernet_operations grace_net_ops = {
	.init = grace_net_init,
	.exit = grace_net_exit,
	.id = &shim_net_id,
	.size = sizeof(struct shim_net),
};

int grace_init(void)
{
	return register_pernet_subsys(&grace_net_ops);
}

void grace_exit(void)
{
	unregister_pernet_subsys(&grace_net_ops);
}
