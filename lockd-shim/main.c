// SPDX-License-Identifier: GPL-2.0
/*
 * lockd_shim: the gate of a GFS2 cluster node, as graced sees it.
 * Only init and unwind are here; shim.h tells how the parts fit.
 */

#include <linux/build_bug.h>
#include <linux/module.h>

#include "shim.h"

/* The permit and the tickets are read without a lock. */
static_assert(sizeof(long) == sizeof(u64), "lockd_shim needs a 64-bit kernel");

static int __init shim_init(void)
{
	int ret;

	ret = gate_init();
	if (ret)
		return ret;
	permit_init();

	/* From here on every network namespace is in grace. */
	ret = grace_init();
	if (ret)
		goto err_gate;
	ret = shim_netlink_init();
	if (ret)
		goto err_grace;

	pr_info("lockd_shim %s: gate closed, every network namespace in grace until a daemon opens it\n",
		SHIM_MODULE_VERSION);
	return 0;

err_grace:
	grace_exit();
err_gate:
	permit_exit();
	wait_exit();
	gate_exit();
	return ret;
}

/* No daemon is attached and no hook uses us: the gate is closed for good. */
static void __exit shim_exit(void)
{
	shim_netlink_exit();
	permit_exit();
	wait_exit();
	gate_exit();
	grace_exit();
}

module_init(shim_init);
module_exit(shim_exit);

MODULE_DESCRIPTION("cluster-wide NFS grace period: gate and lock managers");
MODULE_VERSION(SHIM_MODULE_VERSION);
MODULE_LICENSE("GPL");
