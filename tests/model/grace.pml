/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The protocol of docs/design.md, for three nodes and two servers, under every schedule.
 *
 *   tests/model/run                  the part that CI runs
 *   tests/model/check                everything; prints a table
 *   tests/model/check merge ...      these configurations and variants
 *
 * By hand:
 *   spin -a -DSTARTS=1 -DFAILURES=1 grace.pml && gcc -O2 -DSAFETY -DCOLLAPSE -DNOREDUCE -DVECTORSZ=2048 -DMEMLIM=4000 -o pan pan.c
 *   ./pan -m100000                   # safety, and L1: every state where nothing is left to do is good
 *   gcc -O2 -DNP -DNOFAIR -DCOLLAPSE -DNOREDUCE -DVECTORSZ=2048 -DMEMLIM=4000 -o pan pan.c && ./pan -l -m100000     # livelock: any cycle
 *   ./pan -r -S grace.pml.trail      # after a violation: the story, if built with -DTELL
 *
 * Budgets (how often each may happen; any moment): STARTS of a server, FAILURES (a node falls
 * silent: dead, paused or cut off, nobody can tell), LEAVES (corosync stopped: gone at once),
 * KILLS of a daemon, JOINS (a node or a daemon comes back), MERGES (a cut-off node comes back without
 * having left), MOVES of a server, COLD (power failure of the whole cluster), CRASHES of an nfsd, TAKES,
 * OPERATOR (START of a server that lost nothing; STARTS are of one that may have), EXPELS (a node leaves the DLM only), FLAPS (a node without
 * daemon reboots before it is missed), CLIENTS (server 0 has no record at first).
 * WHO: the nodes that faults may hit. SLOW: the nodes that may lag. CALM: faults may also
 * stop early. TWO: node 2 is dead from the start, a small cluster for what needs no more. NO_ and BUG_
 * switches take one rule away; pan must then find a violation. REPLAY: a trace leads (tests/model/replay).
 *
 * How it corresponds to the code. A node takes one input and then runs every rule, atomically, as
 * fsm::step() does; decide() below has the rules in the order of fsm::decide(), apply() is apply.cc.
 * Asynchronous are: delivery, the kernel's acknowledgements, the disk, the lock table, quorum's news.
 * s[] has one replica for each node, and a last one, GHOST, that applies every message when it is
 * ordered: what the agreed stream says so far. A message sent under another view than that is void
 * for all, so it is not put into the stream at all.
 *
 * The cluster is one component with the stream in it (`ring`) and nodes cut off from it one by one.
 */
#ifndef STARTS
#define STARTS 0
#endif
#ifndef FAILURES
#define FAILURES 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef JOINS
#define JOINS 0
#endif
#ifndef MERGES
#define MERGES 0
#endif
#ifndef MOVES
#define MOVES 0
#endif
#ifndef COLD
#define COLD 0
#endif
#ifndef CRASHES         /* an nfsd ends in the middle of its reclaim */
#define CRASHES 0
#endif
#ifndef EXPELS          /* a node leaves dlm_controld's group but not ours: its locks are dropped */
#define EXPELS 0
#endif
#ifndef OPERATOR        /* START by an operator: nothing has happened to the server */
#define OPERATOR 0
#endif
#ifndef FLAPS           /* a node without a daemon reboots within one change of the membership */
#define FLAPS 0
#endif
#ifndef CLIENTS         /* server 0 begins without records; so many clients come */
#define CLIENTS 0
#define EMPTY 0
#else
#define EMPTY 1
#endif
#if defined(TWO)
#define SPARE 0
#else
#define SPARE 1
#endif
#if JOINS && FAILURES + KILLS + LEAVES > SPARE   /* a group may be founded from a disk while nfsds run: it has NEED and START */
#define STORED 1
#else
#define STORED 0
#endif
#ifndef TAKES           /* the highest live node asks for a server although another hosts it */
#define TAKES 0
#endif
#ifndef WHO             /* the nodes that faults may hit */
#define WHO 7
#endif
#ifndef SLOW            /* the nodes whose stream, kernel, disk and quorum news may lag; the others are prompt */
#define SLOW 7
#endif
#ifdef TWO
#define TAKER 1
#else
#define TAKER 2
#endif
#ifndef HOST1           /* where the second server is at first; NOBODY: there is no second server */
#define HOST1 1
#endif

#define N      3
#define GHOST  N
#define NOBODY 7
#define QLEN   32
#define B(x)   (1 << (x))
#define ALL    (B(N) - 1)
#define MANY(m) ((m) == 3 || (m) == 5 || (m) == 6 || (m) == 7)   /* a majority of three */

/* ---- state ---------------------------------------------------------------------------------- */

mtype = { NODE_LEFT, PROC_LEFT, RING, JOIN, HELLO, SYNC,         /* membership, in the stream */
          START, TAKE, RELEASED, NODE_DOWN, ENFORCING, DONE, PURGE, DURABLE, LIFT, BARRIER, RECORDS }

typedef replicated {
    byte view;                    /* confchgs so far */
    byte rings;                   /* changes of the ring so far */
    byte C, R;
    byte purged;                  /* the last epoch that was purged */
    bit lifting;
    byte members;                 /* synced ones */
    byte down;
    byte enforcing;               /* bit of node: said ENFORCING(C) */
    byte durable;                 /* bit of node: said DURABLE at or past the PURGE, in this view */
    byte need, needed;            /* bit of server */
    byte host[2], start[2];
    byte lost[2];                 /* the last START that stands for locks that are gone for sure */
    byte settled[2];              /* the last one that was done, and purged */
    byte starts;
    byte last_done;
    byte boot_seen;               /* bit of node: parity of the boot that it joined with last */
    byte recordless               /* bit of server: no client on record */
}
/* why there is a START */
#define STOPS    0                /* its server is about to be stopped: counts without records, too */
#define ASKED    1                /* an operator */
#define LOST     2                /* what its clients held is gone, or may be */
replicated s[N + 1];
chan q[N] = [QLEN] of { mtype, byte, byte, byte };      /* ordered, not yet delivered here */

