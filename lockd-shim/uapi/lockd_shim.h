/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/*
 * The generic netlink interface between graced and the kernel module
 * lockd_shim.  lockd_shim.yaml is the source of truth for names and numbers;
 * what they mean is said here.
 *
 * Family "lockd_shim", version 1.  It exists in the initial network namespace
 * only; every command, the two that only read included, needs CAP_NET_ADMIN
 * there.  Nested attributes are not used.  u64 attributes are host-endian and
 * may be preceded by an LOCKD_SHIM_A_PAD.
 *
 * No command waits for the DLM or for a filesystem.  The kernel's own part of
 * netlink allocates memory, though, and may look for it in a GFS2 that is
 * frozen: a daemon should have set PR_SET_IO_FLUSHER (prctl(2)).
 *
 * The module keeps one gate for the node (closed or open) and, for each
 * network namespace, a permission to reclaim.  A freshly loaded module is
 * closed.  The gate is open for a lock operation only if all of this holds:
 * it was opened by an order, no trip came after it, the permit has not run
 * out by CLOCK_BOOTTIME at the moment of the operation, and the daemon that
 * gave the order still has its socket open.
 *
 * The bypass is for the operator, when no daemon can do its work: while it is
 * on, locks are as on a node without the modules, new ones and reclaims.
 *
 * While the gate is not open a lock_manager stands on the kernel's grace list
 * in every network namespace, so nfsd and lockd are in grace everywhere; it
 * refuses opens (block_opens) only in namespaces in state RECLAIM.
 *
 *
 * Commands
 * --------
 *
 * Errors carry a text in the extended acknowledgment (NLMSGERR_ATTR_MSG;
 * switch on NETLINK_EXT_ACK).  -EINVAL with NLMSGERR_ATTR_MISS_TYPE or
 * NLMSGERR_ATTR_OFFS is a missing or malformed attribute.  Attributes not
 * listed for a command are refused.  "Attached" below is the daemon's socket;
 * a command from any other socket fails with -ENOTCONN.
 *
 * LOCKD_SHIM_CMD_STATUS_GET
 *	No attributes.  The reply has the status attributes:
 *
 *	VERSION, MODULE_VERSION, INSTANCE, STATE, REASON, EPOCH, TRIPS,
 *	PERMIT_UNTIL, ATTACHED, HOOKS, HOOKS_WANTED, HOOK_ERROR (if there is
 *	one), WAITERS, UNDONE, DEFERRED, EXEMPTS, BYPASS.
 *
 * LOCKD_SHIM_CMD_NS_GET
 *	do: NETNS_FD; dump: no attributes.  One message for each network
 *	namespace:
 *
 *	NETNS_INO, NETNS_COOKIE, STATE, NFSD_UP, STOPS, RECLAIMS_IN_FLIGHT,
 *	HELD, IN_GRACE, OPENS_BLOCKED, HOSTS.
 *
 *	A dump that raced with a change of namespaces has NLM_F_DUMP_INTR.
 *
 * LOCKD_SHIM_CMD_ATTACH
 *	VERSION.  Makes the sending socket the daemon's.  Closes the gate if
 *	it is open (reason ATTACH) and withdraws every permission to reclaim;
 *	epoch, trips and permit stay as they are and are reported: a daemon
 *	that comes back adopts them.  Again from the same socket: the same
 *	again.  While attached, the modules cannot be unloaded.
 *
 *	The reply is a message LOCKD_SHIM_CMD_ATTACH with the status
 *	attributes as they are after the attach.
 *
 *	-EBUSY: another live socket is attached.
 *	-EPROTONOSUPPORT: VERSION is not the module's; the text names both.
 *
 * LOCKD_SHIM_CMD_GATE_SET
 *	STATE, EPOCH; TRIPS with OPEN (and only there).
 *
 *	STATE = CLOSED is always obeyed, whatever the permit and the hooks,
 *	and waits for nothing outside the module.  EPOCH becomes the current
 *	epoch; every permission to reclaim that was given for another epoch
 *	is withdrawn.  When the acknowledgment arrives, local lockers are
 *	blocked, a lock_manager is on the grace list of every network
 *	namespace, and a grant that was already on its way will be looked at
 *	again and undone before its program or client sees it.
 *
 *	-ESTALE: EPOCH is below the current one.  Nothing has changed.
 *	-ENODEV: the gate is closed, but the hooks are not all in place (see
 *		HOOKS_WANTED), or gfs2_gate is not loaded, so it does not hold
 *		every lock back: the node must not count as enforcing.
 *	-EBUSY: the gate is bypassed, so it holds nothing back: as for -ENODEV.
 *
 *	STATE = OPEN lets new locks be granted: lifts the lock_managers and
 *	wakes the waiters.
 *
 *	-ESTALE: EPOCH is not the current one.
 *	-EAGAIN: TRIPS is not the current count: a trip came that the order
 *		does not account for.
 *	-ETIME: the permit has run out, or was never given.
 *	-ENODEV: the hooks are not all in place (see HOOKS_WANTED), or
 *		gfs2_gate is not loaded; the text says which.
 *	-EBUSY: a network namespace may still reclaim, or the gate is bypassed.
 *
 * LOCKD_SHIM_CMD_RECLAIM_SET
 *	NETNS_FD, STATE, EPOCH.  STATE = RECLAIM: reclaims of clients of that
 *	network namespace pass the gate; opens there are refused while
 *	reclaims are taken.  STATE = CLOSED withdraws it.  The withdrawal is
 *	complete when the acknowledgment arrives: a reclaim that is still on
 *	its way by then (see RECLAIMS_IN_FLIGHT) is undone and its client told
 *	to try again later.  It never waits for the DLM.  To withdraw what is
 *	not given is no error.
 *
 *	A trip leaves permissions to reclaim alone; so does the permit's end.
 *	The bypass withdraws all of them, and so does the loss of a hook.
 *
 *	-EBUSY: the gate is open or bypassed (STATE = RECLAIM only).
 *	-ESTALE: EPOCH is not the current one.
 *	-ENODEV: as for GATE_SET (STATE = RECLAIM only).
 *	-EBADF, -EINVAL: NETNS_FD is not an open network namespace.
 *
 * LOCKD_SHIM_CMD_PERMIT_SET
 *	PERMIT_UNTIL.  Extends the permit.  0 revokes it, which closes an open
 *	gate (reason PERMIT).  A permit earlier than the present one, but still
 *	in the future, changes nothing and is no error: only 0 shortens.  If
 *	the old permit ran out a moment ago, the gate is closed first and stays
 *	closed: a permit never opens anything.
 *
 *	-ETIME: PERMIT_UNTIL is not in the future.  Nothing has changed.
 *	-ERANGE: further ahead than LOCKD_SHIM_PERMIT_MAX_NSEC.
 *
 * LOCKD_SHIM_CMD_HOST_ADD
 *	NETNS_FD, HOST, EPOCH.  An NSM host (a client of NFSv3) that is on
 *	record for the server of that network namespace: reclaims over NLM
 *	pass only from such hosts.  The record ends with the permission to
 *	reclaim.  The same host twice is no error.
 *
 *	-EBUSY: the namespace is not in state RECLAIM.
 *	-ESTALE: EPOCH is not the current one.
 *	-ENOSPC: there are LOCKD_SHIM_HOSTS_MAX already.
 *	-ENOMEM: no memory at once; try again.
 *	-EBADF, -EINVAL: NETNS_FD is not an open network namespace.
 *
 * LOCKD_SHIM_CMD_EXEMPT_SET
 *	PID, EXEMPT.  1: locks of that process (all its threads, not its
 *	children) pass the gate in every state.  For an NFS server in user
 *	space that keeps the grace period by the daemon's word.  0: no more.
 *	Ends with the process, and with the daemon's socket.  PID is a number
 *	in the sender's namespace and may be used again: the sender makes sure
 *	that its process still lives when the acknowledgment is there.
 *
 *	-ESRCH: there is no such process.
 *	-ENOSPC: there are LOCKD_SHIM_EXEMPT_MAX already.
 *
 * LOCKD_SHIM_CMD_BYPASS_SET
 *	BYPASS.  1: from now on nothing is held back: the gate lets every lock
 *	pass, whatever permit, trips, epoch and hooks say, and no lock_manager
 *	is on a grace list.  Any socket may send it, attached or not, and it
 *	stays when that socket closes: no daemon ends it by coming or going.
 *	Orders to the gate are refused meanwhile, so the node cannot count as
 *	enforcing.  0: the gate is closed, until an order opens it; local locks
 *	whose grant comes just then are undone.  Either is written to the
 *	kernel's log with the sender's name.  What is so already is no error.
 *
 * LOCKD_SHIM_CMD_ENFORCED_SET
 *	EPOCH, TRIPS, ENFORCED.  1: the gates of all nodes of the cluster are
 *	closed at EPOCH, with every trip up to TRIPS accounted for.  An nfsd that
 *	stops, and what unlock_ip or unlock_filesystem names, trips the gate and
 *	lets go of its locks only after that, so that no program of another node
 *	gets them; at the latest when the permits of nodes that do not hear of
 *	it have ended: after the longest permit that this node was given and 2
 *	seconds, at least 5.  It does not wait if the gate opens again or no
 *	daemon is attached.  0: not any more.  Ends with the next trip, with the
 *	epoch, with the gate's opening and with the socket.
 *
 *	-ESTALE: EPOCH is not the current one.
 *	-EAGAIN: TRIPS is not the present count.
 *	-EBUSY: the gate is open.
 *
 * When the attached socket closes, for whatever reason, the gate closes
 * (reason SOCKET), every permission to reclaim is withdrawn, no process is
 * exempt any more, and ATTACHED becomes 0.
 *
 *
 * Events
 * ------
 *
 * Multicast group "events".  A listener that is told ENOBUFS has missed some,
 * and asks for the status; every event can be found again there.
 *
 * LOCKD_SHIM_CMD_TRIP_NTF
 *	TRIPS, CAUSE.  The gate's tripwire was touched; sent for each change
 *	of the count, open or not; trips in quick succession may share an
 *	event, which then has the latest count.
 *
 * LOCKD_SHIM_CMD_GATE_NTF
 *	STATE, REASON, EPOCH, TRIPS.  The gate has changed (OPEN or CLOSED),
 *	or its epoch has; on closing, the effect is complete (the lock_managers
 *	are on their lists).  Local lockers are blocked earlier, at once.
 *
 * LOCKD_SHIM_CMD_NS_NTF
 *	NETNS_INO, NETNS_COOKIE, STATE, NFSD_UP, STOPS, NETNS_UP.  A network
 *	namespace has appeared (1) or is going (0), or its state changed between
 *	RECLAIM and CLOSED, or its NFSD_UP or STOPS changed (1).  Comes before
 *	the TRIP_NTF of the same stop.  Not sent for each namespace when the
 *	gate moves.
 *
 * LOCKD_SHIM_CMD_HOOKS_NTF
 *	HOOKS, HOOKS_WANTED, HOOK_ERROR (if there is one).  A module that is
 *	hooked came or went, or a hook could not be set.
 *
 * LOCKD_SHIM_CMD_WAIT_NTF
 *	WAITERS.  Local tasks wait at the gate, and before there was none; or
 *	the last one has gone (0).
 *
 *
 * Attributes
 * ----------
 *
 * LOCKD_SHIM_A_VERSION (u32)
 *	Version of this interface, LOCKD_SHIM_VERSION.
 * LOCKD_SHIM_A_STATE (u32)
 *	enum lockd_shim_state.  RECLAIM occurs for namespaces only.
 * LOCKD_SHIM_A_EPOCH (u64)
 *	The current epoch (C) that the daemon gave with its last GATE_SET.
 *	0 until the first.
 * LOCKD_SHIM_A_TRIPS (u64)
 *	How often the tripwire was touched since the module was loaded.
 * LOCKD_SHIM_A_PERMIT_UNTIL (u64)
 *	Nanoseconds of CLOCK_BOOTTIME.  0: none.
 * LOCKD_SHIM_A_ATTACHED (u8)
 *	1: a daemon's socket is attached.
 * LOCKD_SHIM_A_HOOKS (u32)
 *	LOCKD_SHIM_HOOK_* that are in place.
 * LOCKD_SHIM_A_HOOKS_WANTED (u32)
 *	LOCKD_SHIM_HOOK_* whose function exists now (its module is loaded) and
 *	that policy does not leave out.  The gate opens only if HOOKS has them
 *	all.
 * LOCKD_SHIM_A_HOOK_ERROR (string)
 *	Why a wanted hook is not in place; names the function.
 * LOCKD_SHIM_A_WAITERS (u32)
 *	Local tasks that wait at the gate.
 * LOCKD_SHIM_A_MODULE_VERSION (string)
 *	Version of the module's code, for people.
 * LOCKD_SHIM_A_INSTANCE (u64)
 *	Random, drawn when the module is loaded, never 0: another value means
 *	that it was loaded anew and remembers nothing.
 * LOCKD_SHIM_A_REASON (u32)
 *	enum lockd_shim_reason of the gate's last change.
 * LOCKD_SHIM_A_CAUSE (u32)
 *	enum lockd_shim_cause.
 * LOCKD_SHIM_A_NETNS_FD (u32)
 *	A file descriptor of the sender for /run/netns/X or /proc/N/ns/net.
 * LOCKD_SHIM_A_NETNS_INO (u32)
 *	Inode number that stat() gives for such a file.
 * LOCKD_SHIM_A_NETNS_COOKIE (u64)
 *	As SO_NETNS_COOKIE; unlike the inode number never used again.
 * LOCKD_SHIM_A_NETNS_UP (u8)
 *	See NS_NTF.
 * LOCKD_SHIM_A_HELD (u8)
 *	1: our lock_manager is on the namespace's grace list.
 * LOCKD_SHIM_A_IN_GRACE (u8)
 *	1: the kernel says locks_in_grace(), for whatever reason: also nfsd's
 *	and lockd's own grace.
 * LOCKD_SHIM_A_OPENS_BLOCKED (u8)
 *	1: the kernel says opens_in_grace(), for whatever reason.
 * LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT (u32)
 *	Reclaims of the namespace that are inside the filesystem's lock
 *	operation now.
 * LOCKD_SHIM_A_UNDONE (u64)
 *	Grants that the gate took back since the module was loaded.
 * LOCKD_SHIM_A_DEFERRED (u64)
 *	NFS locks that the gate told to try again later since the module was
 *	loaded.
 * LOCKD_SHIM_A_STOPS (u64)
 *	How often locks of the namespace's NFS server were dropped behind the
 *	daemon's back or by its order: nfsd shut down, lockd's locks released
 *	by hand (unlock_ip, unlock_filesystem, a signal to lockd).  Counted
 *	before the first lock is dropped, with the gate closed; each is a trip
 *	too.
 * LOCKD_SHIM_A_NFSD_UP (u8)
 *	1: nfsd was started in the namespace, since gfs2_gate was loaded, and
 *	not shut down.
 * LOCKD_SHIM_A_HOST (string)
 *	As lockd knows the client: its address as text, or its caller name.
 *	At most LOCKD_SHIM_HOST_LEN bytes, the ending 0 included.
 * LOCKD_SHIM_A_HOSTS (u32)
 *	How many hosts are on record for the namespace's permission to reclaim.
 * LOCKD_SHIM_A_PID (u32)
 *	A process, in the sender's pid namespace.
 * LOCKD_SHIM_A_EXEMPT (u8)
 *	0 or 1.
 * LOCKD_SHIM_A_EXEMPTS (u32)
 *	Processes that are exempt from the gate.
 * LOCKD_SHIM_A_BYPASS (u8)
 *	0 or 1.
 * LOCKD_SHIM_A_ENFORCED (u8)
 *	0 or 1.
 */

