// SPDX-License-Identifier: GPL-2.0
/*
 * gfs2_gate: puts lockd_shim's gate in front of GFS2's locks.
 *
 * gfs2, dlm, nfsd and lockd may be loaded before us or after, and unloaded at any time.  A
 * module notifier sets the hooks before the module's own init runs, so before
 * there can be a mount, and removes them after its exit.
 */

#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

#include "gate.h"

#define GATE_MODULE_VERSION	"0.1"

static bool flock = true;
module_param(flock, bool, 0444);
MODULE_PARM_DESC(flock, "gate flock(2) too (default: on)");

static char *nlm = "allow";
module_param(nlm, charp, 0444);
MODULE_PARM_DESC(nlm, "NFSv3 locks on gated filesystems: allow (default), or refuse");

module_param_cb(ungated, &gate_ungated_ops, NULL, 0644);
MODULE_PARM_DESC(ungated, "UUIDs of GFS2 filesystems whose locks are not gated");
module_param_cb(filesystems, &gate_filesystems_ops, NULL, 0444);
MODULE_PARM_DESC(filesystems, "mounted GFS2: device, number, UUID, and gated, ungated or private (localflocks)");

/* Tripwires first: no lock is served before them. */
static struct gate_hook *const hooks[] = {
	&gate_hook_ls_stop,
	&gate_hook_nfsd_start,
	&gate_hook_nfsd_stop,
	&gate_hook_lockd_stop,
	&gate_hook_unlock_ip,
	&gate_hook_unlock_fs,
	&gate_hook_nlmsvc_lock,
	&gate_hook_lock,
	&gate_hook_flock,
};

static DEFINE_MUTEX(hooks_mutex);
static bool going;		/* set no more hooks */

static bool left_out(const struct gate_hook *hook)
{
	return hook == &gate_hook_flock && !flock;
}

static void report(void)
{
	u32 active = 0, wanted = 0;
	char error[96] = "";
	int i;

	lockdep_assert_held(&hooks_mutex);

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		struct gate_hook *hook = hooks[i];

		if (hook->active)
			active |= hook->bit;
		if (hook->wanted)
			wanted |= hook->bit;
		if (!hook->wanted || hook->active || error[0])
			continue;
		snprintf(error, sizeof(error), "%s: %s (%d)", hook->function,
			 hook->error == -EBUSY ?
				"another user of IPMODIFY has it, a live patch?" :
			 hook->error == -ENOENT ?
				"the loaded module has no such function" :
				"ftrace refuses",
			 hook->error);
		pr_err("gfs2_gate: %s; the gate stays closed\n", error);
	}
	lockd_shim_hooks_set(active, wanted, error[0] ? error : NULL);
}

/*
 * find_module() is not for modules; but every loaded module has a kobject next
 * to ours.
 */
static bool loaded(const char *name)
{
	struct kset *modules = THIS_MODULE->mkobj.kobj.kset;
	struct kobject *kobj = kset_find_obj(modules, name);

	if (!kobj)
		return false;
	kobject_put(kobj);
	return true;
}

static void set_hook(struct gate_hook *hook)
{
	lockdep_assert_held(&hooks_mutex);

	if (left_out(hook) || going)
		return;
	hook->error = gate_hook_set(hook);
	hook->wanted = true;
}

static void remove_hook(struct gate_hook *hook)
{
	lockdep_assert_held(&hooks_mutex);

	gate_hook_remove(hook);
	hook->wanted = false;
	hook->error = 0;
}

static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	struct module *mod = data;
	bool changed = false;
	int i;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_GOING)
		return NOTIFY_DONE;

	mutex_lock(&hooks_mutex);
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (strcmp(mod->name, hooks[i]->module))
			continue;
		if (event == MODULE_STATE_COMING)
			set_hook(hooks[i]);
		else
			remove_hook(hooks[i]);
		changed = true;
	}
	if (changed)
		report();
	mutex_unlock(&hooks_mutex);
	return NOTIFY_DONE;
}

static struct notifier_block module_notifier = {
	.notifier_call = module_event,
};

static int __init gate_init(void)
{
	int i, ret;

	if (!strcmp(nlm, "refuse")) {
		gate_nlm_refuse = true;
	} else if (strcmp(nlm, "allow")) {
		pr_err("gfs2_gate: nlm is allow or refuse, not \"%s\"\n", nlm);
		return -EINVAL;
	}

	ret = gate_calls_init();
	if (ret)
		return ret;
	ret = lockd_shim_hooks_register(THIS_MODULE);
	if (ret)
		goto err_calls;

	mutex_lock(&hooks_mutex);
	ret = register_module_notifier(&module_notifier);
	if (ret)
		goto err_hooks;
	/*
	 * A module that is being loaded right now may have no kobject yet and
	 * be past its notifiers, but its functions can be found.
	 */
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		set_hook(hooks[i]);
		if (hooks[i]->error == -ENOENT && !loaded(hooks[i]->module))
			remove_hook(hooks[i]);
	}
	report();
	mutex_unlock(&hooks_mutex);
	return 0;

err_hooks:
	mutex_unlock(&hooks_mutex);
	lockd_shim_hooks_unregister(THIS_MODULE);
err_calls:
	gate_calls_exit();
	return ret;
}

/*
 * Whoever could wait for ever is not inside any more, it holds the module.  The
 * others are waited for, and then for the last instructions of the last one.
 */
static void __exit gate_exit(void)
{
	int i;

	/* Closes the gate, as far as it can be closed without us. */
	lockd_shim_hooks_unregister(THIS_MODULE);
	/*
	 * The notifier last: if a module went unseen, its hook would be left
	 * with an empty filter, which means every function there is.
	 */
	mutex_lock(&hooks_mutex);
	going = true;
	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		remove_hook(hooks[i]);
	mutex_unlock(&hooks_mutex);
	unregister_module_notifier(&module_notifier);
	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		gate_hook_free(hooks[i]);
	gate_calls_exit();
	synchronize_rcu_tasks();
}

module_init(gate_init);
module_exit(gate_exit);

MODULE_DESCRIPTION("cluster-wide NFS grace period: the gate on GFS2's locks");
MODULE_VERSION(GATE_MODULE_VERSION);
MODULE_LICENSE("GPL");
