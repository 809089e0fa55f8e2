// SPDX-License-Identifier: GPL-2.0
/*
 * The queue of local tasks at the gate.
 *
 * Problem scenario: after a minute of grace thousands of programs wait.  All
 * woken at once, they would ask dlm_controld for their locks in whatever order
 * the scheduler likes, and whoever comes by at that moment would be served
 * before them all.  So there is one queue: they leave it in the order in which
 * they came, and who comes while it is not empty goes to its end.  A task whose
 * grant was undone has had its turn already; it goes to the front.
 *
 * A batch leaves when the gate opens, and each of them that is through with the
 * filesystem sends the next one after itself.  So no more run at a time than the
 * filesystem can serve, and the scheduler has no choice that matters.  But one
 * of them may wait for its lock for ever, and all of a batch may: if none got
 * through for a while, another batch leaves.
 */

#include <linux/export.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "shim.h"
#include "trace.h"

#define WAIT_BATCH	16
/* If all wait for locks of others, these are 800 tasks a second. */
#define WAIT_STALL	msecs_to_jiffies(20)

atomic_t shim_waiters = ATOMIC_INIT(0);

static DECLARE_WAIT_QUEUE_HEAD(gate_wait);

/* Tasks that had their turn and are through. */
static atomic_t passed = ATOMIC_INIT(0);

/* Whether listeners think that somebody waits; under shim_mutex. */
static bool told_waiting;

static void wake_batch(struct work_struct *work);
static DECLARE_DELAYED_WORK(wake_work, wake_batch);

static void wake_batch(struct work_struct *work)
{
	static unsigned long last_ticket;
	static int last_passed;
	unsigned long ticket = lockd_shim_gate();
	int now = atomic_read(&passed);

	if (!ticket)
		return;		/* the next opening begins again */
	if (ticket != last_ticket || now == last_passed)
		wake_up_nr(&gate_wait, WAIT_BATCH);
	last_ticket = ticket;
	last_passed = now;
	if (wq_has_sleeper(&gate_wait))
		queue_delayed_work(system_highpri_wq, &wake_work, WAIT_STALL);
}

/* The gate has opened.  May be called for nothing. */
void wait_wake(void)
{
	/* wq_has_sleeper() has the barrier against the waiter's own look. */
	if (wq_has_sleeper(&gate_wait))
		queue_delayed_work(system_highpri_wq, &wake_work, 0);
}

void wait_tell(void)
{
	unsigned int waiters = atomic_read(&shim_waiters);

	lockdep_assert_held(&shim_mutex);

	if (told_waiting == !!waiters)
		return;
	told_waiting = waiters;
	shim_notify_wait(waiters);
}

bool lockd_shim_queue(void)
{
	/* A hint: who is missed goes ahead of somebody who has just come. */
	return waitqueue_active(&gate_wait);
}
EXPORT_SYMBOL_GPL(lockd_shim_queue);

static void count(int change)
{
	int waiters = atomic_add_return(change, &shim_waiters);

	trace_lockd_shim_wait(waiters);
	/* The first has come, or the last has gone. */
	if (waiters == max(change, 0))
		gate_settle_async();
}

int lockd_shim_wait(bool again, unsigned int state)
{
	struct wait_queue_entry wait;
	bool woken;
	int ret = 0;

	count(1);
	init_wait_entry(&wait, WQ_FLAG_EXCLUSIVE);

	spin_lock_irq(&gate_wait.lock);
	if (again)
		__add_wait_queue(&gate_wait, &wait);
	else
		__add_wait_queue_entry_tail(&gate_wait, &wait);
	set_current_state(state);
	spin_unlock_irq(&gate_wait.lock);

	/* It may have opened after our caller's look. */
	if (lockd_shim_gate())
		wait_wake();
	/* Who is woken is taken off the queue. */
	while (!list_empty_careful(&wait.entry)) {
		if (signal_pending_state(state, current)) {
			ret = -ERESTARTSYS;
			break;
		}
		schedule();
		set_current_state(state);
	}
	__set_current_state(TASK_RUNNING);

	spin_lock_irq(&gate_wait.lock);
	woken = list_empty(&wait.entry);
	list_del_init(&wait.entry);
	spin_unlock_irq(&gate_wait.lock);
	if (ret && woken)
		lockd_shim_through();	/* it has no use for its turn */
	count(-1);
	return ret;
}
EXPORT_SYMBOL_GPL(lockd_shim_wait);

void lockd_shim_through(void)
{
	atomic_inc(&passed);
	if (lockd_shim_gate())
		wake_up(&gate_wait);
}
EXPORT_SYMBOL_GPL(lockd_shim_through);

/* Nobody waits any more: those who did held a reference to their module. */
void wait_exit(void)
{
	cancel_delayed_work_sync(&wake_work);
}
