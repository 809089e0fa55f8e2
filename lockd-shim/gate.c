// SPDX-License-Identifier: GPL-2.0
/*
 * The gate of the node: open or closed, and everything that moves it.
 *
 * It is opened in one place only, gate_order_open(), and closed from many:
 * orders, the permit's end, the tripwire, the loss of the daemon or of a hook.
 *
 * Beside that there is the bypass, for the operator: while it is on, nothing is
 * held back, whatever the gate's own state.  It belongs to no daemon and ends
 * only when it is switched off.  Under it the gate is closed, and nobody is told
 * that the gate held anything: see gate_bypassed().
 */

#include <linux/export.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/uidgid.h>

#include "shim.h"
#include "trace.h"

/* See shim.h. */
DEFINE_MUTEX(shim_mutex);

struct shim_gate gate = {
	.lock = __RAW_SPIN_LOCK_UNLOCKED(gate.lock),
};

struct shim_state shim;

#ifdef GRACED_MUTANTS
bool mutant_no_permit;
module_param(mutant_no_permit, bool, 0644);
bool mutant_two_states;
module_param(mutant_two_states, bool, 0644);
bool mutant_any_trips;
module_param(mutant_any_trips, bool, 0644);
bool mutant_silent_bypass;
module_param(mutant_silent_bypass, bool, 0644);
bool mutant_no_drop_wait;
module_param(mutant_no_drop_wait, bool, 0644);
#endif

atomic64_t shim_undone = ATOMIC64_INIT(0);
atomic64_t shim_deferred = ATOMIC64_INIT(0);

static struct workqueue_struct *gate_wq;

/* Servers that are about to let go of their locks. */
static DECLARE_WAIT_QUEUE_HEAD(drop_wait);

/* What the listeners were told last; under shim_mutex. */
static struct {
	unsigned long ticket;
	u64 epoch;
	u64 trips;
} told;

unsigned long lockd_shim_gate(void)
{
	unsigned long ticket;
	u64 until;

	/*
	 * After a grant: what the filesystem did before what we see here.  The
	 * one who closed the gate did it before he caused the grant.
	 */
	smp_mb();
	ticket = READ_ONCE(gate.bypass);
	if (unlikely(ticket))
		goto out;
	/*
	 * The permit before the ticket: permit_set() never extends a permit
	 * that has run out without dropping the ticket first, so an older
	 * permit than the ticket's can only be too short, never too long.
	 * The clock last, for the same reason.
	 */
	until = READ_ONCE(gate.permit_until);
	/* Pairs with the lock of gate.lock, under which both change. */
	smp_rmb();
	ticket = READ_ONCE(gate.ticket);
	if (ticket && ktime_get_boottime_ns() >= until && !mutant_no_permit)
		ticket = 0;
out:
	/* Before a request: it starts after we have looked. */
	smp_mb();
	return ticket;
}
EXPORT_SYMBOL_GPL(lockd_shim_gate);

unsigned long lockd_shim_bypass(void)
{
	return READ_ONCE(gate.bypass);
}
EXPORT_SYMBOL_GPL(lockd_shim_bypass);

void lockd_shim_count_undone(void)
{
	atomic64_inc(&shim_undone);
}
EXPORT_SYMBOL_GPL(lockd_shim_count_undone);

void lockd_shim_count_deferred(void)
{
	atomic64_inc(&shim_deferred);
}
EXPORT_SYMBOL_GPL(lockd_shim_count_deferred);

static void gate_work_fn(struct work_struct *work)
{
	mutex_lock(&shim_mutex);
	gate_settle();
	mutex_unlock(&shim_mutex);
}

static DECLARE_WORK(gate_work, gate_work_fn);

/* Any context. */
void gate_settle_async(void)
{
	queue_work(gate_wq, &gate_work);
}

static bool gate_drop_ticket(enum lockd_shim_reason reason)
{
	lockdep_assert_held(&gate.lock);

	if (!gate.ticket)
		return false;
	WRITE_ONCE(gate.ticket, 0);
	gate.reason = reason;
	trace_lockd_shim_gate(LOCKD_SHIM_STATE_CLOSED, reason, gate.trips);
	return true;
}

/* Drops the flag; the caller sees to gate_settle().  Any context but NMI. */
bool gate_shut(enum lockd_shim_reason reason)
{
	unsigned long flags;
	bool changed;

	raw_spin_lock_irqsave(&gate.lock, flags);
	changed = gate_drop_ticket(reason);
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	/* Pairs with the first in lockd_shim_gate(). */
	smp_mb();
	return changed;
}

void gate_shut_async(enum lockd_shim_reason reason)
{
	if (gate_shut(reason))
		queue_work(gate_wq, &gate_work);
}