#ifndef _UAPI_LINUX_LOCKD_SHIM_H
#define _UAPI_LINUX_LOCKD_SHIM_H

#define LOCKD_SHIM_FAMILY_NAME		"lockd_shim"
#define LOCKD_SHIM_FAMILY_VERSION	1

#define LOCKD_SHIM_MCGRP_EVENTS		"events"

/* What ATTACH must name.  Raised when a change breaks an old daemon. */
#define LOCKD_SHIM_VERSION		1

/* The furthest a permit may reach ahead of now: 60 s. */
#define LOCKD_SHIM_PERMIT_MAX_NSEC	60000000000ULL

/* Processes that may be exempt at a time. */
#define LOCKD_SHIM_EXEMPT_MAX		16

/* NSM hosts on record for one network namespace. */
#define LOCKD_SHIM_HOSTS_MAX		4096

/* Bytes of a HOST, with its ending 0. */
#define LOCKD_SHIM_HOST_LEN		256

enum lockd_shim_state {
	LOCKD_SHIM_STATE_CLOSED = 0,
	LOCKD_SHIM_STATE_RECLAIM = 1,
	LOCKD_SHIM_STATE_OPEN = 2,
};

enum lockd_shim_reason {
	LOCKD_SHIM_REASON_LOAD = 0,	/* nothing has happened yet */
	LOCKD_SHIM_REASON_ORDER = 1,	/* GATE_SET */
	LOCKD_SHIM_REASON_ATTACH = 2,	/* a daemon attached */
	LOCKD_SHIM_REASON_SOCKET = 3,	/* the daemon's socket was closed */
	LOCKD_SHIM_REASON_PERMIT = 4,	/* the permit ran out or was revoked */
	LOCKD_SHIM_REASON_TRIP = 5,	/* the tripwire */
	LOCKD_SHIM_REASON_HOOKS = 6,	/* a wanted hook is not in place */
	LOCKD_SHIM_REASON_BYPASS = 7,	/* an operator, BYPASS_SET */
};

