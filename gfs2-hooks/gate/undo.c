// SPDX-License-Identifier: GPL-2.0
/*
 * Taking back a grant.
 *
 * Unlocking the range is not enough: an owner that held a read lock on part of
 * it and asked for a write lock would lose the read lock too.  So what the
 * owner held there is written down before the request goes to the filesystem,
 * and given back afterwards: pieces that the grant made stronger are made
 * weaker again, which cannot conflict with anybody; what it did not hold is
 * unlocked.
 *
 * GFS2 keeps the node's own POSIX locks on the inode's list, like a local
 * filesystem; that is where we read.  Threads of one process that change locks
 * in the same range while another of them waits for one there are not seen:
 * they have one owner.
 */

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "gate.h"
#include "gate_trace.h"

static bool stronger(unsigned char a, unsigned char b)
{
	return a == F_WRLCK && b == F_RDLCK;
}

static bool piece_of(const struct file_lock *held, const struct file_lock *fl)
{
	return held->fl_owner == fl->fl_owner && held->fl_end >= fl->fl_start &&
	       held->fl_start <= fl->fl_end;
}

static void save_request(const struct file_lock *fl, struct gate_request *req)
{
	req->start = fl->fl_start;
	req->end = fl->fl_end;
	req->flags = fl->fl_flags;
	req->type = fl->fl_type;
	req->n_held = 0;
	req->held = NULL;
}

void gate_restore_request(struct file_lock *fl, const struct gate_request *req)
{
	fl->fl_start = req->start;
	fl->fl_end = req->end;
	fl->fl_flags = req->flags;
	fl->fl_type = req->type;
}

void gate_forget(struct gate_request *req)
{
	kvfree(req->held);
	req->held = NULL;
	req->n_held = 0;
}

/* The number of pieces; of those, the first @max are written to @piece. */
static unsigned int find_pieces(struct file_lock_context *ctx,
				const struct file_lock *fl,
				struct gate_piece *piece, unsigned int max)
{
	struct file_lock *held;
	unsigned int n = 0;

	spin_lock(&ctx->flc_lock);
	list_for_each_entry(held, &ctx->flc_posix, fl_list) {
		if (!piece_of(held, fl))
			continue;
		if (n < max) {
			piece[n].start = max(held->fl_start, fl->fl_start);
			piece[n].end = min(held->fl_end, fl->fl_end);
			piece[n].type = held->fl_type;
		}
		n++;
	}
	spin_unlock(&ctx->flc_lock);
	return n;
}

/**
 * gate_remember - write down a request and what its owner holds in its range
 * @file: the file
 * @fl: the request, before the filesystem has seen it
 * @req: filled in; to be given to gate_forget() in the end
 *
 * Return: 0, or -ENOLCK if there is no memory for it.
 */
int gate_remember(struct file *file, struct file_lock *fl,
		  struct gate_request *req)
{
	struct file_lock_context *ctx = locks_inode_context(file_inode(file));
	unsigned int n;

	save_request(fl, req);
	if (!ctx)
		return 0;

	n = find_pieces(ctx, fl, NULL, 0);
	while (n) {
		req->held = kvmalloc_array(n, sizeof(*req->held), GFP_KERNEL);
		if (!req->held)
			return -ENOLCK;
		req->n_held = n;
		n = find_pieces(ctx, fl, req->held, n);
		if (n <= req->n_held) {
			req->n_held = n;
			break;
		}
		/* Another thread of the owner has added some. */
		gate_forget(req);
	}
	return 0;
}

/**
 * gate_nothing_new - does the request only ask for what the owner holds?
 * @req: filled in by gate_remember()
 *
 * Every byte is held, as strongly or more: a grant takes nothing from anybody
 * and may stand.
 */
bool gate_nothing_new(const struct gate_request *req)
{
	loff_t next = req->start;
	unsigned int i;

	for (i = 0; i < req->n_held; i++) {
		const struct gate_piece *piece = &req->held[i];

		if (piece->start > next || stronger(req->type, piece->type))
			return false;
		if (piece->end >= req->end)
			return true;
		next = piece->end + 1;
	}
	return false;
}