void lockd_shim_trip(enum lockd_shim_cause cause)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&gate.lock, flags);
	gate.trips++;
	WRITE_ONCE(gate.enforced, false);
	gate.cause = cause;
	trace_lockd_shim_trip(cause, gate.trips);
	gate_drop_ticket(LOCKD_SHIM_REASON_TRIP);
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	/* Pairs with the first in lockd_shim_gate(): what follows us sees it. */
	smp_mb();
	queue_work(gate_wq, &gate_work);
}
EXPORT_SYMBOL_GPL(lockd_shim_trip);

/*
 * Brings the lock_managers, the waiters and the listeners in line with the
 * flag.  If the flag drops again while we are at it, its work item runs after
 * us.
 */
void gate_settle(void)
{
	enum lockd_shim_reason reason;
	enum lockd_shim_cause cause;
	unsigned long flags, ticket;
	u64 trips;

	lockdep_assert_held(&shim_mutex);

	raw_spin_lock_irqsave(&gate.lock, flags);
	ticket = gate.bypass ?: gate.ticket;
	reason = gate.reason;
	cause = gate.cause;
	trips = gate.trips;
	raw_spin_unlock_irqrestore(&gate.lock, flags);

	grace_hold_all(!ticket);
	if (ticket) {
		wait_wake();
		wake_up_all(&drop_wait);
	}

	/* What the trip was about comes before it. */
	grace_tell();
	if (trips != told.trips)
		shim_notify_trip(trips, cause);
	if (ticket != told.ticket || shim.epoch != told.epoch)
		shim_notify_gate(ticket ? LOCKD_SHIM_STATE_OPEN :
					  LOCKD_SHIM_STATE_CLOSED,
				 reason, shim.epoch, trips);

	told.ticket = ticket;
	told.epoch = shim.epoch;
	told.trips = trips;
	wait_tell();
}

/*
 * Problem scenario: an operator has opened the gate, a grace begins, the daemon
 * closes its gate as ever and is told "closed": the node counts as enforcing,
 * and reclaims meet new locks.  So as long as there is a bypass no order to the
 * gate gets that answer.
 */
static int gate_bypassed(struct netlink_ext_ack *extack)
{
	if (!READ_ONCE(gate.bypass) || mutant_silent_bypass)
		return 0;
	NL_SET_ERR_MSG(extack, "the gate is bypassed: an operator has opened it");
	return -EBUSY;
}

static void gate_unenforced(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&gate.lock, flags);
	WRITE_ONCE(gate.enforced, false);
	raw_spin_unlock_irqrestore(&gate.lock, flags);
}

int gate_order_close(u64 epoch, struct netlink_ext_ack *extack)
{
	int ret;

	lockdep_assert_held(&shim_mutex);

	if (epoch < shim.epoch) {
		NL_SET_ERR_MSG(extack, "the epoch would go back");
		return -ESTALE;
	}
	gate_shut(LOCKD_SHIM_REASON_ORDER);
	if (epoch != shim.epoch)
		gate_unenforced();
	shim.epoch = epoch;
	grace_withdraw_others(epoch);
	gate_settle();
	/* Closed, but does that hold anybody back? */
	ret = gate_bypassed(extack);
	return ret ?: gate_hooks_missing(extack);
}

/* The errors are in uapi/lockd_shim.h, in the order of the tests here. */
int gate_order_open(u64 epoch, u64 trips, struct netlink_ext_ack *extack)
{
	unsigned long flags;
	int ret;

	lockdep_assert_held(&shim_mutex);

	/* A trip that has no event yet gets it before the opening's. */
	gate_settle();

	if (epoch != shim.epoch) {
		NL_SET_ERR_MSG(extack, "the order is for another epoch");
		return -ESTALE;
	}
	ret = gate_bypassed(extack) ?: gate_hooks_missing(extack);
	if (ret)
		return ret;
	if (grace_reclaiming()) {
		NL_SET_ERR_MSG(extack,
			       "a network namespace may still reclaim");
		return -EBUSY;
	}

	raw_spin_lock_irqsave(&gate.lock, flags);
	if (trips != gate.trips && !mutant_any_trips) {
		NL_SET_ERR_MSG(extack,
			       "the order does not name the present trip count");
		ret = -EAGAIN;
	} else if (ktime_get_boottime_ns() >= gate.permit_until &&
		   !mutant_no_permit) {
		NL_SET_ERR_MSG(extack, "the permit has run out");
		ret = -ETIME;
	} else if (!gate.ticket) {
		gate.reason = LOCKD_SHIM_REASON_ORDER;
		WRITE_ONCE(gate.enforced, false);
		WRITE_ONCE(gate.ticket, ++gate.last_ticket);
		trace_lockd_shim_gate(LOCKD_SHIM_STATE_OPEN, gate.reason,
				      gate.trips);
	}
	raw_spin_unlock_irqrestore(&gate.lock, flags);

	gate_settle();
	return ret;
}