#ifdef REPLAY            /* a run of the simulator leads: tests/model/replay */
c_decl { \#include "replay.h" }
#define END      0
#define ORDER    1       /* first delivery of a message anywhere: here it enters the stream */
#define DELIVER  2
#define GATE     3       /* the kernel's gate opens (1), closes (0) */
#define RECLAIM  4       /* the servers for which the kernel accepts reclaims */
#define LOCK     5       /* a daemon hears of a grant */
#define OFF      6
#define LOST_    7       /* the ring has noticed that */
#define FENCED_  8
#define KILL     9
#define DAEMON   10
#define FINISHED_ 11     /* reclaim is over on this host: all have, deadline, operator, intact */
#define STOPPING 12      /* the servers that are being stopped here */
int at;                  /* the next line */
byte e_kind, e_node, e_from, e_b, e_c, e_C, e_R, e_lifting, e_need, e_enforcing, e_host0, e_host1;
mtype e_type = NODE_LEFT;
bit wrong;
bit told_open[N]; byte told_reclaim[N], stopping[N];
inline load() {
    c_code {
        now.e_kind = trace[now.at][0]; now.e_node = trace[now.at][1]; now.e_type = trace[now.at][2];
        now.e_from = trace[now.at][3]; now.e_b = trace[now.at][4]; now.e_c = trace[now.at][5];
        now.e_C = trace[now.at][6]; now.e_R = trace[now.at][7]; now.e_lifting = trace[now.at][8];
        now.e_need = trace[now.at][9]; now.e_enforcing = trace[now.at][10];
        now.e_host0 = trace[now.at][11]; now.e_host1 = trace[now.at][12];
    }
}
inline next() { at++; c_code { farthest = now.at > farthest ? now.at : farthest; }; load() }
#define IS(kind, i)      (e_kind == kind && e_node == i)
#define MAYBE_RECLAIM(i, v) (IS(RECLAIM, i) && (e_b & B(v)))
#define MOVING(i, v)     (stopping[i] & B(v))
#define TOLD_CLOSE(i)    (IS(GATE, i) && !e_b)
#define MAYBE_OPEN(i)    (IS(GATE, i) && e_b)
#define WITH_RECORDS     e_c
#define RECORDED(r, v)    (c_ & B(v))
#define HAS_RECORDS(r, v) (RECORDED(r, v) || (s[r].need & B(v)))
chan said_by = [14] of { byte, mtype, byte, byte };   /* by a node, on its way to the stream */
#else
#define MAYBE_RECLAIM(i, v) 1
#ifdef NO_STOPPING_KEPT  /* a daemon that starts again does not know what is being stopped */
#define MOVING(i, v)     (moving == v && mover == i && !forgot)
#else
#define MOVING(i, v)     (moving == v && mover == i)
#endif
#define TOLD_CLOSE(i)    0
#define MAYBE_OPEN(i)    1
#define WITH_RECORDS     0
#define RECORDED(r, v)    (!(s[r].recordless & B(v)))
#define HAS_RECORDS(r, v) (RECORDED(r, v) || (s[r].need & B(v)))
#endif

#define UP   0
#define CUT  1                    /* silent; still runs */
#define DEAD 2                    /* fenced: nothing runs, its locks are gone */
byte st[N];
byte ring = ALL;                  /* nodes of the component with the stream */
byte left;                        /* CUT nodes that the ring has lost */
bit daemon[N];
bit synced[N];

#define PENDING 0                 /* a node left, the ring that follows is not named yet */
#define UNNAMED 1                 /* corosync's services do not name the same ring yet */
#define NAMED   2
byte confirmed[N];
byte live[N];                     /* quorum's node list, as heard here */

#define OPEN    0
#define CLOSING 1                 /* ordered, not acknowledged */
#define SHUT    2
byte gate[N];                     /* what the daemon knows */
byte gate_at[N];                  /* epoch of the last close order */
bit kopen[N];                     /* what the kernel does; open means that the permit is fresh */
byte reclaim[N], kreclaim[N];     /* bit of server: accepted, by daemon's order and by the kernel */
bit tripped[N];                   /* not accounted for */
byte barrier[N];                  /* 0, 1 out, 2 out and too old */
byte finished0[N], finished1[N];  /* the START for which reclaim is over */

#define NL 0
#define PR 1
#define CW 2
#define EX 3
#define NONE 4
byte mode[N], wanted[N];
bit cancelling[N];
chan convert = [N] of { byte };   /* the DLM's queue of conversions up */

byte disk_C[N], disk_purged[N], disk_view[N];
#if STORED
typedef stored { byte need, needed, starts; byte start[2], settled[2], lost[2] }
stored disk[N];
#endif
byte quorate_view[N];             /* the last view that was seen quorate */
bit view_durable[N];
short said[N];                    /* once() */
#define SAID_ENFORCING 1
#define SAID_DONE(v)   (2 << (v))
#define SAID_PURGE     8
#define SAID_LIFT      16
#define SAID_DURABLE   32
#define SAID_TAKE(v)   (64 << (v))
#define SAID_STOP      256
#define SAID_RELEASED  512

byte running[2];                  /* where the server's nfsd runs, or ran when it ended by itself */
byte nfsd = 3;                    /* bit of server: it is up */
byte answered[2];                 /* the START that it answered when it started */
bit dropped[2];                   /* ghost: its locks are gone and no lift has covered that (S8) */
byte lifted;                      /* ghost: the last epoch that was lifted (S3) */
bit offered[2];                   /* ghost: reclaim has come to its end since its locks went */
byte used_C;                      /* ghost: the last epoch in which a gate or reclaim was open (S6) */
byte moving = NOBODY;             /* server that is being moved, by */
byte mover, moved;                /* the node that lets it go, so far: */
#define TO_STOP   0
#define MAY_END   1               /* its daemon has said that it may be stopped */
#define ENDED     2
#define LET_GO    3               /* RELEASED is asked for */
#ifdef NO_STOPPING_KEPT
bit forgot;
#endif
bit stop_told;                    /* the START of its stop has been delivered to its host */
byte expelled;                    /* nodes that have left dlm_controld's group */
byte lost_known[N];               /* those that this node has seen missing there */
byte flapped[N];                  /* nodes that quorum's list has named as left, although they are there again */
byte boots;                       /* bit of node: parity of its boots */
bit held;                         /* ghost: a client of server 0 holds a lock (EMPTY) */
byte starts, operator, expels, flaps, clients, failures, leaves, kills, joins, merges, moves, colds, crashes, takes;
bit calm;

bit z, mid; byte x, y;                   /* scratch, 0 between steps */
mtype t_ = NODE_LEFT; byte a_, b_, c_;

/* What is violated, by name: spin quotes the text of an assertion. Never set, in no state. */
#ifndef TELL
hidden
#endif
byte REPLAYED, S1, S2, S3, S4, S6, S7, S8, S9, L1, MODEL;
#define must(property, e) assert(property || (e))

#ifdef TELL
#define tell(...) printf(__VA_ARGS__)
#else
#define tell(...) skip
#endif

/* ---- what a state says ------------------------------------------------------------------------ */

#define LOWEST(r)   ((s[r].members & 1) -> 0 : ((s[r].members & 2) -> 1 : ((s[r].members & 4) -> 2 : NOBODY)))
#ifdef NO_RECOMPUTE      /* the last node out is not computed anew when it has gone */
#define HEIR(r)     (s[r].last_done != NOBODY -> s[r].last_done : LOWEST(r))
#else
#define HEIR(r)     ((s[r].last_done != NOBODY && (s[r].members & B(s[r].last_done))) -> s[r].last_done : LOWEST(r))
#endif
#define PURGER(r)   ((s[r].R != 0 && s[r].need == 0) -> HEIR(r) : NOBODY)
#define HOSTS_NEED(i) (((s[i].need & 1) && s[i].host[0] == i) || ((s[i].need & 2) && s[i].host[1] == i))

#ifdef REPLAY
#define RUNS(i)     (daemon[i] && st[i] == UP)
#else
#define RUNS(i)     (daemon[i] && st[i] != DEAD)
#endif
#ifdef BUG_INQUORATE     /* a node acts without quorum */
#define QUORATE(i)  1
#else
#define QUORATE(i)  (confirmed[i] == NAMED && MANY(live[i]))
#endif
#define ACTING(i)   (synced[i] && QUORATE(i))

/* A live node without a daemon enforces once its permit must have run out. */
#ifdef BUG_PROC_AT_ONCE
#define CLOSED_ITSELF(j) 1
#else
#define CLOSED_ITSELF(j) (!kopen[j] && kreclaim[j] == 0)
#endif
#define ENFORCES(i, j) (!(live[i] & B(j)) || ((s[i].members & B(j)) -> (s[i].enforcing & B(j)) != 0 : CLOSED_ITSELF(j)))
#ifdef BUG_NO_ENFORCING  /* reclaim does not wait for ENFORCING */
#define ALL_ENFORCE(i) 1
#else
#define ALL_ENFORCE(i) (ENFORCES(i, 0) && ENFORCES(i, 1) && ENFORCES(i, 2))
#endif
/* PR on alive.<j>, which the DLM gives once j is fenced. */
#ifdef NO_FENCE
#define ALL_FENCED(i) 1
#else
#ifdef NO_KEEPER         /* the DLM's locks die with the daemon, alive.<node> too */
#define ALIVE_GONE(j) (st[j] == DEAD || !daemon[j])
#else
#define ALIVE_GONE(j) (st[j] == DEAD)
#endif
#define FENCED(i, j) ((live[i] & B(j)) || (ALIVE_GONE(j) && !(s[i].members & B(j))))
#define ALL_FENCED(i) (FENCED(i, 0) && FENCED(i, 1) && FENCED(i, 2))
#endif
#ifdef BUG_NO_LOCK       /* messages alone */
#define HOLDS(i, m) 1
#else
#define HOLDS(i, m) (mode[i] == m && wanted[i] == NONE)
#endif

#ifdef NO_LOST           /* a START does not say that locks are gone for sure */
#define KEPT(r, v) 1
#else
#define KEPT(r, v) (answered[v] >= s[r].lost[v])
#endif
/* Its nfsd has lost nothing: it never stopped, and what it was started for has been done. */
#ifdef REPLAY            /* the trace says it: FINISHED */
#define INTACT(i, v) 0
#elif defined(NO_SETTLED) /* any START but the one that it answered is taken for an operator's */
#define INTACT(i, v) (running[v] == i && (nfsd & B(v)) && !MOVING(i, v) && KEPT(i, v) && answered[v] != s[i].start[v])
#else
#define INTACT(i, v) (running[v] == i && (nfsd & B(v)) && !MOVING(i, v) && KEPT(i, v) && answered[v] <= s[i].settled[v])
#endif
#define FINISHED(i, v) ((v) == 0 -> finished0[i] : finished1[i])
#define MAY_RECLAIM(i, v) (ACTING(i) && s[i].R != 0 && !s[i].lifting && (s[i].need & B(v)) && s[i].host[v] == i && \
    FINISHED(i, v) != s[i].start[v] && !INTACT(i, v) && !MOVING(i, v) && HOLDS(i, CW) && \
    gate[i] == SHUT && gate_at[i] >= s[i].C && ALL_ENFORCE(i) && ALL_FENCED(i))

#ifdef BUG_EARLY_OPEN    /* the purger opens at the sending of LIFT, not at its delivery */
#define LIFTED(i) (s[i].R == 0 || (said[i] & SAID_LIFT))
#else
#define LIFTED(i) (s[i].R == 0)
#endif
#ifdef BUG_NO_BARRIER
#define ACCOUNTED(i) 1
#else
#define ACCOUNTED(i) (!tripped[i])
#endif
/* Quorum's list has it, and has not named it as left since it was heard of last. */
#ifdef NO_FLAPPED        /* what left and is there again counts as there */
#define LIVE(i, j) (live[i] & B(j))
#else
#define LIVE(i, j) ((live[i] & B(j)) && !((flapped[i] & B(j)) && s[i].rings == s[GHOST].rings))
#endif
/* A node died after its daemon; that all know it from NODE_DOWN only, quorum's news may be first. */
#ifdef NO_BURIED
#define BURIED(i) 1
#else
#define BURIED1(i, j) ((LIVE(i, j)) || (s[i].members & B(j)) || (s[i].down & B(j)))
#define BURIED(i) (BURIED1(i, 0) && BURIED1(i, 1) && BURIED1(i, 2))
#endif
#define MAY_OPEN(i) (ACTING(i) && LIFTED(i) && HOLDS(i, PR) && ACCOUNTED(i) && BURIED(i))

/* Another member of this view has echoed: no loss of the token is under way. */
#define UNNOTICED(j) (st[j] == CUT && !(left & B(j)))
#define SILENCE (UNNOTICED(0) || UNNOTICED(1) || UNNOTICED(2))
#ifdef REPLAY            /* the simulator has a clock for this */
#define ECHOED(i) (st[i] == UP)
#elif defined(BUG_NO_ECHO)  /* what comes back to oneself counts as an echo */
#define ECHOED(i) 1
#else
#define ECHOED(i) (st[i] == UP && !SILENCE && s[i].view == s[GHOST].view)
#endif

#ifdef NO_CW_RELEASE     /* a node on which no server NEEDs keeps CW */
#define IDLE(i) (mode[i] == CW -> CW : NL)
#else
#define IDLE(i) NL
#endif
#define WANTED_MODE(i) (LIFTED(i) -> PR : (s[i].need != 0 -> (HOSTS_NEED(i) -> CW : IDLE(i)) : (PURGER(i) == i -> EX : IDLE(i))))

#define FROZEN (left != 0 || !MANY(ring))
#define FITS1(i, j, m) ((i) == (j) || mode[j] == NL || (mode[j] == PR && (m) == PR) || (mode[j] == CW && (m) == CW))
#define FITS(i, m) (FITS1(i, 0, m) && FITS1(i, 1, m) && FITS1(i, 2, m))

/* ---- the replicated state machine (apply.cc) ---------------------------------------------------- */

inline open_epoch(r) {
    if
#ifdef NO_NEW_EPOCH      /* a START after PURGE extends the grace that has been purged */
    :: s[r].R == 0 ->
#else
    :: s[r].R == 0 || s[r].lifting ->
#endif
        s[r].R = s[r].C; s[r].C++; s[r].enforcing = 0; s[r].durable = 0;
        s[r].lifting = 0; s[r].last_done = NOBODY; s[r].needed = 0
    :: else -> s[r].lifting = 0
    fi
}
inline number(r, v) { s[r].starts++; s[r].start[v] = s[r].starts }
inline start_server(r, v) {
    open_epoch(r); number(r, v);
    s[r].need = s[r].need | B(v); s[r].needed = s[r].needed | B(v)
}
inline settle(r, v) {
    s[r].need = s[r].need & ~B(v); s[r].needed = s[r].needed & ~B(v); s[r].settled[v] = s[r].start[v]
}
inline lose_host(r, v) {
    s[r].host[v] = NOBODY;
    if
    :: RECORDED(r, v) -> start_server(r, v); s[r].lost[v] = s[r].start[v]
    :: !(RECORDED(r, v)) && (s[r].need & B(v)) -> settle(r, v); if :: s[r].need == 0 -> s[r].last_done = NOBODY :: else fi
    :: else
    fi
}
#ifdef REPLAY
#define KIND LOST
#else
#define KIND c_
#endif
#ifdef NO_VOID_START     /* an operator's START of a server that NEEDs counts */
#define VOID_START(r) 0
#else
#define VOID_START(r) (KIND == ASKED && (s[r].need & B(b_)))
#endif

