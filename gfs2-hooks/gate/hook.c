// SPDX-License-Identifier: GPL-2.0
/*
 * Hooks on functions of other modules, by ftrace.
 *
 * Things that go wrong here go wrong badly:
 *
 * - The replacement calls the original by its address, so the callback sees
 *   that call too and has to let it pass: it knows it by the return address,
 *   which lies in this module.  A tail call would leave the caller's return
 *   address there, and the two functions would call each other for ever.  The
 *   whole module is built without sibling calls.
 * - The address must be the function's true entry: with indirect branch
 *   tracking (IBT) a jump past its ENDBR faults.
 * - sysctl kernel.ftrace_enabled=0 would switch hooks off silently:
 *   FTRACE_OPS_FL_PERMANENT makes the kernel refuse that.
 * - FTRACE_OPS_FL_RECURSION is not set on purpose.  It lets ftrace drop a call
 *   that looks like a recursion; here that would be a lock that nobody gates.
 *   The callbacks call nothing that they are attached to.
 * - A hook with an empty filter is attached to every function of the kernel:
 *   never register one whose filter could not be set.
 * - ftrace_free_filter() of 6.1 leaves pointers to what it freed: an ftrace_ops
 *   is good for nothing afterwards.  In between, a filter is emptied only.
 */

#include <linux/completion.h>
#include <linux/errno.h>
#include <linux/module.h>
#include <linux/percpu-refcount.h>
#include <linux/string.h>

#ifdef CONFIG_X86_KERNEL_IBT
#include <asm/ibt.h>
#endif

#include "gate.h"

/* @ip is the address of the call to ftrace, at the function's beginning. */
static notrace unsigned long true_entry(unsigned long ip)
{
#ifdef CONFIG_X86_KERNEL_IBT
	if (is_endbr(*(u32 *)(ip - ENDBR_INSN_SIZE)))
		return ip - ENDBR_INSN_SIZE;
#endif
	return ip;
}

/*
 * The calls that are inside replacements.  Counted for each CPU by itself: the
 * module's own count is one word for all of them, and every lock of the node
 * would write to it twice.
 */
static struct percpu_ref calls;
static DECLARE_COMPLETION(calls_over);

static void last_call_left(struct percpu_ref *ref)
{
	complete(&calls_over);
}

int gate_calls_init(void)
{
	return percpu_ref_init(&calls, last_call_left, 0, GFP_KERNEL);
}

/* Waits for those that are inside; no hook is set any more. */
void gate_calls_exit(void)
{
	percpu_ref_kill(&calls);
	wait_for_completion(&calls_over);
	percpu_ref_exit(&calls);
}

/* The last thing that a replacement does. */
void gate_leave(void)
{
	percpu_ref_put(&calls);
}

/*
 * Each redirected call is counted until its replacement is through, so that it
 * can sleep there.
 */
void notrace gate_redirect(unsigned long ip, unsigned long parent_ip,
			   struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct gate_hook *hook = container_of(ops, struct gate_hook, ops);

	if (within_module(parent_ip, THIS_MODULE))
		return;
	if (!percpu_ref_tryget_live(&calls))
		return;
	/* It is always the same while the function's module is loaded. */
	if (READ_ONCE(hook->original) != true_entry(ip))
		WRITE_ONCE(hook->original, true_entry(ip));
	ftrace_regs_set_instruction_pointer(fregs,
					    (unsigned long)hook->replacement);
}

noinline notrace int gate_original(struct gate_hook *hook, struct file *file,
				   int cmd, struct file_lock *fl)
{
	gate_lock_fn original = (gate_lock_fn)READ_ONCE(hook->original);

	return original(file, cmd, fl);
}

int gate_hook_set(struct gate_hook *hook)
{
	int ret;

	if (hook->active)
		return 0;
	ret = ftrace_set_filter(&hook->ops, (unsigned char *)hook->function,
				strlen(hook->function), 1);
	if (ret)
		return ret == -EINVAL ? -ENOENT : ret;
	ret = register_ftrace_function(&hook->ops);
	if (ret) {
		ftrace_set_filter(&hook->ops, NULL, 0, 1);
		return ret;
	}
	hook->active = true;
	return 0;
}

void gate_hook_remove(struct gate_hook *hook)
{
	if (!hook->active)
		return;
	unregister_ftrace_function(&hook->ops);
	ftrace_set_filter(&hook->ops, NULL, 0, 1);
	hook->active = false;
}

/* For good. */
void gate_hook_free(struct gate_hook *hook)
{
	gate_hook_remove(hook);
	ftrace_free_filter(&hook->ops);
}
