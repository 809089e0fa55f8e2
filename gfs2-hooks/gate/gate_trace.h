/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints of gfs2_gate: locks that the gate did something to. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM gfs2_gate

#if !defined(_GATE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _GATE_TRACE_H

#include <linux/tracepoint.h>

#include "compat.h"

#ifndef GATE_SHOW_TYPE
#define GATE_SHOW_TYPE(v) __print_symbolic(v,	\
	{ F_RDLCK, "read" },			\
	{ F_WRLCK, "write" },			\
	{ F_UNLCK, "unlock" })
#endif

/* ret 0: it waits. */
TRACE_EVENT(gfs2_gate_refuse,
	TP_PROTO(struct file *file, int cmd, struct file_lock *fl, int ret),
	TP_ARGS(file, cmd, fl, ret),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned long, ino)
		__field(int, cmd)
		__field(unsigned int, flags)
		__field(unsigned int, type)
		__field(loff_t, start)
		__field(loff_t, end)
		__field(bool, nfs)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->dev = file_inode(file)->i_sb->s_dev;
		__entry->ino = file_inode(file)->i_ino;
		__entry->cmd = cmd;
		__entry->flags = fl->fl_flags;
		__entry->type = fl->fl_type;
		__entry->start = fl->fl_start;
		__entry->end = fl->fl_end;
		__entry->nfs = !!fl->fl_lmops;
		__entry->ret = ret;
	),
	TP_printk("dev=%u:%u ino=%lu cmd=%d flags=0x%x %s [%lld, %lld] %s ret=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->cmd, __entry->flags, GATE_SHOW_TYPE(__entry->type),
		  __entry->start, __entry->end,
		  __entry->nfs ? "nfs" : "local", __entry->ret)
);

/* A piece of a granted range was set back to type. */
TRACE_EVENT(gfs2_gate_undo,
	TP_PROTO(struct file *file, loff_t start, loff_t end,
		 unsigned char type, int ret),
	TP_ARGS(file, start, end, type, ret),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned long, ino)
		__field(loff_t, start)
		__field(loff_t, end)
		__field(unsigned int, type)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->dev = file_inode(file)->i_sb->s_dev;
		__entry->ino = file_inode(file)->i_ino;
		__entry->start = start;
		__entry->end = end;
		__entry->type = type;
		__entry->ret = ret;
	),
	TP_printk("dev=%u:%u ino=%lu [%lld, %lld] to %s ret=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->start, __entry->end, GATE_SHOW_TYPE(__entry->type),
		  __entry->ret)
);

#endif /* _GATE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE gate_trace
#include <trace/define_trace.h>