inline bury(r, n) {
    s[r].members = s[r].members & ~B(n); s[r].enforcing = s[r].enforcing & ~B(n);
    s[r].durable = s[r].durable & ~B(n); s[r].down = s[r].down | B(n);
    if :: s[r].host[0] == n -> lose_host(r, 0) :: else fi;
    if :: s[r].host[1] == n -> lose_host(r, 1) :: else fi
}

#ifdef NO_START_NUMBER   /* an older DONE counts */
#define SAME_START(r) 1
#else
#define SAME_START(r) (s[r].start[b_] == c_)
#endif
#ifdef BUG_OTHERS_CLEAR  /* a NEED whose host has no daemon is cleared by the lowest node */
#define BY_HOST(r) 1
#else
#define BY_HOST(r) (s[r].host[b_] == NOBODY || s[r].host[b_] == a_)
#endif
#ifdef NO_START_COUNT    /* a PURGE counts although a START came between */
#define SAME_COUNT(r) 1
#else
#define SAME_COUNT(r) (c_ == s[r].starts)
#endif
#ifdef NO_PURGER_CHECK   /* anybody's PURGE counts */
#define NO_NEED(r) 1
#else
#define NO_NEED(r) (PURGER(r) == a_)
#endif

#ifdef REPLAY            /* an operator may lift */
#define COVERED(v) 1
#else
#define COVERED(v) offered[v]
#endif
#ifdef NO_LIFT_DURABLE   /* LIFT counts although a synced member has not said that it has the purge */
#define ANSWERED(r) 1
#else
#define ANSWERED(r) ((s[r].members & ~s[r].durable) == 0)
#endif

/* S4. A joiner whose snapshot came between the sending of LIFT and its delivery may have it on disk later, a dead
 * node never. Nothing is founded from such a database: in every majority there is one with the purge that outranks it. */
#define HAS_PURGED(j, r) (disk_purged[j] >= (r))
#define HAVE_PURGED(r) ((HAS_PURGED(0, r) -> 1 : 0) | (HAS_PURGED(1, r) -> 2 : 0) | (HAS_PURGED(2, r) -> 4 : 0))
#define BEHIND(j, k, r) (!HAS_PURGED(k, r) || disk_view[j] < disk_view[k] || (disk_view[j] == disk_view[k] && disk_C[j] <= disk_C[k]))
#define OUTRANKED(j, r) (HAS_PURGED(j, r) || (BEHIND(j, 0, r) && BEHIND(j, 1, r) && BEHIND(j, 2, r)))

/* The message is t_, from node a_, about b_, with number c_. */
inline apply(r) {
    if
    :: t_ == NODE_LEFT -> s[r].view++; s[r].rings++; s[r].durable = 0; bury(r, b_)
    :: t_ == PROC_LEFT -> s[r].view++; s[r].durable = 0;
        s[r].members = s[r].members & ~B(b_); s[r].enforcing = s[r].enforcing & ~B(b_)
    :: t_ == RING -> s[r].rings++
    :: t_ == JOIN -> s[r].view++; s[r].durable = 0; s[r].rings = s[r].rings + (c_ & 1);
#ifndef NO_BOOT_ID       /* a node that has booted since and whose death nobody has told */
        if :: !(s[r].down & B(b_)) && ((c_ >> 1) & 1) != ((s[r].boot_seen >> b_) & 1) -> bury(r, b_) :: else fi;
#endif
        s[r].boot_seen = (s[r].boot_seen & ~B(b_)) | (((c_ >> 1) & 1) << b_); s[r].down = s[r].down & ~B(b_)
    :: t_ == HELLO ->
        s[r].members = s[r].members & ~B(b_); s[r].enforcing = s[r].enforcing & ~B(b_); s[r].durable = s[r].durable & ~B(b_)
    :: t_ == SYNC -> s[r].members = s[r].members | B(b_); s[r].enforcing = s[r].enforcing & ~B(b_); s[r].durable = s[r].durable & ~B(b_)
    :: t_ == NODE_DOWN ->
        if :: !(s[r].members & B(b_)) && !(s[r].down & B(b_)) -> bury(r, b_) :: else fi
    :: t_ == START ->
        if
        :: VOID_START(r)
        /* a stop in the midst of reclaim: a DONE that is under way is void */
        :: KIND == STOPS && (s[r].need & B(b_)) ->
#ifndef NO_STOP_NUMBER
            number(r, b_)
#else
            skip
#endif
        :: !VOID_START(r) && (RECORDED(r, b_) && !(KIND == STOPS && (s[r].need & B(b_))) || KIND == STOPS && !(s[r].need & B(b_))) ->
            start_server(r, b_);
            if :: KIND == LOST -> s[r].lost[b_] = s[r].start[b_] :: else fi
        :: else
        fi
    :: t_ == TAKE ->
        if
#ifndef NO_RELEASED      /* a server is taken from a node that has not released it */
        :: s[r].host[b_] != NOBODY && s[r].host[b_] != a_
#endif
        :: else ->
            if
            :: s[r].host[b_] == a_ && (s[r].need & B(b_))    /* it hosts it, and may be in the midst of reclaim */
            :: !(s[r].host[b_] == a_ && (s[r].need & B(b_))) && HAS_RECORDS(r, b_) -> y = (s[r].host[b_] != a_);
                s[r].host[b_] = a_; start_server(r, b_);
                if :: y -> s[r].lost[b_] = s[r].start[b_] :: else fi; y = 0
            :: else -> s[r].host[b_] = a_; number(r, b_); s[r].lost[b_] = s[r].start[b_]; settle(r, b_)
            fi
        fi
    :: t_ == RELEASED ->
        if :: s[r].host[b_] == a_ -> lose_host(r, b_) :: else fi
    :: t_ == ENFORCING -> if :: s[r].R != 0 && c_ == s[r].C -> s[r].enforcing = s[r].enforcing | B(a_) :: else fi
    :: t_ == DONE ->
        if :: (s[r].need & B(b_)) && SAME_START(r) && BY_HOST(r) ->
            s[r].need = s[r].need & ~B(b_);                         /* settled at PURGE */
            if :: s[r].need == 0 -> s[r].last_done = a_ :: else fi
        :: else fi
    :: t_ == PURGE ->
        if :: s[r].R != 0 && b_ == s[r].R && !s[r].lifting && SAME_COUNT(r) && NO_NEED(r) ->
            s[r].lifting = 1; s[r].purged = s[r].R; s[r].durable = 0;
            if :: s[r].needed & 1 -> s[r].settled[0] = s[r].start[0] :: else fi;
            if :: s[r].needed & 2 -> s[r].settled[1] = s[r].start[1] :: else fi;
            if
            :: r == GHOST ->
                must(S8, s[r].need == 0);
                must(S3, kreclaim[0] == 0 && kreclaim[1] == 0 && kreclaim[2] == 0); /* nobody reclaims what is being purged */
#if !defined(BUG_NO_LOCK) && !defined(BUG_NO_EX)
                must(S4, mode[a_] == EX)                                            /* by one node, alone */
#endif
            :: else
            fi
        :: else fi
    :: t_ == DURABLE -> if :: s[r].lifting && b_ == s[r].R -> s[r].durable = s[r].durable | B(a_) :: else fi
    :: t_ == LIFT ->
#ifdef NO_LIFT_CHECK     /* a LIFT of another epoch counts */
        if :: s[r].R != 0 ->
#else
        if :: s[r].lifting && b_ == s[r].R && c_ == s[r].starts && PURGER(r) == a_ && ANSWERED(r) ->
#endif
            if :: r == GHOST ->
                must(S4, MANY(HAVE_PURGED(s[r].R)) && OUTRANKED(0, s[r].R) && OUTRANKED(1, s[r].R) && OUTRANKED(2, s[r].R));
                must(S4, (s[r].members & ~HAVE_PURGED(s[r].R)) == 0);   /* no synced member lacks it */
                lifted = s[r].R;
                if :: COVERED(0) -> dropped[0] = 0 :: else fi;
                if :: COVERED(1) -> dropped[1] = 0 :: else fi
            :: else fi;
            s[r].R = 0; s[r].lifting = 0; s[r].durable = 0; s[r].last_done = NOBODY; s[r].needed = 0;
            s[r].enforcing = 0
        :: else fi
    :: t_ == BARRIER -> skip
    :: t_ == RECORDS -> if :: s[r].host[b_] == a_ -> s[r].recordless = s[r].recordless & ~B(b_) :: else fi
    fi
}

/* One message into the stream. Those who are in the group when it is ordered deliver it. */
inline deliver_to_all() {
    tell("%e from %d: %d %d\n", t_, a_, b_, c_);
    apply(GHOST);
    x = 0;
    do
    :: x < N -> if :: daemon[x] && (ring & B(x)) -> must(MODEL, len(q[x]) < QLEN); q[x]!t_, a_, b_, c_ :: else fi; x++
    :: else -> break
    od; x = 0
}

/* What a step says is ordered at its end, in the same atomic step. A message that a node sends under
 * another view than the stream's, or without the state, is void; a node that is cut off delivers to
 * itself for as long as it has not noticed. */
