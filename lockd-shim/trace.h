/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of lockd_shim: each thing that moves the gate, when it happens
 * (events on netlink come later, when the effect is complete).
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM lockd_shim

#if !defined(_LOCKD_SHIM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _LOCKD_SHIM_TRACE_H

#include <linux/tracepoint.h>

#include "uapi/lockd_shim.h"

#ifndef SHIM_SHOW_STATE
#define SHIM_SHOW_STATE(v) __print_symbolic(v,			\
	{ LOCKD_SHIM_STATE_CLOSED, "closed" },			\
	{ LOCKD_SHIM_STATE_RECLAIM, "reclaim" },		\
	{ LOCKD_SHIM_STATE_OPEN, "open" })
#define SHIM_SHOW_REASON(v) __print_symbolic(v,			\
	{ LOCKD_SHIM_REASON_LOAD, "load" },			\
	{ LOCKD_SHIM_REASON_ORDER, "order" },			\
	{ LOCKD_SHIM_REASON_ATTACH, "attach" },			\
	{ LOCKD_SHIM_REASON_SOCKET, "socket" },			\
	{ LOCKD_SHIM_REASON_PERMIT, "permit" },			\
	{ LOCKD_SHIM_REASON_TRIP, "trip" },			\
	{ LOCKD_SHIM_REASON_HOOKS, "hooks" },			\
	{ LOCKD_SHIM_REASON_BYPASS, "bypass" })
#define SHIM_SHOW_CAUSE(v) __print_symbolic(v,			\
	{ LOCKD_SHIM_CAUSE_DLM_LS_STOP, "dlm_ls_stop" },	\
	{ LOCKD_SHIM_CAUSE_NFSD_STOP, "nfsd_stop" },		\
	{ LOCKD_SHIM_CAUSE_LOCKD_STOP, "lockd_stop" })
#endif

TRACE_EVENT(lockd_shim_gate,
	TP_PROTO(u32 state, u32 reason, u64 trips),
	TP_ARGS(state, reason, trips),
	TP_STRUCT__entry(
		__field(u32, state)
		__field(u32, reason)
		__field(u64, trips)
	),
	TP_fast_assign(
		__entry->state = state;
		__entry->reason = reason;
		__entry->trips = trips;
	),
	TP_printk("state=%s reason=%s trips=%llu",
		  SHIM_SHOW_STATE(__entry->state),
		  SHIM_SHOW_REASON(__entry->reason), __entry->trips)
);

TRACE_EVENT(lockd_shim_trip,
	TP_PROTO(u32 cause, u64 trips),
	TP_ARGS(cause, trips),
	TP_STRUCT__entry(
		__field(u32, cause)
		__field(u64, trips)
	),
	TP_fast_assign(
		__entry->cause = cause;
		__entry->trips = trips;
	),
	TP_printk("cause=%s trips=%llu", SHIM_SHOW_CAUSE(__entry->cause),
		  __entry->trips)
);

TRACE_EVENT(lockd_shim_permit,
	TP_PROTO(u64 until, u64 now),
	TP_ARGS(until, now),
	TP_STRUCT__entry(
		__field(u64, until)
		__field(u64, now)
	),
	TP_fast_assign(
		__entry->until = until;
		__entry->now = now;
	),
	TP_printk("until=%llu now=%llu late_ns=%llu", __entry->until,
		  __entry->now, __entry->now - __entry->until)
);

TRACE_EVENT(lockd_shim_reclaim,
	TP_PROTO(u32 netns, bool given, u64 epoch),
	TP_ARGS(netns, given, epoch),
	TP_STRUCT__entry(
		__field(u32, netns)
		__field(bool, given)
		__field(u64, epoch)
	),
	TP_fast_assign(
		__entry->netns = netns;
		__entry->given = given;
		__entry->epoch = epoch;
	),
	TP_printk("netns=%u %s epoch=%llu", __entry->netns,
		  __entry->given ? "given" : "withdrawn", __entry->epoch)
);

TRACE_EVENT(lockd_shim_wait,
	TP_PROTO(int waiters),
	TP_ARGS(waiters),
	TP_STRUCT__entry(
		__field(int, waiters)
	),
	TP_fast_assign(
		__entry->waiters = waiters;
	),
	TP_printk("waiters=%d", __entry->waiters)
);

#endif /* _LOCKD_SHIM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
