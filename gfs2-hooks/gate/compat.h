/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Names that differ between kernels.  Kbuild finds out by compiling probe/.
 */
#ifndef _GATE_COMPAT_H
#define _GATE_COMPAT_H

#include <linux/fs.h>
#include <linux/ftrace.h>

#ifdef GATE_HAVE_FILE_LOCK_CORE
#include <linux/filelock.h>
#define fl_file		c.flc_file
#define fl_flags	c.flc_flags
#define fl_list		c.flc_list
#define fl_owner	c.flc_owner
#define fl_pid		c.flc_pid
#define fl_type		c.flc_type
#endif

#ifndef GATE_HAVE_FTRACE_REGS
#define ftrace_regs_set_instruction_pointer(fregs, ip) \
	ftrace_instruction_pointer_set(fregs, ip)
#endif

#include <linux/sched.h>
#include <linux/version.h>

/*
 * How F_SETLKW sleeps in dlm: only a fatal signal ends it, since 6.6 any
 * ("fs: dlm: allow to F_SETLKW getting interrupted").  No probe can tell.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#define GATE_SETLKW_STATE	TASK_INTERRUPTIBLE
#else
#define GATE_SETLKW_STATE	TASK_KILLABLE
#endif

/*
 * Does lockd drop its locks because it ends?  6.1's also does at SIGKILL; 6.12's
 * heeds no signal and is not ended by kthread_stop().
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#define gate_lockd_ends()	true
#else
#define gate_lockd_ends()	kthread_should_stop()
#endif

#endif /* _GATE_COMPAT_H */