/* What touched the tripwire. */
enum lockd_shim_cause {
	LOCKD_SHIM_CAUSE_UNSPEC = 0,
	LOCKD_SHIM_CAUSE_DLM_LS_STOP = 1,	/* a lockspace was stopped */
	LOCKD_SHIM_CAUSE_NFSD_STOP = 2,		/* an nfsd is being shut down */
	LOCKD_SHIM_CAUSE_LOCKD_STOP = 3,	/* a lockd drops its locks */
};

#define LOCKD_SHIM_HOOK_GFS2_LOCK	(1U << 0)
#define LOCKD_SHIM_HOOK_GFS2_FLOCK	(1U << 1)
#define LOCKD_SHIM_HOOK_DLM_LS_STOP	(1U << 2)
#define LOCKD_SHIM_HOOK_NFSD_START	(1U << 3)
#define LOCKD_SHIM_HOOK_NFSD_STOP	(1U << 4)
#define LOCKD_SHIM_HOOK_LOCKD_LOCK	(1U << 5)
#define LOCKD_SHIM_HOOK_LOCKD_STOP	(1U << 6)
#define LOCKD_SHIM_HOOK_UNLOCK_IP	(1U << 7)
#define LOCKD_SHIM_HOOK_UNLOCK_FS	(1U << 8)

