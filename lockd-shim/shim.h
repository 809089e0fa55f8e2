/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of lockd_shim share among themselves.
 *
 * Two locks.  gate.lock (raw, irqs off) covers what must change at once and in
 * any context: the ticket, the permit, the trips.  shim_mutex covers the rest
 * and everything that takes its time: the epoch, the attached socket, the
 * lock_managers, the hooks, the order of events.  shim_mutex is the outer one.
 *
 * Closing is always in two steps: the flag under gate.lock, which is what
 * counts, then gate_settle() under shim_mutex, which brings the lock_managers
 * and the listeners in line with it.  Where the flag is dropped in a context
 * that cannot sleep, a work item does the second step.
 */
#ifndef _SHIM_H
#define _SHIM_H

#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "lockd_shim.h"

#define SHIM_MODULE_VERSION	"0.1"

#define SHIM_HOOK_ERROR_LEN	128

/* gate.c */

struct shim_gate {
	raw_spinlock_t lock;
	unsigned long ticket;		/* of this opening; 0: closed */
	unsigned long bypass;		/* ticket of the bypass; 0: none */
	unsigned long last_ticket;	/* to number the next one */
	u64 permit_until;		/* ns of CLOCK_BOOTTIME; 0: none */
	u64 permit_longest;		/* ns, of all that were given */
	u64 trips;
	bool enforced;			/* all nodes' gates are closed since */
	enum lockd_shim_cause cause;	/* of the last trip */
	enum lockd_shim_reason reason;	/* of the last change of @ticket */
};

struct shim_state {
	u64 instance;
	u64 epoch;
	u32 portid;			/* of the attached socket; 0: none */

	struct module *hooks_owner;
	bool hooks_pinned;		/* we hold a reference to it */
	u32 hooks;
	u32 hooks_wanted;
	char hook_error[SHIM_HOOK_ERROR_LEN];
};

extern struct mutex shim_mutex;
extern struct shim_gate gate;
extern struct shim_state shim;

extern atomic64_t shim_undone;
extern atomic64_t shim_deferred;

bool gate_shut(enum lockd_shim_reason reason);
void gate_shut_async(enum lockd_shim_reason reason);
void gate_settle(void);
void gate_settle_async(void);
int gate_order_close(u64 epoch, struct netlink_ext_ack *extack);
int gate_order_open(u64 epoch, u64 trips, struct netlink_ext_ack *extack);
int gate_hooks_missing(struct netlink_ext_ack *extack);
int gate_reclaim_allowed(struct netlink_ext_ack *extack);
int gate_attach(u32 portid, struct netlink_ext_ack *extack);
void gate_detach(u32 portid);
void gate_bypass(bool on);
int gate_order_enforced(u64 epoch, u64 trips, bool on,
			struct netlink_ext_ack *extack);
int gate_init(void);
void gate_exit(void);

/* wait.c */

extern atomic_t shim_waiters;

void wait_wake(void);
void wait_tell(void);
void wait_exit(void);

/* exempt.c */

int exempt_set(u32 nr, bool exempt, struct netlink_ext_ack *extack);
void exempt_clear(void);
unsigned int exempt_count(void);

/* permit.c */

int permit_set(u64 until, struct netlink_ext_ack *extack);
void permit_init(void);
void permit_exit(void);

/* grace.c */

struct shim_net_status {
	u32 ino;
	u64 cookie;
	enum lockd_shim_state state;
	int in_flight;
	bool held;
	bool in_grace;
	bool opens_blocked;
	bool nfsd_up;
	u64 stops;
	unsigned int hosts;
};

void grace_hold_all(bool hold);
void grace_withdraw_others(u64 epoch);
void grace_withdraw_all(void);
unsigned int grace_reclaiming(void);
void grace_reclaim_set(struct net *net, bool reclaim, u64 epoch);
int grace_host_add(struct net *net, const char *name,
		   struct netlink_ext_ack *extack);
void grace_tell(void);
void grace_net_status(struct net *net, struct shim_net_status *st);
bool grace_nth_status(unsigned long n, unsigned long *generation,
		      struct shim_net_status *st);
int grace_init(void);
void grace_exit(void);

/* netlink.c */

void shim_notify_trip(u64 trips, enum lockd_shim_cause cause);
void shim_notify_gate(enum lockd_shim_state state,
		      enum lockd_shim_reason reason, u64 epoch, u64 trips);
void shim_notify_net(const struct shim_net_status *st, bool up);
void shim_notify_hooks(void);
void shim_notify_wait(unsigned int waiters);
int shim_netlink_init(void);
void shim_netlink_exit(void);

/*
 * Faults for the tests to find; built with GRACED_MUTANTS=1 only.
 */
#ifdef GRACED_MUTANTS
extern bool mutant_no_permit;
extern bool mutant_two_states;
extern bool mutant_any_trips;
extern bool mutant_silent_bypass;
extern bool mutant_no_drop_wait;
#else
#define mutant_no_permit	false
#define mutant_two_states	false
#define mutant_any_trips	false
#define mutant_silent_bypass	false
#define mutant_no_drop_wait	false
#endif

#endif /* _SHIM_H */
