/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of gfs2_gate share among themselves.
 */
#ifndef _GATE_H
#define _GATE_H

#include <linux/ftrace.h>
#include <linux/types.h>

#include "compat.h"
#include "lockd_shim.h"

typedef int (*gate_lock_fn)(struct file *file, int cmd, struct file_lock *fl);

/* hook.c: a function of another module, and how we get at it */

struct gate_hook {
	const char *function;
	const char *module;
	u32 bit;			/* LOCKD_SHIM_HOOK_* */
	struct ftrace_ops ops;
	void *replacement;		/* NULL: only listen */
	unsigned long original;		/* its true entry, known when called */
	bool wanted;			/* its module is loaded */
	bool active;
	int error;			/* why it is wanted and not active */
};

void gate_redirect(unsigned long ip, unsigned long parent_ip,
		   struct ftrace_ops *ops, struct ftrace_regs *fregs);
int gate_calls_init(void);
void gate_calls_exit(void);
void gate_leave(void);
int gate_original(struct gate_hook *hook, struct file *file, int cmd,
		  struct file_lock *fl);
int gate_pass(struct gate_hook *hook, struct file *file, int cmd,
	      struct file_lock *fl);
int gate_hook_set(struct gate_hook *hook);
void gate_hook_remove(struct gate_hook *hook);
void gate_hook_free(struct gate_hook *hook);

/* gate.c: the replacements of gfs2_lock() and gfs2_flock() */

extern struct gate_hook gate_hook_lock;
extern struct gate_hook gate_hook_flock;

bool gate_still_open(unsigned long ticket);

#define GATE_REDIRECT_OPS {					\
	.func = gate_redirect,					\
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY |	\
		 FTRACE_OPS_FL_PERMANENT,			\
}

/* nlm.c: locks of NFSv3 clients, and the replacement of nlmsvc_lock() */

extern struct gate_hook gate_hook_nlmsvc_lock;
extern bool gate_nlm_refuse;

bool gate_is_nlm(const struct file_lock *fl);
int gate_nlm_original(struct gate_hook *hook, struct file *file, int cmd,
		      struct file_lock *fl);
int gate_nlm_lock(struct gate_hook *hook, struct file *file, int cmd,
		  struct file_lock *fl);

/* filesystems.c: which filesystems are gated */

extern const struct kernel_param_ops gate_ungated_ops;
extern const struct kernel_param_ops gate_filesystems_ops;

bool gate_gated(struct file *file);

/* tripwire.c */

extern struct gate_hook gate_hook_ls_stop;
extern struct gate_hook gate_hook_nfsd_start;
extern struct gate_hook gate_hook_nfsd_stop;
extern struct gate_hook gate_hook_lockd_stop;
extern struct gate_hook gate_hook_unlock_ip;
extern struct gate_hook gate_hook_unlock_fs;

/* undo.c: what an owner held before, and how to give it back */

struct gate_piece {
	loff_t start;
	loff_t end;
	unsigned char type;
};

/*
 * A lock request as it came.  The filesystem's lock operation changes the
 * struct file_lock that it is given (range, on merging with a neighbour).
 */
struct gate_request {
	loff_t start;
	loff_t end;
	unsigned int flags;
	unsigned char type;

	/* What the owner held within [start, end], by rising start. */
	unsigned int n_held;
	struct gate_piece *held;
};

int gate_remember(struct file *file, struct file_lock *fl,
		  struct gate_request *req);
void gate_forget(struct gate_request *req);
void gate_restore_request(struct file_lock *fl,
			  const struct gate_request *req);
bool gate_nothing_new(const struct gate_request *req);
int gate_undo(struct gate_hook *hook, struct file *file, struct file_lock *fl,
	      const struct gate_request *req);
int gate_remember_flock(struct file *file, struct file_lock *fl,
			struct gate_request *req);
int gate_undo_flock(struct gate_hook *hook, struct file *file,
		    struct file_lock *fl, const struct gate_request *req);

/*
 * Faults for the tests to find; built with GRACED_MUTANTS=1 only.
 */
#ifdef GRACED_MUTANTS
extern bool mutant_no_recheck;
extern bool mutant_no_tripwire;
extern bool mutant_no_restore;
#else
#define mutant_no_recheck	false
#define mutant_no_tripwire	false
#define mutant_no_restore	false
#endif

#endif /* _GATE_H */