chan out = [10] of { bit, mtype, byte, byte, byte };
#define order(t, a, b, c) out!0, t, a, b, c           /* by the world */
#define mcast(i, t, b, c) out!1, t, i, b, c           /* by a node */
#ifdef BUG_NO_VIEW       /* what was sent under another membership counts */
#define SAME_VIEW(i) 1
#else
#define SAME_VIEW(i) (s[i].view == s[GHOST].view && (s[GHOST].members & B(i)))
#endif
inline flush() {
    do
    :: len(out) > 0 ->
        out?x, t_, a_, b_, c_;
        if
        :: x && st[a_] == CUT -> if :: len(q[a_]) < QLEN - 2 -> q[a_]!t_, a_, b_, c_ :: else fi
        :: x && (st[a_] != UP || !SAME_VIEW(a_))
#ifdef REPLAY
        :: x && st[a_] == UP && SAME_VIEW(a_) && t_ != BARRIER ->
            if
            :: said_by??[eval(a_), eval(t_), eval(b_), eval(c_)]
            :: !(said_by??[eval(a_), eval(t_), eval(b_), eval(c_)]) -> must(MODEL, len(said_by) < 14); said_by!a_, t_, b_, c_
            fi
#endif
        :: else -> deliver_to_all()
        fi
    :: else -> break
    od;
#ifdef REPLAY
    x = 0;               /* what a kernel does now must be what the trace says next */
    do
    :: x < N && st[x] == UP && kopen[x] != told_open[x] && IS(GATE, x) && e_b == kopen[x] -> told_open[x] = kopen[x]; next(); x = 0
    :: x < N && st[x] == UP && kreclaim[x] != told_reclaim[x] && IS(RECLAIM, x) && e_b == kreclaim[x] ->
        told_reclaim[x] = kreclaim[x]; next(); x = 0
    :: x >= N -> break
    :: else -> x++
    od;
    if :: kopen[0] != told_open[0] || kopen[1] != told_open[1] || kopen[2] != told_open[2] || kreclaim[0] != told_reclaim[0] ||
          kreclaim[1] != told_reclaim[1] || kreclaim[2] != told_reclaim[2] -> wrong = 1
    :: else
    fi;
#endif
    x = 0; t_ = NODE_LEFT; a_ = 0; b_ = 0; c_ = 0
}

/* ---- one node (fsm.cc) --------------------------------------------------------------------------- */

inline new_view(i) {
#ifdef REPLAY
    do
    :: said_by??[eval(i), _, _, _] -> said_by??eval(i), _, _, _
    :: !(said_by??[eval(i), _, _, _]) -> break
    od;
#endif
    said[i] = 0; view_durable[i] = 0;
#ifndef NO_LOST_AGAIN    /* a START for a node missing in the DLM that was void is not said again */
    lost_known[i] = 0;
#endif
    barrier[i] = 0
}

inline not_told(i) { /* what it has heard went with its state */
    if :: mover == i -> stop_told = 0 :: else fi;
    flapped[i] = 0
}
inline lose_sync(i) { /* and says HELLO */
    synced[i] = 0; new_view(i); s[i].members = s[i].members & ~B(i); not_told(i);
    if :: st[i] == UP && (s[GHOST].members & B(i)) -> order(HELLO, i, i, 0) :: else fi
}

#ifdef REPLAY
#define TOLD(i) (!synced[i] || q[i]?[BARRIER, _, _, _] || q[i]?[SYNC, _, eval(i), _] || IS(DELIVER, i) && q[i]?[eval(e_type), eval(e_from), eval(e_b), _])
inline told(i) {
    if
    :: !synced[i] || t_ == BARRIER || (t_ == SYNC && b_ == i)
    :: else ->
        if
        :: s[i].C != e_C || s[i].R != e_R || s[i].lifting != e_lifting || s[i].need != e_need || s[i].host[0] != e_host0 ||
           s[i].host[1] != e_host1 || (s[i].R != 0 && (s[i].enforcing & s[i].members) != e_enforcing) ->
            tell("node %d has C %d, R %d, lifting %d, need %d, enforcing %d, hosts %d %d\n", i, s[i].C, s[i].R, s[i].lifting,
                s[i].need, s[i].enforcing & s[i].members, s[i].host[0], s[i].host[1]); wrong = 1
        :: else
        fi;
        next()
    fi
}
#else
#define TOLD(i) 1
#define told(i) skip
#endif
#ifdef NO_COMPARE_LIVE   /* compared only those that are in our group */
#define MISSING(i) (expelled & s[i].members & ~lost_known[i])
#else
#define MISSING(i) (expelled & live[i] & ~lost_known[i])
#endif
inline deliver(i) {
    q[i]?t_, a_, b_, c_;
    y = s[i].starts;
    if
    :: synced[i] && t_ == JOIN && confirmed[i] == PENDING && b_ != i ->
        /* came back before the quorum of the rest was known */
        apply(i); confirmed[i] = ((c_ & 1) -> PENDING : confirmed[i]);
        lose_sync(i)
    :: else ->
        if
        :: synced[i] -> apply(i)
        :: else ->           /* what it needs of this comes with the snapshot */
            if :: t_ == NODE_LEFT || t_ == RING -> s[i].rings++ :: t_ == JOIN -> s[i].rings = s[i].rings + (c_ & 1) :: else fi
        fi;
        if
        :: t_ == NODE_LEFT || t_ == RING -> confirmed[i] = PENDING
        :: t_ == JOIN && (c_ & 1) && confirmed[i] == NAMED -> confirmed[i] = UNNAMED
        :: t_ == BARRIER && a_ == i ->
            if
#if EXPELS
            /* compared with dlm_controld's group; the STARTs must be delivered first: another barrier behind them */
            :: barrier[i] == 1 && (MISSING(i)) != 0 -> x = MISSING(i);
                if :: s[i].host[0] != NOBODY && (x & B(s[i].host[0])) -> mcast(i, START, 0, LOST) :: else fi;
                if :: s[i].host[1] != NOBODY && (x & B(s[i].host[1])) -> mcast(i, START, 1, LOST) :: else fi;
                lost_known[i] = lost_known[i] | x; x = 0
            :: barrier[i] == 1 && (MISSING(i)) == 0 -> tripped[i] = 0
#else
            :: barrier[i] == 1 -> tripped[i] = 0
#endif
            :: else
            fi; barrier[i] = 0
        :: t_ == START && a_ == i && c_ == STOPS && synced[i] -> stop_told = 1
        :: else
        fi;
        if
        :: t_ == NODE_LEFT || t_ == PROC_LEFT || t_ == JOIN -> new_view(i)
#ifndef NO_SAY_AGAIN     /* a LIFT that was void is not said again */
        :: t_ == LIFT && a_ == i && synced[i] && s[i].lifting -> said[i] = said[i] & ~SAID_LIFT  /* it was void */
#endif
        :: t_ == PURGE || t_ == LIFT -> said[i] = said[i] & ~(SAID_DURABLE | SAID_ENFORCING)
        :: s[i].starts != y -> said[i] = 0
        :: else
        fi;
        if :: t_ == NODE_DOWN || t_ == JOIN && ((c_ >> 1) & 1) == ((boots >> b_) & 1) -> flapped[i] = flapped[i] & ~B(b_) :: else fi
    fi;
    told(i);
    y = 0
}

/* All that the model asks when a kernel starts to accept reclaims, and when a gate opens. */
#define PURGED_ON(i, j) (!(s[i].members & live[i] & B(j)) || disk_purged[j] >= s[i].purged)
inline check_reclaim(i, v) {
    must(S1, !kopen[0] && !kopen[1] && !kopen[2]);
    must(S2, (left & ~live[i]) == 0);                      /* those of whose death it can know are fenced */
    must(S3, disk_purged[i] >= lifted && s[i].R > s[i].purged);
    must(S4, PURGED_ON(i, 0) && PURGED_ON(i, 1) && PURGED_ON(i, 2));
    must(S9, (i == 0 || !(kreclaim[0] & B(v))) && (i == 1 || !(kreclaim[1] & B(v))) && (i == 2 || !(kreclaim[2] & B(v))));
    must(S6, s[i].C >= used_C); used_C = s[i].C
}
inline check_open(i) {
    must(S1, kreclaim[0] == 0 && kreclaim[1] == 0 && kreclaim[2] == 0);
#ifndef BUG_NO_LOCK
    must(S7, mode[i] == PR);
#endif
#ifndef REPLAY
    must(S7, MANY(ring) && st[i] == UP && !SILENCE);
#endif
#ifdef STRICT_OPEN
    must(S4, (s[GHOST].members & ~HAVE_PURGED(lifted)) == 0);
#endif
    must(S8, !dropped[0] && !dropped[1]);
    must(S6, s[i].C >= used_C); used_C = s[i].C
}

inline decide_reclaim(i, v) {
    if
    :: MAY_RECLAIM(i, v) && !(reclaim[i] & B(v)) && !(kreclaim[i] & B(v)) && MAYBE_RECLAIM(i, v) ->
        check_reclaim(i, v);
        reclaim[i] = reclaim[i] | B(v); kreclaim[i] = kreclaim[i] | B(v);
        if :: running[v] != i || !(nfsd & B(v)) -> running[v] = i; nfsd = nfsd | B(v); answered[v] = s[i].start[v] :: else fi;
        tell("node %d: reclaim of %d is open\n", i, v)
    :: !MAY_RECLAIM(i, v) && (reclaim[i] & B(v)) -> reclaim[i] = reclaim[i] & ~B(v)
    :: else
    fi
}
inline decide_done(i, v) {
    if
    :: ACTING(i) && s[i].R != 0 && !s[i].lifting && (s[i].need & B(v)) && s[i].host[v] == i &&
       (FINISHED(i, v) == s[i].start[v] || INTACT(i, v)) && !(kreclaim[i] & B(v)) && !(said[i] & SAID_DONE(v)) ->
        said[i] = said[i] | SAID_DONE(v); mcast(i, DONE, v, s[i].start[v])
#ifdef BUG_OTHERS_CLEAR  /* a NEED whose host has no daemon is cleared by the lowest node */
    :: ACTING(i) && s[i].R != 0 && (s[i].need & B(v)) && s[i].host[v] != NOBODY && !(s[i].members & B(s[i].host[v])) &&
       (live[i] & B(s[i].host[v])) && LOWEST(i) == i && !(said[i] & SAID_TAKE(v)) ->
        said[i] = said[i] | SAID_TAKE(v); mcast(i, DONE, v, s[i].start[v])
#endif
    /* A server without a host comes up on the lowest member. */
    :: ACTING(i) && s[i].R != 0 && (s[i].need & B(v)) && s[i].host[v] == NOBODY && LOWEST(i) == i &&
       !(said[i] & SAID_TAKE(v)) ->
        said[i] = said[i] | SAID_TAKE(v);
#ifndef REPLAY
        mcast(i, TAKE, v, 0)
#endif
    :: else
    fi
}

