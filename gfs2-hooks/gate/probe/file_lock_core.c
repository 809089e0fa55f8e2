// SPDX-License-Identifier: GPL-2.0
/* Since 6.9 the common part of a file_lock is a struct of its own. */
#include <linux/filelock.h>

int probe(struct file_lock *fl);
int probe(struct file_lock *fl)
{
	return fl->c.flc_type;
}