enum lockd_shim_attr {
	LOCKD_SHIM_A_PAD = 1,
	LOCKD_SHIM_A_VERSION,
	LOCKD_SHIM_A_STATE,
	LOCKD_SHIM_A_EPOCH,
	LOCKD_SHIM_A_TRIPS,
	LOCKD_SHIM_A_PERMIT_UNTIL,
	LOCKD_SHIM_A_ATTACHED,
	LOCKD_SHIM_A_HOOKS,
	LOCKD_SHIM_A_HOOKS_WANTED,
	LOCKD_SHIM_A_HOOK_ERROR,
	LOCKD_SHIM_A_WAITERS,
	LOCKD_SHIM_A_MODULE_VERSION,
	LOCKD_SHIM_A_INSTANCE,
	LOCKD_SHIM_A_REASON,
	LOCKD_SHIM_A_CAUSE,
	LOCKD_SHIM_A_NETNS_FD,
	LOCKD_SHIM_A_NETNS_INO,
	LOCKD_SHIM_A_NETNS_COOKIE,
	LOCKD_SHIM_A_NETNS_UP,
	LOCKD_SHIM_A_HELD,
	LOCKD_SHIM_A_IN_GRACE,
	LOCKD_SHIM_A_OPENS_BLOCKED,
	LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT,
	LOCKD_SHIM_A_UNDONE,
	LOCKD_SHIM_A_DEFERRED,
	LOCKD_SHIM_A_STOPS,
	LOCKD_SHIM_A_NFSD_UP,
	LOCKD_SHIM_A_HOST,
	LOCKD_SHIM_A_HOSTS,
	LOCKD_SHIM_A_PID,
	LOCKD_SHIM_A_EXEMPT,
	LOCKD_SHIM_A_EXEMPTS,
	LOCKD_SHIM_A_BYPASS,
	LOCKD_SHIM_A_ENFORCED,