inline ask(i, m) {
    wanted[i] = m;
    if :: m != NL && !(mode[i] == EX) -> convert!i :: else fi
}
inline decide_locks(i) {
    if
    :: !ACTING(i)
#ifndef NO_CANCEL        /* a queued request that is no longer wanted stays in the queue */
    :: ACTING(i) && wanted[i] != NONE && wanted[i] != WANTED_MODE(i) && !cancelling[i] -> cancelling[i] = 1
#endif
    :: ACTING(i) && wanted[i] == NONE && mode[i] != WANTED_MODE(i) ->
        if
        :: mode[i] == PR && gate[i] != SHUT
        :: mode[i] == CW && (reclaim[i] | kreclaim[i]) != 0
        :: mode[i] == EX && WANTED_MODE(i) == PR -> ask(i, PR)
#ifdef NO_DOWN_FIRST     /* PR to CW in place */
        :: mode[i] == PR && gate[i] == SHUT && WANTED_MODE(i) == CW -> ask(i, CW)
#endif
        :: mode[i] == NL -> y = WANTED_MODE(i); ask(i, y); y = 0
        :: else -> ask(i, NL)
        fi
    :: else
    fi
}

#ifdef BUG_NO_EX         /* PURGE without EX */
#define MAY_PURGE(i) 1
#else
#define MAY_PURGE(i) HOLDS(i, EX)
#endif
#ifdef BUG_LIFT_EARLY    /* LIFT does not wait for everyone's disk */
#define ALL_DURABLE(i) 1
#else
#define ALL_DURABLE(i) ((s[i].durable & s[i].members) == s[i].members && MANY(s[i].members))
#endif
#ifdef NO_DURABLE_ENFORCING  /* ENFORCING does not wait for the disk */
#define EPOCH_DURABLE(i) 1
#else
#define EPOCH_DURABLE(i) (view_durable[i] && disk_C[i] == s[i].C && disk_purged[i] >= s[i].purged)
#endif

#ifdef NO_EACH_SAYS      /* NODE_DOWN of a node that is there again is the lowest member's, too, who may have joined since */
#define SAYS_DOWN(i, j) (LOWEST(i) == i)
#else
#define SAYS_DOWN(i, j) (LOWEST(i) == i || (flapped[i] & B(j)))
#endif
inline decide(i) {
    if :: synced[i] && confirmed[i] == NAMED && !QUORATE(i) -> lose_sync(i) :: else fi;
    if :: ACTING(i) && quorate_view[i] != s[i].view -> quorate_view[i] = s[i].view :: else fi;
#ifndef NO_NODE_DOWN     /* the death of a node without a daemon goes unnoticed */
    y = 0;
    do
    :: y < N ->
        if :: ACTING(i) && SAYS_DOWN(i, y) && !(s[i].members & B(y)) && !(s[i].down & B(y)) && !(LIVE(i, y)) &&
              !(s[GHOST].down & B(y)) -> mcast(i, NODE_DOWN, y, 0)
        :: else fi; y++
    :: else -> break
    od; y = 0;
#endif
    if
    :: gate[i] == OPEN && (!MAY_OPEN(i) || !kopen[i]) || gate_at[i] < s[i].C ->
        gate[i] = CLOSING; reclaim[i] = 0;
        gate_at[i] = (s[i].C > gate_at[i] -> s[i].C : gate_at[i])
    :: else
    fi;
    if
    :: ACTING(i) && s[i].R != 0 && !s[i].lifting && !(s[i].enforcing & B(i)) && !(said[i] & SAID_ENFORCING) &&
       gate[i] == SHUT && gate_at[i] >= s[i].C && (kreclaim[i] & ~reclaim[i]) == 0 && EPOCH_DURABLE(i) ->
        said[i] = said[i] | SAID_ENFORCING; mcast(i, ENFORCING, 0, s[i].C)
    :: else
    fi;
#if MOVES
    if
    :: moving == 0 && mover == i && moved == TO_STOP && ACTING(i) && !stop_told && !(said[i] & SAID_STOP) ->
        said[i] = said[i] | SAID_STOP; mcast(i, START, 0, STOPS)
    :: moving == 0 && mover == i && moved == LET_GO && ACTING(i) && s[i].host[0] == i && !(said[i] & SAID_RELEASED) ->
        said[i] = said[i] | SAID_RELEASED; mcast(i, RELEASED, 0, 0)
    :: moving == 0 && mover == i && moved == LET_GO && synced[i] && s[i].host[0] != i -> moving = NOBODY; mover = 0; moved = 0
    :: else
    fi;
#endif
    decide_done(i, 0); decide_done(i, 1);
    decide_reclaim(i, 0); decide_reclaim(i, 1);
    decide_locks(i);
    if
    :: ACTING(i) && PURGER(i) == i && MAY_PURGE(i) && view_durable[i] && !s[i].lifting && !(said[i] & SAID_PURGE) ->
        said[i] = said[i] | SAID_PURGE; mcast(i, PURGE, s[i].R, s[i].starts)
    :: ACTING(i) && PURGER(i) == i && MAY_PURGE(i) && view_durable[i] && s[i].lifting && ALL_DURABLE(i) && !(said[i] & SAID_LIFT) ->
        said[i] = said[i] | SAID_LIFT; mcast(i, LIFT, s[i].R, s[i].starts)
    :: else
    fi;
    if
    :: ACTING(i) && view_durable[i] && s[i].lifting && !(s[i].durable & B(i)) && disk_purged[i] >= s[i].purged &&
       !(said[i] & SAID_DURABLE) ->
        said[i] = said[i] | SAID_DURABLE; mcast(i, DURABLE, s[i].R, 0)
    :: else
    fi;
    if
    :: ACTING(i) && tripped[i] && barrier[i] == 0 && s[i].view == s[GHOST].view -> barrier[i] = 1; mcast(i, BARRIER, 0, 0)
    :: else
    fi
}

/* ---- the inputs of one node ------------------------------------------------------------------------ */

#define UNSAVED(i) (!view_durable[i] || disk_C[i] != s[i].C || disk_purged[i] != s[i].purged || disk_view[i] != quorate_view[i] || STARTS_UNSAVED(i))
#if STORED
#define HALFWAY(i) (s[i].lifting -> 0 : s[i].needed) /* who has reclaimed has it, of the others nothing is decided */
#define STARTS_UNSAVED(i) (disk[i].need != s[i].need || disk[i].needed != HALFWAY(i) || disk[i].starts != s[i].starts || disk[i].settled[0] != s[i].settled[0] || \
    disk[i].settled[1] != s[i].settled[1])
inline save_starts(i) {
    disk[i].need = s[i].need; disk[i].needed = HALFWAY(i); disk[i].starts = s[i].starts; disk[i].start[0] = s[i].start[0]; disk[i].start[1] = s[i].start[1];
    disk[i].settled[0] = s[i].settled[0]; disk[i].settled[1] = s[i].settled[1]; disk[i].lost[0] = s[i].lost[0]; disk[i].lost[1] = s[i].lost[1]
}
inline load_starts(i) {
    s[i].need = disk[i].need; s[i].needed = disk[i].needed; s[i].starts = disk[i].starts; s[i].start[0] = disk[i].start[0]; s[i].start[1] = disk[i].start[1];
    s[i].settled[0] = disk[i].settled[0]; s[i].settled[1] = disk[i].settled[1]; s[i].lost[0] = disk[i].lost[0]; s[i].lost[1] = disk[i].lost[1]
}
#else
#define STARTS_UNSAVED(i) 0
#define save_starts(i) skip
inline load_starts(i) {
    s[i].need = 0; s[i].starts = 0; s[i].start[0] = 0; s[i].start[1] = 0; s[i].settled[0] = 0; s[i].settled[1] = 0; s[i].lost[0] = 0; s[i].lost[1] = 0
}
#endif

/* What a prompt node has to do comes before everything else, in this order. */
#define PROMPT(i)    (!(SLOW & B(i)) && RUNS(i))
#define KERNEL(i)    (gate[i] == CLOSING || reclaim[i] != kreclaim[i])
#define DISK(i)      (ACTING(i) && UNSAVED(i))
#define DOWN(i)      (!FROZEN && wanted[i] != NONE && (wanted[i] == NL || mode[i] == EX))
#define NEWS(i)      (st[i] == UP && confirmed[i] != NAMED && s[i].rings == s[GHOST].rings && len(q[i]) == 0)
#ifdef REPLAY
#define AFTER_KERNEL(i) 1
#define AFTER_DISK(i)   1
#define AFTER_STREAM(i) 1
#define AFTER_NODES     provided (!wrong)
#define AFTER_LOWER     provided (!wrong)
#elif SLOW == 7
#define AFTER_KERNEL(i) 1
#define AFTER_DISK(i)   1
#define AFTER_STREAM(i) 1
#define AFTER_NODES
#define AFTER_LOWER
#else
#define AFTER_KERNEL(i) !(PROMPT(i) && KERNEL(i))
#define AFTER_DISK(i)   !(PROMPT(i) && (KERNEL(i) || DISK(i) || DOWN(i)))
#define URGENT(i)       (PROMPT(i) && (KERNEL(i) || DISK(i) || DOWN(i) || NEWS(i) || len(q[i]) > 0))
#define AFTER_STREAM(i) !URGENT(i)
#define AFTER_NODES     provided (mid || !URGENT(0) && !URGENT(1) && !URGENT(2))
#define AFTER_LOWER     provided (mid || (_pid == 1 && (URGENT(0) || !URGENT(1) && !URGENT(2))) || \
    (_pid == 2 && !URGENT(0) && (URGENT(1) || !URGENT(2))) || (_pid == 3 && !URGENT(0) && !URGENT(1)))
#endif