/* Sets [start, end] of the owner of @fl to @type. */
static int set_range(struct gate_hook *hook, struct file *file,
		     const struct file_lock *fl, loff_t start, loff_t end,
		     unsigned char type)
{
	struct file_lock *set;
	int ret;

	/*
	 * Without this lock nothing can be undone, and the program would be
	 * told that it has not got what it has.
	 */
	set = locks_alloc_lock();
	while (!set) {
		cond_resched();
		set = locks_alloc_lock();
	}
	/* Also takes a reference to the owner, if that is nfsd's. */
	locks_copy_lock(set, (struct file_lock *)fl);
	set->fl_flags &= FL_POSIX | FL_FLOCK | FL_OFDLCK;
	set->fl_type = type;
	set->fl_start = start;
	set->fl_end = end;
	ret = gate_pass(hook, file, F_SETLK, set);
	locks_free_lock(set);
	return ret;
}

static int undo_range(struct gate_hook *hook, struct file *file,
		      const struct file_lock *fl, loff_t start, loff_t end,
		      unsigned char type)
{
	int ret = set_range(hook, file, fl, start, end, type);

	trace_gfs2_gate_undo(file, start, end, type, ret);
	if (ret)
		pr_err_ratelimited("gfs2_gate: inode %lu: cannot %s [%lld, %lld] of pid %u: %d\n",
				   file_inode(file)->i_ino,
				   type == F_UNLCK ? "release" : "restore",
				   start, end, (unsigned int)fl->fl_pid, ret);
	return ret;
}

/**
 * gate_undo - take a granted POSIX lock back
 * @hook: for the way to the filesystem
 * @file: the file
 * @fl: the request that was granted
 * @req: what gate_remember() wrote down before
 *
 * A piece that the grant made weaker (the owner held a write lock and asked for
 * a read lock over more than that) is asked for again, and may be lost to
 * somebody else by now.  The owner gave it up itself.
 *
 * Return: 0, or the first error.  In spite of one, all pieces are tried.
 */
int gate_undo(struct gate_hook *hook, struct file *file, struct file_lock *fl,
	      const struct gate_request *req)
{
	unsigned int i, n = mutant_no_restore ? 0 : req->n_held;
	loff_t next = req->start;
	int ret = 0, err;

	lockd_shim_count_undone();

	for (i = 0; i < n; i++) {
		const struct gate_piece *piece = &req->held[i];

		if (piece->start > next) {
			err = undo_range(hook, file, fl, next,
					 piece->start - 1, F_UNLCK);
			ret = ret ?: err;
		}
		if (piece->type != req->type) {
			err = undo_range(hook, file, fl, piece->start,
					 piece->end, piece->type);
			ret = ret ?: err;
		}
		if (piece->end >= req->end)
			return ret;
		next = piece->end + 1;
	}
	err = undo_range(hook, file, fl, next, req->end, F_UNLCK);
	return ret ?: err;
}

/*
 * flock: one lock for the whole file, and its conversion gives up the old lock
 * before it asks for the new one (flock(2) says so, and GFS2 does).
 */
int gate_remember_flock(struct file *file, struct file_lock *fl,
			struct gate_request *req)
{
	struct file_lock_context *ctx = locks_inode_context(file_inode(file));
	struct file_lock *held;
	unsigned char type = F_UNLCK;

	save_request(fl, req);
	if (!ctx)
		return 0;

	spin_lock(&ctx->flc_lock);
	list_for_each_entry(held, &ctx->flc_flock, fl_list)
		if (held->fl_file == file)
			type = held->fl_type;
	spin_unlock(&ctx->flc_lock);
	if (type == F_UNLCK)
		return 0;

	req->held = kvmalloc(sizeof(*req->held), GFP_KERNEL);
	if (!req->held)
		return -ENOLCK;
	*req->held = (struct gate_piece){ req->start, req->end, type };
	req->n_held = 1;
	return 0;
}

int gate_undo_flock(struct gate_hook *hook, struct file *file,
		    struct file_lock *fl, const struct gate_request *req)
{
	lockd_shim_count_undone();

	/* A shared lock that became exclusive: try to have it shared again. */
	if (req->n_held && !mutant_no_restore &&
	    !set_range(hook, file, fl, req->start, req->end, req->held->type)) {
		trace_gfs2_gate_undo(file, req->start, req->end,
				     req->held->type, 0);
		return 0;
	}
	return undo_range(hook, file, fl, req->start, req->end, F_UNLCK);
}
