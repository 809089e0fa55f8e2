// SPDX-License-Identifier: GPL-2.0
/*
 * The permit: the short lease that lets the gate be open, and the timer that
 * closes the gate at its end without anybody's help.
 *
 * The timer is not what safety rests on: lockd_shim_gate() compares the clock
 * itself, so a late timer cannot hold the gate open.  It is there to put the
 * lock_managers on their lists and to tell the daemon.
 */

#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/timekeeping.h>

#include "shim.h"
#include "trace.h"

static struct hrtimer permit_timer;

/* Hard interrupt. */
static enum hrtimer_restart permit_expired(struct hrtimer *timer)
{
	u64 now = ktime_get_boottime_ns();
	u64 until;

	raw_spin_lock(&gate.lock);
	until = gate.permit_until;
	raw_spin_unlock(&gate.lock);

	/* Extended after the timer fired: permit_set() starts it again. */
	if (until > now)
		return HRTIMER_NORESTART;

	if (mutant_no_permit)
		return HRTIMER_NORESTART;
	trace_lockd_shim_permit(until, now);
	gate_shut_async(LOCKD_SHIM_REASON_PERMIT);
	return HRTIMER_NORESTART;
}

static void permit_revoke(void)
{
	unsigned long flags;

	/* The ticket goes before the permit: see lockd_shim_gate(). */
	gate_shut(LOCKD_SHIM_REASON_PERMIT);
	raw_spin_lock_irqsave(&gate.lock, flags);
	WRITE_ONCE(gate.permit_until, 0);
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	hrtimer_cancel(&permit_timer);
	gate_settle();
}

int permit_set(u64 until, struct netlink_ext_ack *extack)
{
	u64 now = ktime_get_boottime_ns();
	unsigned long flags;

	lockdep_assert_held(&shim_mutex);

	if (!until) {
		permit_revoke();
		return 0;
	}
	if (until <= now) {
		NL_SET_ERR_MSG(extack, "the permit is not in the future");
		return -ETIME;
	}
	if (until - now > LOCKD_SHIM_PERMIT_MAX_NSEC) {
		NL_SET_ERR_MSG(extack, "the permit is too far ahead");
		return -ERANGE;
	}

	/*
	 * Problem scenario: the permit has run out, the timer has not fired
	 * yet, and the new permit comes.  Lockers have seen the gate closed
	 * and wait; extending the permit would open it behind their back.
	 */
	if (now >= gate.permit_until && gate_shut(LOCKD_SHIM_REASON_PERMIT))
		gate_settle();

	raw_spin_lock_irqsave(&gate.lock, flags);
	if (until > gate.permit_until)
		WRITE_ONCE(gate.permit_until, until);
	if (until - now > gate.permit_longest)
		gate.permit_longest = until - now;
	until = gate.permit_until;
	raw_spin_unlock_irqrestore(&gate.lock, flags);

	hrtimer_start(&permit_timer, ns_to_ktime(until), HRTIMER_MODE_ABS_HARD);

	/*
	 * A locker may have looked at the very end of the old permit, after
	 * our look at the clock, and gone to sleep.
	 */
	wait_wake();
	return 0;
}

void permit_init(void)
{
	hrtimer_init(&permit_timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS_HARD);
	permit_timer.function = permit_expired;
}

void permit_exit(void)
{
	hrtimer_cancel(&permit_timer);
}