proctype node(byte i) AFTER_LOWER {
end: do
    :: atomic {
        if
        :: d_step { RUNS(i) && len(q[i]) > 0 && AFTER_DISK(i) && TOLD(i) -> mid = 1; deliver(i) }
        /* quorum's news, on a descriptor of its own */
        :: d_step { RUNS(i) && NEWS(i) && AFTER_DISK(i) -> mid = 1; confirmed[i] = NAMED; live[i] = ring }
        /* the kernel has closed what it was told to close */
        :: d_step { RUNS(i) && gate[i] == CLOSING -> mid = 1; kopen[i] = 0; kreclaim[i] = 0; gate[i] = SHUT }
        :: d_step { RUNS(i) && gate[i] != CLOSING && reclaim[i] != kreclaim[i] -> mid = 1; kreclaim[i] = reclaim[i] }
#ifdef REPLAY
        :: d_step { RUNS(i) && IS(FINISHED_, i) -> mid = 1;
            if :: e_b == 0 -> finished0[i] = s[i].start[0] :: else -> finished1[i] = s[i].start[1] fi; next() }
        :: d_step { RUNS(i) && IS(STOPPING, i) -> mid = 1; stopping[i] = e_b; next() }
#else
        /* all have reclaimed, or the deadline passed, or an operator lifts */
        :: d_step { RUNS(i) && (reclaim[i] & 1) && finished0[i] != s[i].start[0] && AFTER_STREAM(i) -> mid = 1;
            finished0[i] = s[i].start[0]; offered[0] = (s[i].start[0] == s[GHOST].start[0] -> 1 : offered[0]) }
        :: d_step { RUNS(i) && (reclaim[i] & 2) && finished1[i] != s[i].start[1] && AFTER_STREAM(i) -> mid = 1;
            finished1[i] = s[i].start[1]; offered[1] = (s[i].start[1] == s[GHOST].start[1] -> 1 : offered[1]) }
#endif
        :: d_step { RUNS(i) && DISK(i) && AFTER_KERNEL(i) -> mid = 1;
            disk_C[i] = s[i].C; disk_purged[i] = s[i].purged; disk_view[i] = quorate_view[i]; view_durable[i] = 1; save_starts(i);
            tell("node %d: on disk: C %d, purged %d, view %d\n", i, disk_C[i], disk_purged[i], disk_view[i]) }
        /* the lock table */
        :: d_step { RUNS(i) && DOWN(i) && AFTER_KERNEL(i) -> mid = 1; mode[i] = wanted[i]; wanted[i] = NONE; cancelling[i] = 0 }
        :: d_step { RUNS(i) && !FROZEN && wanted[i] != NONE && convert?[eval(i)] && FITS(i, wanted[i]) && AFTER_STREAM(i) -> mid = 1;
            convert?eval(i); mode[i] = wanted[i]; wanted[i] = NONE; cancelling[i] = 0 }
        :: d_step { RUNS(i) && !FROZEN && cancelling[i] && convert??[eval(i)] && AFTER_STREAM(i) -> mid = 1;
            convert??eval(i); wanted[i] = NONE; cancelling[i] = 0 }
        /* a proof of fencing, or the end of somebody's permit */
        :: d_step { RUNS(i) && AFTER_STREAM(i) && (!(kreclaim[i] & 1) && MAY_RECLAIM(i, 0) && MAYBE_RECLAIM(i, 0) ||
           !(kreclaim[i] & 2) && MAY_RECLAIM(i, 1) && MAYBE_RECLAIM(i, 1)) -> mid = 1; skip }
#if EXPELS || FLAPS      /* else a message comes at the same time */
        :: d_step { RUNS(i) && ACTING(i) && tripped[i] && barrier[i] == 0 && s[i].view == s[GHOST].view && AFTER_STREAM(i) -> mid = 1; skip }  /* it hears of its trip */
#endif
        /* an echo: the gate may open */
        :: d_step { RUNS(i) && MAY_OPEN(i) && gate[i] == SHUT && gate_at[i] >= s[i].C && ECHOED(i) && AFTER_STREAM(i) && MAYBE_OPEN(i) -> mid = 1;
            check_open(i); gate[i] = OPEN; kopen[i] = 1; tell("node %d: open\n", i) }
        /* the permit runs out while the token is lost */
        :: d_step { RUNS(i) && kopen[i] && (SILENCE || TOLD_CLOSE(i)) && AFTER_STREAM(i) -> mid = 1; kopen[i] = 0 }
        fi;
        d_step { decide(i) }
        d_step { flush(); mid = 0 }
    }
od
}

/* ---- the world ------------------------------------------------------------------------------------- */

inline drop(v) { dropped[v] = ((v) == 0 && EMPTY -> held : 1); offered[v] = 0; held = ((v) == 0 -> 0 : held) }
inline drop_locks(n) { /* dlm_controld drops the POSIX locks of what ran there */
#ifndef BUG_NO_TRIPWIRE
    x = 0;
    do
    :: x < N ->
        if :: (ring & B(x)) && st[x] == UP -> kopen[x] = 0; tripped[x] = daemon[x]; barrier[x] = (barrier[x] -> 2 : 0) :: else fi; x++
    :: else -> break
    od; x = 0;
#endif
    if :: running[0] == n -> drop(0) :: else fi;
    if :: running[1] == n -> drop(1) :: else fi;
    must(S8, !(dropped[0] || dropped[1]) || (!kopen[0] && !kopen[1] && !kopen[2]))
}
inline named_left(n) {
    x = 0;
    do :: x < N -> flapped[x] = (daemon[x] && (ring & B(x)) -> flapped[x] | B(n) : flapped[x]); x++ :: else -> break od; x = 0
}
inline lose_node(n) { /* the ring goes on without it */
    ring = ring & ~B(n); left = left | B(n);
    drop_locks(n);
    if
    :: daemon[n] -> order(NODE_LEFT, NOBODY, n, WITH_RECORDS)
    :: else ->
#if FLAPS && !defined(NO_LEFT_KEPT)  /* only what left and is there in one and the same news counts */
        named_left(n);
#endif
        order(RING, NOBODY, n, 0)
    fi
}
inline empty_queue(n) { do :: len(q[n]) > 0 -> q[n]?_, _, _, _ :: len(q[n]) == 0 -> break od }
inline no_requests(n) {
    if :: convert??[eval(n)] -> convert??eval(n) :: else fi;
    wanted[n] = NONE; cancelling[n] = 0
}
inline no_daemon(n) {
    daemon[n] = 0; synced[n] = 0; empty_queue(n); new_view(n); no_requests(n);
    reclaim[n] = 0; finished0[n] = 0; finished1[n] = 0; confirmed[n] = PENDING; live[n] = 0; tripped[n] = 0;
    s[n].view = 0; s[n].rings = 0; s[n].R = 0; s[n].lifting = 0; s[n].members = 0; s[n].down = 0; s[n].enforcing = 0;
    s[n].durable = 0; s[n].needed = 0; s[n].host[0] = NOBODY; s[n].host[1] = NOBODY; s[n].last_done = NOBODY; s[n].boot_seen = 0;
    load_starts(n); lost_known[n] = 0; not_told(n);
#ifdef NO_STOPPING_KEPT
    if :: mover == n -> forgot = 1 :: else fi;
#endif
    s[n].C = disk_C[n]; s[n].purged = disk_purged[n]; quorate_view[n] = disk_view[n];
    gate[n] = CLOSING; gate_at[n] = 0
}
inline no_stop(n) { if :: mover == n && moving != NOBODY -> moving = NOBODY; mover = 0; moved = 0 :: else fi }
inline no_node(n) {
    no_stop(n);
    st[n] = DEAD; left = left & ~B(n); ring = ring & ~B(n); no_daemon(n);
    kopen[n] = 0; kreclaim[n] = 0; mode[n] = NL;
    if :: running[0] == n -> running[0] = NOBODY :: else fi;
    if :: running[1] == n -> running[1] = NOBODY :: else fi
}
inline copy(to, from) {
    s[to].view = s[from].view; s[to].rings = s[from].rings; s[to].C = s[from].C; s[to].R = s[from].R;
    s[to].purged = s[from].purged; s[to].lifting = s[from].lifting; s[to].members = s[from].members; s[to].down = s[from].down;
    s[to].enforcing = s[from].enforcing; s[to].durable = s[from].durable; s[to].need = s[from].need; s[to].needed = s[from].needed;
    s[to].host[0] = s[from].host[0]; s[to].host[1] = s[from].host[1]; s[to].start[0] = s[from].start[0];
    s[to].start[1] = s[from].start[1]; s[to].starts = s[from].starts; s[to].last_done = s[from].last_done;
    s[to].settled[0] = s[from].settled[0]; s[to].settled[1] = s[from].settled[1];
    s[to].lost[0] = s[from].lost[0]; s[to].lost[1] = s[from].lost[1]; s[to].boot_seen = s[from].boot_seen; s[to].recordless = s[from].recordless
}
inline join(n, new_ring) {
    order(JOIN, NOBODY, n, new_ring + ((boots & B(n)) -> 2 : 0));
    confirmed[n] = UNNAMED; s[n].rings = s[GHOST].rings
}

/* What is not a fault, and so comes about in the end. */
inline more(i) { /* the step of a node, if it was one, and what was said */
    if :: z -> d_step { decide(i); z = 0 } :: else fi;
    d_step { flush(); mid = 0 }
}

