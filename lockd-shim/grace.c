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
#include <linux/slab.h>
#include <linux/string.h>
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
	struct list_head hosts;		/* on record; under hosts_lock */
	unsigned int n_hosts;
	atomic64_t stops;
	bool nfsd_up;
	u64 told_stops;			/* of the two, to listeners */
	bool told_up;
};

/* An NSM host that may reclaim, as long as the permission lasts. */
struct shim_host {
	struct list_head link;
	char name[];
};

static DEFINE_SPINLOCK(hosts_lock);

/* Stops of servers whose namespace is not known: of all. */
static atomic64_t stops_anywhere = ATOMIC64_INIT(0);

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
	if (mutant_two_states && !ticket)
		ticket = -1UL;
	if (!ticket)
		atomic_dec(&sn->in_flight);
	return ticket;
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_begin);

bool lockd_shim_reclaim_valid(struct net *net, unsigned long ticket)
{
	/* The grant before our look; pairs with net_withdraw(). */
	smp_mb();
	return READ_ONCE(shim_net(net)->reclaim) == ticket ||
	       (mutant_two_states && ticket == -1UL);
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_valid);

void lockd_shim_reclaim_end(struct net *net)
{
	/* All that the reclaim did, before it counts as over. */
	smp_mb__before_atomic();
	atomic_dec(&shim_net(net)->in_flight);
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_end);

bool lockd_shim_reclaim_host(struct net *net, const char *name)
{
	struct shim_net *sn = shim_net(net);
	struct shim_host *host;
	bool found = false;

	spin_lock(&hosts_lock);
	list_for_each_entry(host, &sn->hosts, link) {
		found = !strcmp(host->name, name);
		if (found)
			break;
	}
	spin_unlock(&hosts_lock);
	return found;
}
EXPORT_SYMBOL_GPL(lockd_shim_reclaim_host);

int grace_host_add(struct net *net, const char *name,
		   struct netlink_ext_ack *extack)
{
	struct shim_net *sn = shim_net(net);
	size_t size = strlen(name) + 1;
	struct shim_host *host;

	lockdep_assert_held(&shim_mutex);

	if (!sn->reclaim) {
		NL_SET_ERR_MSG(extack, "the namespace is not in state reclaim");
		return -EBUSY;
	}
	if (lockd_shim_reclaim_host(net, name))
		return 0;
	if (sn->n_hosts == LOCKD_SHIM_HOSTS_MAX) {
		NL_SET_ERR_MSG(extack, "too many hosts");
		return -ENOSPC;
	}
	/* Closing waits for shim_mutex, and must not wait for memory. */
	host = kmalloc(struct_size(host, name, size), GFP_NOWAIT);
	if (!host)
		return -ENOMEM;
	memcpy(host->name, name, size);
	spin_lock(&hosts_lock);
	list_add(&host->link, &sn->hosts);
	spin_unlock(&hosts_lock);
	sn->n_hosts++;
	return 0;
}

static void hosts_forget(struct shim_net *sn)
{
	struct shim_host *host, *next;
	LIST_HEAD(gone);

	spin_lock(&hosts_lock);
	list_splice_init(&sn->hosts, &gone);
	spin_unlock(&hosts_lock);
	sn->n_hosts = 0;
	list_for_each_entry_safe(host, next, &gone, link)
		kfree(host);
}

void lockd_shim_server_stop(struct net *net, enum lockd_shim_cause cause)
{
	if (net) {
		WRITE_ONCE(shim_net(net)->nfsd_up, cause !=
			   LOCKD_SHIM_CAUSE_NFSD_STOP &&
			   READ_ONCE(shim_net(net)->nfsd_up));
		atomic64_inc(&shim_net(net)->stops);
	} else {
		atomic64_inc(&stops_anywhere);
	}
	lockd_shim_trip(cause);
}
EXPORT_SYMBOL_GPL(lockd_shim_server_stop);

void lockd_shim_server_start(struct net *net)
{
	WRITE_ONCE(shim_net(net)->nfsd_up, true);
	gate_settle_async();
}
EXPORT_SYMBOL_GPL(lockd_shim_server_start);

static u64 net_stops(struct shim_net *sn)
{
	return atomic64_read(&sn->stops) + atomic64_read(&stops_anywhere);
}

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
	st->nfsd_up = READ_ONCE(sn->nfsd_up);
	st->stops = net_stops(sn);
	st->hosts = sn->n_hosts;
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
	hosts_forget(sn);
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

/* Servers that started or stopped since the last time. */
void grace_tell(void)
{
	struct shim_net *sn;

	lockdep_assert_held(&shim_mutex);

	list_for_each_entry(sn, &shim_nets, link) {
		u64 stops = net_stops(sn);
		bool up = READ_ONCE(sn->nfsd_up);

		if (stops == sn->told_stops && up == sn->told_up)
			continue;
		sn->told_stops = stops;
		sn->told_up = up;
		net_notify(sn, true);
	}
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
	INIT_LIST_HEAD(&sn->hosts);
	atomic_set(&sn->in_flight, 0);
	/* What was before it was there is not its own. */
	atomic64_set(&sn->stops, -atomic64_read(&stops_anywhere));

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
