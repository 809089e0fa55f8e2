// SPDX-License-Identifier: GPL-2.0
/*
 * For tests: claims the right to redirect gfs2_lock(), as a live patch does, and
 * redirects nothing.
 */

#include <linux/ftrace.h>
#include <linux/module.h>

static void notrace entered(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops foreign_ops = {
	.func = entered,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static int __init foreign_init(void)
{
	int ret = ftrace_set_filter(&foreign_ops, (unsigned char *)"gfs2_lock",
				    9, 1);

	return ret ?: register_ftrace_function(&foreign_ops);
}

static void __exit foreign_exit(void)
{
	unregister_ftrace_function(&foreign_ops);
	ftrace_free_filter(&foreign_ops);
}

module_init(foreign_init);
module_exit(foreign_exit);
MODULE_DESCRIPTION("for tests of gfs2_gate");
MODULE_LICENSE("GPL");