proctype nature(byte i) AFTER_NODES {
end: do
    :: atomic { if
#ifdef REPLAY
    :: d_step { IS(LOST_, i) && st[i] == CUT && (ring & B(i)) -> mid = 1; lose_node(i); next() }
#else
    /* the ring loses a silent node: later than every permit of its members */
#ifdef BUG_LONG_PERMIT
    :: d_step { st[i] == CUT && (ring & B(i)) -> mid = 1; lose_node(i) }
#else
    :: d_step { st[i] == CUT && (ring & B(i)) && !kopen[0] && !kopen[1] && !kopen[2] -> mid = 1; lose_node(i) }
#endif
#endif
    /* a node without a daemon falls silent with its permit running: the kernel closes alone */
    :: d_step { !daemon[i] && st[i] != DEAD && (kopen[i] || kreclaim[i] != 0) -> mid = 1; kopen[i] = 0; kreclaim[i] = 0 }
#ifdef REPLAY
    :: d_step { e_kind == FENCED_ && st[i] == CUT && (left & B(i)) && MANY(ring) -> mid = 1; no_node(i) }
#else
    /* it notices that it is alone */
    :: d_step { st[i] == CUT && (left & B(i)) && daemon[i] && synced[i] -> mid = 1; empty_queue(i); confirmed[i] = PENDING;
#ifndef BUG_INQUORATE
        synced[i] = 0;
#endif
        new_view(i); z = 1 }
    /* fencing */
    :: d_step { st[i] == CUT && (left & B(i)) && MANY(ring) -> mid = 1; no_node(i) }
#endif
    /* the keeper of the locks gives up PR and EX of a daemon that is gone, not CW */
    :: d_step { !daemon[i] && st[i] == UP && !FROZEN && (mode[i] == PR || mode[i] == EX) && !kopen[i] -> mid = 1; mode[i] = NL }
    /* the lowest synced member, having delivered all so far, answers HELLO with a snapshot */
#ifdef REPLAY
    :: d_step { IS(ORDER, NOBODY) && e_type == SYNC && e_b == i && RUNS(i) && !synced[i] && !(s[GHOST].members & B(i)) && LOWEST(GHOST) != NOBODY -> mid = 1;
            next();
#else
    :: d_step { RUNS(i) && st[i] == UP && !synced[i] && (ring & B(i)) && !(s[GHOST].members & B(i)) && LOWEST(GHOST) != NOBODY &&
       RUNS(LOWEST(GHOST)) && synced[LOWEST(GHOST)] && len(q[LOWEST(GHOST)]) == 0 && st[LOWEST(GHOST)] == UP -> mid = 1;
#endif
            order(SYNC, NOBODY, i, 0); z = 1;
            /* a change of the ring that it had not heard of goes with the queue; quorum's news of it comes all the same */
            if :: s[i].rings != s[GHOST].rings && confirmed[i] == NAMED -> confirmed[i] = UNNAMED :: else fi;
            empty_queue(i);
            copy(i, GHOST); synced[i] = 1; new_view(i); quorate_view[i] = disk_view[i];
#ifdef NO_JOIN_DURABLE   /* a joiner does not answer a PURGE that it has by snapshot */
            if :: s[i].lifting -> said[i] = said[i] | SAID_DURABLE :: else fi;
#endif
            skip }
#ifndef REPLAY
    /* daemon_timeout: a node without daemon that holds up the grace is fenced */
    :: d_step { st[i] == UP && !daemon[i] && s[GHOST].R != 0 && !kopen[i] && LOWEST(GHOST) != NOBODY &&
       (((s[GHOST].need & 1) && s[GHOST].host[0] == i) || ((s[GHOST].need & 2) && s[GHOST].host[1] == i)
#ifndef NO_LIFT_FENCE    /* its keeper may still hold CW: while nobody NEEDs, too */
        || s[GHOST].need == 0
#endif
       ) -> mid = 1; st[i] = CUT }
#endif
    fi; more(i) }
od
}

/* Nobody has the state: the best database founds it (sync.cc). */
#define SAID_HELLO(j) (!daemon[j] || !(ring & B(j)) || (!synced[j] && len(q[j]) == 0 && confirmed[j] == NAMED))
#define IN_GROUP(j) (daemon[j] && (ring & B(j)))
#define GROUP ((IN_GROUP(0) -> 1 : 0) | (IN_GROUP(1) -> 2 : 0) | (IN_GROUP(2) -> 4 : 0))
#define BETTER(j, k) (quorate_view[j] > quorate_view[k] || (quorate_view[j] == quorate_view[k] && \
    (s[j].C > s[k].C || (s[j].C == s[k].C && s[j].purged > s[k].purged))))
#define RECLAIMING(r, v) (running[v] != s[r].host[v] || answered[v] >= s[r].lost[v] && answered[v] > s[r].settled[v])
#define HELD_BY(r, v)    (s[r].host[v] != NOBODY && (running[v] != s[r].host[v] || answered[v] >= s[r].lost[v] && answered[v] <= s[r].settled[v]))
inline found_server(v) { /* b_: those that NEED by the best database, or are done and not purged */
    if
    :: !RECORDED(GHOST, v)
    /* half of its clients may have reclaimed and will not do it again; the others still may */
    :: RECORDED(GHOST, v) && (b_ & B(v)) && s[GHOST].host[v] != NOBODY && RECLAIMING(GHOST, v) -> open_epoch(GHOST); number(GHOST, v);
        s[GHOST].need = s[GHOST].need | B(v); s[GHOST].needed = s[GHOST].needed | B(v)
    :: else -> y = HELD_BY(GHOST, v); start_server(GHOST, v);
        if :: !y -> s[GHOST].lost[v] = s[GHOST].start[v] :: else fi; y = 0
    fi
}
inline found(best) {
    y = s[GHOST].view; x = s[GHOST].rings;
    if :: best != GHOST -> copy(GHOST, best) :: else fi;
    b_ = (s[GHOST].lifting -> 0 : s[GHOST].needed); s[GHOST].boot_seen = boots;
#ifndef NO_MAX_STARTS    /* the numbers of STARTs go on from the best database's */
    a_ = 0;
    do
    :: a_ < N -> if :: IN_GROUP(a_) && s[a_].starts > s[GHOST].starts -> s[GHOST].starts = s[a_].starts :: else fi; a_++
    :: else -> break
    od; a_ = 0;
#endif
    s[GHOST].view = y + 1; s[GHOST].rings = x;
    s[GHOST].members = GROUP; s[GHOST].down = 0; s[GHOST].enforcing = 0; s[GHOST].durable = 0;
    s[GHOST].need = 0; s[GHOST].needed = 0; s[GHOST].R = 0; s[GHOST].lifting = 0; s[GHOST].last_done = NOBODY;
    y = 0; x = 0;
    do
    :: x < 2 ->
        if
        :: running[x] != NOBODY && (nfsd & B(x)) && (GROUP & B(running[x])) -> s[GHOST].host[x] = running[x]
        :: else -> if :: s[GHOST].host[x] != NOBODY && (GROUP & B(s[GHOST].host[x])) -> s[GHOST].host[x] = NOBODY :: else fi
        fi; x++
    :: else -> break
    od;
    found_server(0);
#if HOST1 != NOBODY
    found_server(1);
#endif
    b_ = 0;
    tell("founded from %d: C %d\n", best, s[GHOST].C);
    x = 0;
    do
    :: x < N -> if :: GROUP & B(x) -> copy(x, GHOST); synced[x] = 1; new_view(x) :: else fi; x++
    :: else -> break
    od; x = 0; y = 0
}
proctype founding() AFTER_NODES {
    byte b = 0;
end: do
    :: atomic { s[GHOST].members == 0 && MANY(GROUP) && SAID_HELLO(0) && SAID_HELLO(1) && SAID_HELLO(2) ->
        d_step {
            mid = 1; b = (IN_GROUP(0) -> 0 : 1);
#ifdef BUG_STALE_DATABASE  /* whichever is the highest */
            b = (IN_GROUP(2) -> 2 : 1);
#else
            if :: IN_GROUP(1) && BETTER(1, b) -> b = 1 :: else fi;
            if :: IN_GROUP(2) && BETTER(2, b) -> b = 2 :: else fi;
#endif
            found(b); b = 0
        }
        /* a step of each: they all delivered the founding snapshot */
        if :: synced[0] -> d_step { decide(0) } :: else fi;
        if :: synced[1] -> d_step { decide(1) } :: else fi;
        if :: synced[2] -> d_step { decide(2) } :: else fi;
        d_step { flush(); mid = 0 } }
od
}

#define FAULTS !calm
inline fail(i)  { st[i] = CUT; tell("node %d falls silent\n", i) }
inline leave(i) { tell("node %d leaves\n", i); st[i] = CUT; kopen[i] = 0; kreclaim[i] = 0; lose_node(i) }
#ifdef KILL_IDLE         /* a daemon dies only while its node holds nothing */
#define MAY_DIE(i) (mode[i] == NL)
#else
#define MAY_DIE(i) 1
#endif
inline kill(i) {
    tell("daemon of %d dies\n", i);
    no_daemon(i);
#ifdef NO_KEEPER         /* the DLM's locks die with the daemon */
    mode[i] = NL;
#endif
    order(PROC_LEFT, NOBODY, i, 0)
}
inline restart(i) { /* a daemon starts: attaching closes the gate */
    tell("daemon of %d starts\n", i);
    daemon[i] = 1; kopen[i] = 0; kreclaim[i] = 0; wanted[i] = NONE;
    join(i, 0)
}
inline boot(i) { tell("node %d boots\n", i); boots = boots ^ B(i); st[i] = UP; ring = ring | B(i); daemon[i] = 1; join(i, 1) }
inline flap(i) { /* before the ring has lost it */
    tell("node %d reboots at once\n", i);
    no_stop(i); mode[i] = NL; kopen[i] = 0; kreclaim[i] = 0; drop_locks(i);
    if :: running[0] == i -> running[0] = NOBODY :: else fi;
    if :: running[1] == i -> running[1] = NOBODY :: else fi;
    boots = boots ^ B(i); named_left(i);
    order(RING, NOBODY, i, 0)
}
inline expel(i) { tell("node %d leaves the DLM\n", i); expelled = expelled | B(i); drop_locks(i) }
inline merge(i) { /* it comes back without having left */
    tell("node %d merges\n", i);
    st[i] = UP; left = left & ~B(i); ring = ring | B(i);
#ifdef BUG_NO_VIEW       /* what it said while it was cut off arrives now, as if it were news */
    do
    :: len(q[i]) > 0 -> q[i]?t_, a_, b_, c_; if :: a_ == i -> order(t_, a_, b_, c_) :: else fi
    :: else -> break
    od; t_ = NODE_LEFT; a_ = 0; b_ = 0; c_ = 0;
#else
    empty_queue(i);
#endif
#ifdef BUG_MERGE_KEEPS   /* it keeps its state */
    order(JOIN, NOBODY, i, 1); empty_queue(i);
    if :: synced[i] -> order(SYNC, NOBODY, i, 0); empty_queue(i); s[i].view = s[GHOST].view; s[i].members = s[GHOST].members;
        s[i].rings = s[GHOST].rings :: else -> s[i].rings = s[GHOST].rings fi;
    confirmed[i] = UNNAMED;
#else
    if :: synced[i] -> synced[i] = 0; new_view(i); s[i].members = 0; not_told(i) :: else fi;
    join(i, 1);
#endif
    tripped[i] = 1; z = 1
}

