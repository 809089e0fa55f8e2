// SPDX-License-Identifier: GPL-2.0
/*
 * Which GFS2 filesystems are gated: all but those whose UUID the parameter
 * "ungated" names.  /sys/module/gfs2_gate/parameters/filesystems tells of each
 * that is mounted what holds for it.
 *
 * A mount with localflocks (or lock_nolock) keeps locks to this node.  Its
 * files have no lock operation, so the gate never hears of them; what is locked
 * there is not protected, and not by GFS2 either.
 */

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/uuid.h>

#include "gate.h"

#define MAX_UNGATED	16

/* Written under the lock of the module's parameters. */
static uuid_t ungated[MAX_UNGATED];
static unsigned int n_ungated;

static bool is_ungated(const struct super_block *sb)
{
	/* The list before its length; pairs with ungated_set(). */
	unsigned int i, n = smp_load_acquire(&n_ungated);

	for (i = 0; i < n; i++)
		if (uuid_equal(&ungated[i], &sb->s_uuid))
			return true;
	return false;
}

bool gate_gated(struct file *file)
{
	return likely(!READ_ONCE(n_ungated)) ||
	       !is_ungated(file_inode(file)->i_sb);
}

static int ungated_set(const char *text, const struct kernel_param *param)
{
	static uuid_t wanted[MAX_UNGATED];
	unsigned int n = 0;
	size_t length;

	for (text = skip_spaces(text); *text; text += length) {
		if (*text == ',' || *text == '\n' || *text == ' ') {
			length = 1;
			continue;
		}
		length = UUID_STRING_LEN;
		if (n == MAX_UNGATED || uuid_parse(text, &wanted[n++])) {
			pr_err("gfs2_gate: ungated is a list of at most %d UUIDs\n",
			       MAX_UNGATED);
			return -EINVAL;
		}
	}
	/* In between more is gated than should be, never less. */
	WRITE_ONCE(n_ungated, 0);
	/* Nobody may see a new list with the old length. */
	smp_wmb();
	memcpy(ungated, wanted, n * sizeof(*ungated));
	/* Pairs with is_ungated(). */
	smp_store_release(&n_ungated, n);
	return 0;
}

static int ungated_get(char *buffer, const struct kernel_param *param)
{
	unsigned int i;
	int length = 0;

	for (i = 0; i < n_ungated; i++)
		length += sysfs_emit_at(buffer, length, "%s%pUb", i ? "," : "",
					&ungated[i]);
	return length + sysfs_emit_at(buffer, length, "\n");
}

const struct kernel_param_ops gate_ungated_ops = {
	.set = ungated_set,
	.get = ungated_get,
};

struct listing {
	char *buffer;
	int length;
};

static void list_one(struct super_block *sb, void *data)
{
	struct listing *listing = data;
	const char *what = "gated";

	if (!d_inode(sb->s_root)->i_fop->lock)
		what = "private";
	else if (is_ungated(sb))
		what = "ungated";
	listing->length += sysfs_emit_at(listing->buffer, listing->length,
					 "%s %u:%u %pUb %s\n", sb->s_id,
					 MAJOR(sb->s_dev), MINOR(sb->s_dev),
					 &sb->s_uuid, what);
}

/* Waits for a mount that is going on; nothing of ours waits for it. */
static int filesystems_get(char *buffer, const struct kernel_param *param)
{
	struct listing listing = { .buffer = buffer };
	struct file_system_type *type;

	/* get_fs_type() would load it. */
	if (!gate_hook_lock.wanted)
		return 0;
	type = get_fs_type("gfs2");
	if (!type)
		return 0;
	iterate_supers_type(type, list_one, &listing);
	module_put(type->owner);
	return listing.length;
}

const struct kernel_param_ops gate_filesystems_ops = {
	.get = filesystems_get,
};
