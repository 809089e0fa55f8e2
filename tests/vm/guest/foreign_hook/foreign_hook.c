// SPDX-License-Identifier: GPL-2.0
/*
 * For tests: claims the right to redirect gfs2_lock(), as a live patch does, and
 * redirects nothing.  If gfs2 is not loaded yet, it is the first to have it.
 */

#include <linux/ftrace.h>
#include <linux/limits.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/string.h>

static void notrace entered(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops foreign_ops = {
	.func = entered,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static bool claimed;

static int claim(void)
{
	int ret = ftrace_set_filter(&foreign_ops, (unsigned char *)"gfs2_lock",
				    9, 1);

	/* With an empty filter it would have every function. */
	ret = ret ?: register_ftrace_function(&foreign_ops);
	claimed = !ret;
	return ret;
}

static void let_go(void)
{
	if (claimed)
		unregister_ftrace_function(&foreign_ops);
	claimed = false;
}

static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	struct module *mod = data;

	if (strcmp(mod->name, "gfs2"))
		return NOTIFY_DONE;
	if (event == MODULE_STATE_COMING)
		pr_info("foreign_hook: gfs2 is coming: %d\n", claim());
	else if (event == MODULE_STATE_GOING)
		let_go();
	return NOTIFY_DONE;
}

/* Before all others: a live patch is applied before there are any. */
static struct notifier_block notifier = {
	.notifier_call = module_event,
	.priority = INT_MAX,
};

static int __init foreign_init(void)
{
	int ret = claim();

	if (ret && ret != -EINVAL)	/* no such function: it will come */
		return ret;
	return register_module_notifier(&notifier);
}

static void __exit foreign_exit(void)
{
	unregister_module_notifier(&notifier);
	let_go();
	ftrace_free_filter(&foreign_ops);
}

module_init(foreign_init);
module_exit(foreign_exit);
MODULE_DESCRIPTION("for tests of gfs2_gate");
MODULE_LICENSE("GPL");