int gate_reclaim_allowed(struct netlink_ext_ack *extack)
{
	int ret;

	lockdep_assert_held(&shim_mutex);

	ret = gate_bypassed(extack) ?: gate_hooks_missing(extack);
	if (ret)
		return ret;
	/* The flag, not the clock: a late timer must not matter. */
	if (READ_ONCE(gate.ticket)) {
		NL_SET_ERR_MSG(extack, "the gate is open");
		return -EBUSY;
	}
	return 0;
}

/*
 * Under it the gate is closed: when the bypass ends, nothing is open that its
 * daemon has not ordered since.  Reclaims by permission end, too: where
 * everything passes, a permission would only tell the daemon that the gate does
 * its work.
 */
void gate_bypass(bool on)
{
	enum lockd_shim_state state = on ? LOCKD_SHIM_STATE_OPEN :
					   LOCKD_SHIM_STATE_CLOSED;
	unsigned long flags;

	lockdep_assert_held(&shim_mutex);

	if (on == !!gate.bypass)
		return;
	gate_shut(LOCKD_SHIM_REASON_BYPASS);
	if (on)
		grace_withdraw_all();

	raw_spin_lock_irqsave(&gate.lock, flags);
	WRITE_ONCE(gate.bypass, on ? ++gate.last_ticket : 0);
	gate.reason = LOCKD_SHIM_REASON_BYPASS;
	trace_lockd_shim_gate(state, gate.reason, gate.trips);
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	/* Pairs with the first in lockd_shim_gate(). */
	smp_mb();

	pr_warn("lockd_shim: gate BYPASS %s by %s (pid %d, uid %u): %s\n",
		on ? "ON" : "off", current->comm, task_tgid_nr(current),
		from_kuid(&init_user_ns, current_uid()),
		on ? "locks are not protected by any grace period" :
		     "the gate is closed until a daemon opens it");
	gate_settle();
}

/* Servers that stop */

#define DROP_WAIT_MIN		(5 * HZ)
/* From a trip to the START that the daemon makes of it, and then some. */
#define DROP_WAIT_MARGIN	(2 * HZ)

/*
 * Problem scenario: a node is cut off just then, and never hears of the stop.
 * Nobody can answer for it; but its gate closes when its permit ends.  All
 * permits of a cluster are about equally long, so by then nobody is open.
 */
static unsigned long drop_wait_max(void)
{
	unsigned long flags;
	u64 permit;

	raw_spin_lock_irqsave(&gate.lock, flags);
	permit = gate.permit_longest;
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	return max_t(unsigned long, DROP_WAIT_MIN,
		     nsecs_to_jiffies(permit) + DROP_WAIT_MARGIN);
}

/*
 * Problem scenario: every node enforces, in a grace that is about to be lifted,
 * and another server is stopped.  The gates of the others may open before they
 * hear of that.  So a trip ends it, and it counts only for the present count.
 */
int gate_order_enforced(u64 epoch, u64 trips, bool on,
			struct netlink_ext_ack *extack)
{
	unsigned long flags;
	int ret = 0;

	lockdep_assert_held(&shim_mutex);

	if (!on) {
		gate_unenforced();
		return 0;
	}
	if (epoch != shim.epoch) {
		NL_SET_ERR_MSG(extack, "the order is for another epoch");
		return -ESTALE;
	}
	raw_spin_lock_irqsave(&gate.lock, flags);
	if (trips != gate.trips) {
		NL_SET_ERR_MSG(extack,
			       "the order does not name the present trip count");
		ret = -EAGAIN;
	} else if (gate.ticket) {
		NL_SET_ERR_MSG(extack, "the gate is open");
		ret = -EBUSY;
	} else {
		WRITE_ONCE(gate.enforced, true);
	}
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	if (!ret)
		wake_up_all(&drop_wait);
	return ret;
}

/*
 * Problem scenario: somebody stops an nfsd by hand.  The gate of its node is
 * closed at once, but a program on another node waits in the DLM for the lock of
 * a client.  It was granted it 35 ms before that node heard of the stop.
 */
void lockd_shim_drop_wait(void)
{
	if (mutant_no_drop_wait)
		return;
	if (!wait_event_timeout(drop_wait,
				READ_ONCE(gate.enforced) || lockd_shim_gate() ||
				!READ_ONCE(shim.portid), drop_wait_max()))
		pr_warn("lockd_shim: a server lets go of its locks before every node enforces\n");
}
EXPORT_SYMBOL_GPL(lockd_shim_drop_wait);