proctype faults(byte i) AFTER_NODES { /* of one node */
end: do
    :: atomic { if
#ifdef REPLAY
    :: d_step { IS(OFF, i) && st[i] == UP -> mid = 1; fail(i); kopen[i] = 0; kreclaim[i] = 0; told_open[i] = 0; told_reclaim[i] = 0; stopping[i] = 0; next() }
    :: d_step { IS(KILL, i) && st[i] == UP && daemon[i] -> mid = 1; kill(i); stopping[i] = 0; next() }
    :: d_step { IS(DAEMON, i) && st[i] == UP && !daemon[i] -> mid = 1; restart(i); next() }
#else
    :: d_step { FAULTS && failures < FAILURES && st[i] == UP -> mid = 1; failures++; fail(i) }
    :: d_step { FAULTS && leaves < LEAVES && st[i] == UP && daemon[i] -> mid = 1; leaves++; leave(i) }
    :: d_step { FAULTS && kills < KILLS && st[i] == UP && daemon[i] && MAY_DIE(i) -> mid = 1; kills++; kill(i) }
#if FLAPS
    :: d_step { FAULTS && flaps < FLAPS && st[i] == UP && !daemon[i] && !SILENCE -> mid = 1; flaps++; flap(i) }
    :: d_step { FAULTS && flaps < FLAPS && st[i] == DEAD && !SILENCE -> mid = 1; flaps++; tell("node %d boots without daemon\n", i);
        boots = boots ^ B(i); st[i] = UP; ring = ring | B(i); order(RING, NOBODY, i, 0) }
#endif
#if EXPELS
    :: d_step { FAULTS && expels < EXPELS && st[i] == UP && daemon[i] && !(expelled & B(i)) -> mid = 1; expels++; expel(i) }
#endif
    :: d_step { FAULTS && joins < JOINS && st[i] == UP && !daemon[i] && !SILENCE -> mid = 1; joins++; restart(i) }
    :: d_step { FAULTS && joins < JOINS && st[i] == DEAD && !SILENCE -> mid = 1; joins++; boot(i) }
    :: d_step { FAULTS && merges < MERGES && st[i] == CUT && (left & B(i)) && daemon[i] && !SILENCE -> mid = 1; merges++; merge(i) }
#endif
    fi; more(i) }
od
}
#define IN_THIS_GRACE(i) (!synced[i] || s[i].R != 0 && s[i].C == s[GHOST].C)
#define STOP_COVERED(i) (s[i].R != 0 && stop_told && (s[i].need & 1) && ALL_ENFORCE(i))
#ifdef NO_EMPTY_STOP     /* a server without records is stopped at once */
#define MAY_STOP(i) (STOP_COVERED(i) || (s[i].recordless & 1))
#else
#define MAY_STOP(i) STOP_COVERED(i)
#endif
proctype people() AFTER_NODES {
end: do
    :: atomic { if
#ifdef REPLAY
    :: d_step { e_kind == END -> mid = 1; must(REPLAYED, 0) }
    :: d_step { e_kind == LOCK && mode[e_node] == e_b -> mid = 1; next() }
    :: d_step { e_kind == FENCED_ && left == 0 -> mid = 1; next() }
    /* what people may ask for at any time; a server without a host is nobody's */
    :: d_step { e_kind == ORDER && (e_type == START || e_type == TAKE || e_type == RELEASED ||
        e_type == DONE && s[GHOST].host[e_b] == NOBODY) && (s[GHOST].members & B(e_from)) && st[e_from] == UP -> mid = 1;
        if
        :: e_type == RELEASED && (e_c & B(e_b)) -> running[e_b] = NOBODY; dropped[e_b] = 1; must(S8, !kopen[0] && !kopen[1] && !kopen[2])
        :: else
        fi;
        if :: e_type == DONE -> order(DONE, e_from, e_b, s[GHOST].start[e_b]) :: else -> order(e_type, e_from, e_b, e_c) fi;
        next() }
    /* what a node has said by the rules */
    :: d_step { e_kind == ORDER && said_by??[eval(e_from), eval(e_type), eval(e_b), _] && st[e_from] == UP && SAME_VIEW(e_from) -> mid = 1;
        said_by??eval(e_from), eval(e_type), eval(e_b), c_;
        if :: e_type == NODE_DOWN -> c_ = e_c :: else fi;
        order(e_type, e_from, e_b, c_); c_ = 0; next() }
#else
    :: d_step { FAULTS && starts < STARTS && LOWEST(GHOST) != NOBODY && st[LOWEST(GHOST)] == UP -> mid = 1; starts++; order(START, LOWEST(GHOST), 0, LOST) }
#if HOST1 != NOBODY
    :: d_step { FAULTS && starts < STARTS && LOWEST(GHOST) != NOBODY && st[LOWEST(GHOST)] == UP -> mid = 1; starts++; order(START, LOWEST(GHOST), 1, LOST) }
#endif
#if OPERATOR
    :: d_step { FAULTS && operator < OPERATOR && LOWEST(GHOST) != NOBODY && st[LOWEST(GHOST)] == UP -> mid = 1; operator++; order(START, LOWEST(GHOST), 0, ASKED) }
#endif
#if CLIENTS
    /* a client is recorded; it takes a lock */
    :: d_step { FAULTS && clients < CLIENTS && (s[GHOST].recordless & 1) && running[0] != NOBODY && (nfsd & 1) && RUNS(running[0]) && ACTING(running[0]) &&
       st[running[0]] == UP && SAME_VIEW(running[0]) -> mid = 1; clients++; order(RECORDS, running[0], 0, 0) }
    :: d_step { FAULTS && !held && running[0] != NOBODY && (nfsd & 1) && kopen[running[0]] && daemon[running[0]] && !(s[running[0]].recordless & 1) -> mid = 1;
        held = 1; tell("a client of 0 has a lock\n") }
#endif
#if MOVES
    /* a move: START; all enforce; the server's kernel closes it; RELEASED; another node takes it */
    :: d_step { FAULTS && moves < MOVES && moving == NOBODY && running[0] != NOBODY && (nfsd & 1) && RUNS(running[0]) && ACTING(running[0]) &&
       s[running[0]].host[0] == running[0] -> mid = 1; moves++; moving = 0; mover = running[0]; moved = TO_STOP; stop_told = 0;
            tell("0 is to be stopped\n"); said[mover] = said[mover] & ~SAID_RELEASED | SAID_STOP; y = mover; mcast(y, START, 0, STOPS); y = 0 }
    :: d_step { moving == 0 && moved == TO_STOP && RUNS(mover) && ACTING(mover) && MAY_STOP(mover) && !(kreclaim[mover] & 1) -> mid = 1;
        moved = MAY_END; stop_told = 0 }
    :: d_step { moving == 0 && moved == MAY_END -> mid = 1;
        tell("nfsd of 0 is stopped\n"); drop(0); must(S8, !dropped[0] || (!kopen[0] && !kopen[1] && !kopen[2])); running[0] = NOBODY; moved = ENDED }
    :: d_step { moving == 0 && moved == ENDED && RUNS(mover) && ACTING(mover) -> mid = 1;
        moved = LET_GO; said[mover] = said[mover] | SAID_RELEASED; y = mover; mcast(y, RELEASED, 0, 0); y = 0 }
    :: d_step { moving == 0 && (running[0] != NOBODY && running[0] != mover || moved == TO_STOP && !RUNS(mover)) -> mid = 1; moving = NOBODY; mover = 0; moved = 0 }
#endif
#if TAKES
    :: d_step { FAULTS && takes < TAKES && s[GHOST].R != 0 && (s[GHOST].members & B(TAKER)) && st[TAKER] == UP -> mid = 1;
        takes++; order(TAKE, TAKER, 0, 0) }
#endif
#if CRASHES
    /* its host's tracking pipe is gone: START. While a gate is open, or may open by an older LIFT, nothing can cover the moment. */
    :: d_step { FAULTS && crashes < CRASHES && running[0] != NOBODY && (nfsd & 1) && RUNS(running[0]) && ACTING(running[0]) && s[GHOST].R != 0 &&
       !kopen[0] && !kopen[1] && !kopen[2] && IN_THIS_GRACE(0) && IN_THIS_GRACE(1) && IN_THIS_GRACE(2) && st[running[0]] == UP && SAME_VIEW(running[0]) -> mid = 1; crashes++; tell("nfsd of 0 ends\n");
        drop(0); nfsd = nfsd & ~1; order(START, running[0], 0, LOST) }
#endif
#if COLD
    :: d_step { FAULTS && colds < COLD -> mid = 1; colds++; tell("power failure\n");
        no_node(0); no_node(1); no_node(2); s[GHOST].members = 0; s[GHOST].view++; s[GHOST].rings++;
        drop(0);
#if HOST1 != NOBODY
        drop(1)
#endif
        }
#endif
#ifdef CALM
    :: d_step { FAULTS -> mid = 1; calm = 1 }
#endif
#endif
    :: d_step { 0 -> mid = 1; skip }
    fi; d_step { flush(); mid = 0 } }
od
}

/* L1: where nothing is left to do, a quorate cluster with enough daemons has lifted. */
#define GOOD(i) (!(s[GHOST].members & B(i)) || (kopen[i] && mode[i] == PR && s[i].R == 0))
proctype watcher() {
end: timeout ->
#ifdef REPLAY
    wrong = 1
#else
    if
    :: MANY(ring) && MANY(GROUP) -> must(L1, MANY(s[GHOST].members)); must(L1, s[GHOST].R == 0);
        must(L1, GOOD(0) && GOOD(1) && GOOD(2)); must(S8, !dropped[0] && !dropped[1])
    :: else
    fi
#endif
}

init {
    byte i = 0;
    atomic {
        d_step {
            do
            :: i <= N ->
                s[i].C = 1; s[i].members = ALL; s[i].view = 1; s[i].host[0] = 0; s[i].host[1] = HOST1; s[i].last_done = NOBODY;
                s[i].starts = 1; s[i].start[0] = 1; s[i].start[1] = 1; s[i].settled[0] = 1; s[i].settled[1] = 1; s[i].recordless = EMPTY; i++
            :: else -> break
            od;
            i = 0; answered[0] = 1; answered[1] = 1;
            do
            :: i < N ->
                daemon[i] = 1; synced[i] = 1; confirmed[i] = NAMED; live[i] = ALL; gate[i] = OPEN; gate_at[i] = 1; kopen[i] = 1;
                mode[i] = PR; wanted[i] = NONE; disk_C[i] = 1; disk_view[i] = 1; quorate_view[i] = 1; view_durable[i] = 1; save_starts(i); i++
            :: else -> break
            od;
#ifdef REPLAY
            c_code { read_trace(); }; load(); i = 0;
            do
            :: i <= N -> s[i].host[0] = e_host0; s[i].host[1] = e_host1; i++
            :: else -> break
            od;
            running[0] = e_host0; running[1] = e_host1; told_open[0] = 1; told_open[1] = 1; told_open[2] = 1; at = 1; load();
#else
            running[0] = 0; running[1] = HOST1;
#endif
             used_C = 1; i = 0;
#ifdef TWO
            do :: i <= N -> s[i].members = 3; s[i].down = 4; i++ :: else -> break od;
            i = 0; no_node(2); live[0] = 3; live[1] = 3;
#endif
            skip
        }
        run node(0); run node(1); run node(2);   /* AFTER_LOWER knows their numbers */
        do :: i < N -> run nature(i); if :: WHO & B(i) -> run faults(i) :: else fi; i++ :: else -> break od;
        i = 0;
        run founding(); run people(); run watcher()
    }
}