	__LOCKD_SHIM_A_MAX,
	LOCKD_SHIM_A_MAX = (__LOCKD_SHIM_A_MAX - 1)
};

enum lockd_shim_cmd {
	LOCKD_SHIM_CMD_STATUS_GET = 1,
	LOCKD_SHIM_CMD_NS_GET,
	LOCKD_SHIM_CMD_ATTACH,
	LOCKD_SHIM_CMD_GATE_SET,
	LOCKD_SHIM_CMD_RECLAIM_SET,
	LOCKD_SHIM_CMD_PERMIT_SET,
	LOCKD_SHIM_CMD_TRIP_NTF,
	LOCKD_SHIM_CMD_GATE_NTF,
	LOCKD_SHIM_CMD_NS_NTF,
	LOCKD_SHIM_CMD_HOOKS_NTF,
	LOCKD_SHIM_CMD_HOST_ADD,
	LOCKD_SHIM_CMD_EXEMPT_SET,
	LOCKD_SHIM_CMD_WAIT_NTF,
	LOCKD_SHIM_CMD_BYPASS_SET,
	LOCKD_SHIM_CMD_ENFORCED_SET,

	__LOCKD_SHIM_CMD_MAX,
	LOCKD_SHIM_CMD_MAX = (__LOCKD_SHIM_CMD_MAX - 1)
};

#endif /* _UAPI_LINUX_LOCKD_SHIM_H */
