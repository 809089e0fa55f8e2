/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What lockd_shim offers to the modules that hook lock operations (gfs2_gate).
 *
 * The rule for every grant:
 *
 *	ticket = lockd_shim_gate();
 *	if (!ticket)
 *		refuse or wait;
 *	... ask the filesystem for the lock ...
 *	if (lockd_shim_gate() != ticket)
 *		take the grant back;
 *
 * Each opening of the gate has a ticket of its own, so the second look also
 * sees a gate that closed and opened again in between.  A grant that stands
 * was made while the gate was open without a break.
 */
#ifndef _LOCKD_SHIM_H
#define _LOCKD_SHIM_H

#include <linux/types.h>

#include "uapi/lockd_shim.h"

struct module;
struct net;

/**
 * lockd_shim_gate - look at the gate
 *
 * Reads the clock: an opening whose permit ran out counts as closed even
 * before the timer fires.  Any context.  Full memory barrier on both sides.
 *
 * Return: the ticket of the present opening, 0 if the gate is closed.
 */
unsigned long lockd_shim_gate(void);

/**
 * lockd_shim_bypass - has an operator opened the gate past everything?
 *
 * Then locks are as on a node without these modules: reclaims pass as new locks
 * do.  Any context.
 *
 * Return: the ticket that lockd_shim_gate() returns meanwhile, 0 if not.
 */
unsigned long lockd_shim_bypass(void);

/**
 * lockd_shim_wait - wait for one's turn at the open gate
 * @again: it had its turn before, and lost what it got: it goes to the front
 * @state: TASK_KILLABLE or TASK_INTERRUPTIBLE, as in the filesystem's own lock
 *	operation
 *
 * First come, first served.  May sleep.  The caller must look at the gate again
 * afterwards, and call lockd_shim_through() when the filesystem has answered it.
 *
 * Return: 0, or -ERESTARTSYS.
 */
int lockd_shim_wait(bool again, unsigned int state);

/**
 * lockd_shim_through - this task had its turn and is through with it
 *
 * The next one's turn.  Not to be called if the task found the gate closed again.
 */
void lockd_shim_through(void);

/**
 * lockd_shim_queue - are there tasks that wait for their turn?
 *
 * Whoever is ready to wait goes behind them, even when the gate is open.
 */
bool lockd_shim_queue(void);

/**
 * lockd_shim_exempt - is this process an NFS server that keeps grace itself?
 *
 * Process context.
 */
bool lockd_shim_exempt(void);

/**
 * lockd_shim_reclaim_begin - a reclaim wants to pass
 * @net: network namespace of the server that it came to
 *
 * Return: the ticket of the namespace's permission to reclaim, 0 if it has
 * none.  After a ticket, lockd_shim_reclaim_end() must follow.
 */
unsigned long lockd_shim_reclaim_begin(struct net *net);

/**
 * lockd_shim_reclaim_valid - look again after the reclaim's grant
 * @net: as given to lockd_shim_reclaim_begin()
 * @ticket: what that returned
 *
 * Return: false if the permission was withdrawn meanwhile: the grant must be
 * taken back.
 */
bool lockd_shim_reclaim_valid(struct net *net, unsigned long ticket);

/**
 * lockd_shim_reclaim_end - the reclaim is through, one way or the other
 * @net: as given to lockd_shim_reclaim_begin()
 */
void lockd_shim_reclaim_end(struct net *net);

/**
 * lockd_shim_reclaim_host - is this NSM host on record for the namespace?
 * @net: network namespace of the server, in state RECLAIM
 * @name: name or address of the host
 */
bool lockd_shim_reclaim_host(struct net *net, const char *name);

/**
 * lockd_shim_trip - close the gate at once, from below
 * @cause: what happened
 *
 * When this returns, every lockd_shim_gate() returns 0 until an order that
 * knows of this trip opens the gate again.  Does not sleep; any context but
 * NMI, so also an ftrace callback.
 */
void lockd_shim_trip(enum lockd_shim_cause cause);

/**
 * lockd_shim_server_stop - locks of an NFS server are about to be dropped
 * @net: its network namespace; NULL: any
 * @cause: what happened
 *
 * lockd_shim_trip(), and the namespace's count of stops goes up before.
 */
void lockd_shim_server_stop(struct net *net, enum lockd_shim_cause cause);

/**
 * lockd_shim_drop_wait - wait until locks may be dropped
 *
 * After lockd_shim_server_stop(): the gate of this node is closed, but those of
 * the others close only when they have heard.  Sleeps until the daemon says that
 * they have, or has opened the gate again (there was nothing to protect), or is
 * gone.  But not for ever, since nfsd's mutex may be held: for the length of a
 * permit and 2 seconds, 5 seconds at least.
 */
void lockd_shim_drop_wait(void);

/**
 * lockd_shim_server_start - nfsd starts in a network namespace
 * @net: that
 *
 * Context as for lockd_shim_trip().
 */
void lockd_shim_server_start(struct net *net);

/* Counters for the status. */
void lockd_shim_count_undone(void);
void lockd_shim_count_deferred(void);

/*
 * One module at a time may be the provider of hooks.  While a daemon is
 * attached, the provider cannot be unloaded.
 */
int lockd_shim_hooks_register(struct module *owner);
void lockd_shim_hooks_unregister(struct module *owner);

/**
 * lockd_shim_hooks_set - tell which hooks are in place
 * @hooks: LOCKD_SHIM_HOOK_* in place
 * @wanted: LOCKD_SHIM_HOOK_* that must be
 * @error: why some are missing, or NULL
 *
 * Closes the gate if a wanted hook is missing.  May sleep.
 */
void lockd_shim_hooks_set(u32 hooks, u32 wanted, const char *error);

#endif /* _LOCKD_SHIM_H */