/* Hooks */

int gate_hooks_missing(struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&shim_mutex);

	if (!shim.hooks_owner) {
		NL_SET_ERR_MSG(extack, "gfs2_gate is not loaded");
		return -ENODEV;
	}
	if ((shim.hooks & shim.hooks_wanted) != shim.hooks_wanted) {
		/* NL_SET_ERR_MSG() takes literals only. */
		if (shim.hook_error[0])
			extack->_msg = shim.hook_error;
		else
			NL_SET_ERR_MSG(extack, "a hook is not in place");
		return -ENODEV;
	}
	return 0;
}

static void hooks_pin(void)
{
	if (shim.portid && shim.hooks_owner && !shim.hooks_pinned)
		shim.hooks_pinned = try_module_get(shim.hooks_owner);
}

static void hooks_unpin(void)
{
	if (shim.hooks_pinned)
		module_put(shim.hooks_owner);
	shim.hooks_pinned = false;
}

static void hooks_set(u32 hooks, u32 wanted, const char *error)
{
	lockdep_assert_held(&shim_mutex);

	/* What does not hold everybody back must not let reclaims pass. */
	if ((hooks & wanted) != wanted || !shim.hooks_owner) {
		gate_shut(LOCKD_SHIM_REASON_HOOKS);
		grace_withdraw_all();
	}
	if (hooks != shim.hooks || wanted != shim.hooks_wanted ||
	    strcmp(error ?: "", shim.hook_error)) {
		shim.hooks = hooks;
		shim.hooks_wanted = wanted;
		strscpy(shim.hook_error, error ?: "", sizeof(shim.hook_error));
		shim_notify_hooks();
	}
	gate_settle();
}

void lockd_shim_hooks_set(u32 hooks, u32 wanted, const char *error)
{
	mutex_lock(&shim_mutex);
	hooks_set(hooks, wanted, error);
	mutex_unlock(&shim_mutex);
}
EXPORT_SYMBOL_GPL(lockd_shim_hooks_set);

int lockd_shim_hooks_register(struct module *owner)
{
	int ret = 0;

	mutex_lock(&shim_mutex);
	if (shim.hooks_owner) {
		ret = -EBUSY;
	} else {
		shim.hooks_owner = owner;
		hooks_pin();
	}
	mutex_unlock(&shim_mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(lockd_shim_hooks_register);

void lockd_shim_hooks_unregister(struct module *owner)
{
	mutex_lock(&shim_mutex);
	if (shim.hooks_owner == owner) {
		hooks_unpin();
		shim.hooks_owner = NULL;
		hooks_set(0, 0, NULL);
	}
	mutex_unlock(&shim_mutex);
}
EXPORT_SYMBOL_GPL(lockd_shim_hooks_unregister);

/* The daemon's socket */

int gate_attach(u32 portid, struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&shim_mutex);

	if (shim.portid && shim.portid != portid) {
		NL_SET_ERR_MSG(extack, "another daemon is attached");
		return -EBUSY;
	}
	if (!shim.portid) {
		if (!try_module_get(THIS_MODULE)) {
			NL_SET_ERR_MSG(extack, "the module is going");
			return -ESHUTDOWN;
		}
		WRITE_ONCE(shim.portid, portid);
		hooks_pin();
	}
	gate_shut(LOCKD_SHIM_REASON_ATTACH);
	grace_withdraw_all();
	gate_settle();
	return 0;
}

void gate_detach(u32 portid)
{
	/* Every closing netlink socket of the machine comes by here. */
	if (READ_ONCE(shim.portid) != portid)
		return;
	gate_shut(LOCKD_SHIM_REASON_SOCKET);

	mutex_lock(&shim_mutex);
	if (shim.portid == portid) {
		gate_shut(LOCKD_SHIM_REASON_SOCKET);
		exempt_clear();
		grace_withdraw_all();
		gate_settle();
		hooks_unpin();
		WRITE_ONCE(shim.portid, 0);
		gate_unenforced();
		wake_up_all(&drop_wait);
		module_put(THIS_MODULE);
	}
	mutex_unlock(&shim_mutex);
}

int gate_init(void)
{
	gate_wq = alloc_ordered_workqueue("lockd_shim",
					  WQ_HIGHPRI | WQ_MEM_RECLAIM);
	if (!gate_wq)
		return -ENOMEM;
	do {
		get_random_bytes(&shim.instance, sizeof(shim.instance));
	} while (!shim.instance);
	return 0;
}

void gate_exit(void)
{
	destroy_workqueue(gate_wq);
}
