// SPDX-License-Identifier: GPL-2.0
/*
 * The generic netlink family.  uapi/lockd_shim.h says what everything means;
 * here it is taken apart, and handed on under shim_mutex.
 */

#include <linux/err.h>
#include <linux/module.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "shim.h"

static struct genl_family shim_family;

/* Events before the family exists, or after, have no listeners; shim_mutex. */
static bool family_up;

/* Putting together */

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, LOCKD_SHIM_A_PAD);
}

static int put_hooks(struct sk_buff *skb)
{
	if (nla_put_u32(skb, LOCKD_SHIM_A_HOOKS, shim.hooks) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_HOOKS_WANTED, shim.hooks_wanted))
		return -EMSGSIZE;
	if (shim.hook_error[0] &&
	    nla_put_string(skb, LOCKD_SHIM_A_HOOK_ERROR, shim.hook_error))
		return -EMSGSIZE;
	return 0;
}

static int put_status(struct sk_buff *skb)
{
	enum lockd_shim_reason reason;
	enum lockd_shim_state state;
	u64 trips, permit_until;
	unsigned long flags;
	bool bypass;

	raw_spin_lock_irqsave(&gate.lock, flags);
	reason = gate.reason;
	trips = gate.trips;
	permit_until = gate.permit_until;
	bypass = gate.bypass;
	raw_spin_unlock_irqrestore(&gate.lock, flags);
	state = lockd_shim_gate() ? LOCKD_SHIM_STATE_OPEN :
				    LOCKD_SHIM_STATE_CLOSED;

	if (nla_put_u32(skb, LOCKD_SHIM_A_VERSION, LOCKD_SHIM_VERSION) ||
	    nla_put_string(skb, LOCKD_SHIM_A_MODULE_VERSION,
			   SHIM_MODULE_VERSION) ||
	    put_u64(skb, LOCKD_SHIM_A_INSTANCE, shim.instance) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_STATE, state) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_REASON, reason) ||
	    put_u64(skb, LOCKD_SHIM_A_EPOCH, shim.epoch) ||
	    put_u64(skb, LOCKD_SHIM_A_TRIPS, trips) ||
	    put_u64(skb, LOCKD_SHIM_A_PERMIT_UNTIL, permit_until) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_ATTACHED, !!shim.portid) ||
	    put_hooks(skb) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_WAITERS,
			atomic_read(&shim_waiters)) ||
	    put_u64(skb, LOCKD_SHIM_A_UNDONE, atomic64_read(&shim_undone)) ||
	    put_u64(skb, LOCKD_SHIM_A_DEFERRED,
		    atomic64_read(&shim_deferred)) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_EXEMPTS, exempt_count()) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_BYPASS, bypass))
		return -EMSGSIZE;
	return 0;
}

static int put_net_id(struct sk_buff *skb, const struct shim_net_status *st)
{
	if (nla_put_u32(skb, LOCKD_SHIM_A_NETNS_INO, st->ino) ||
	    put_u64(skb, LOCKD_SHIM_A_NETNS_COOKIE, st->cookie) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_STATE, st->state) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_NFSD_UP, st->nfsd_up) ||
	    put_u64(skb, LOCKD_SHIM_A_STOPS, st->stops))
		return -EMSGSIZE;
	return 0;
}

static int put_net_status(struct sk_buff *skb, const struct shim_net_status *st)
{
	if (put_net_id(skb, st) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT, st->in_flight) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_HELD, st->held) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_IN_GRACE, st->in_grace) ||
	    nla_put_u8(skb, LOCKD_SHIM_A_OPENS_BLOCKED, st->opens_blocked) ||
	    nla_put_u32(skb, LOCKD_SHIM_A_HOSTS, st->hosts))
		return -EMSGSIZE;
	return 0;
}

/* Events */

/*
 * Memory is never waited for: it might be sought in a GFS2 that is frozen until
 * the daemon has acted on this very event.  Listeners are told that they missed
 * one, as if their buffer had been full.
 */
#define EVENT_GFP	(GFP_NOWAIT | __GFP_NOWARN)
#define EVENT_SIZE	512

static struct sk_buff *event_new(u8 cmd, void **hdr)
{
	struct sk_buff *skb;

	lockdep_assert_held(&shim_mutex);

	if (!family_up)
		return NULL;
	skb = genlmsg_new(EVENT_SIZE, EVENT_GFP);
	if (!skb) {
		genl_set_err(&shim_family, &init_net, 0, 0, -ENOBUFS);
		return NULL;
	}
	*hdr = genlmsg_put(skb, 0, 0, &shim_family, 0, cmd);
	return skb;
}

static void event_send(struct sk_buff *skb, void *hdr, int err)
{
	if (err) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, hdr);
	genlmsg_multicast(&shim_family, skb, 0, 0, EVENT_GFP);
}

void shim_notify_trip(u64 trips, enum lockd_shim_cause cause)
{
	void *hdr;
	struct sk_buff *skb = event_new(LOCKD_SHIM_CMD_TRIP_NTF, &hdr);

	if (skb)
		event_send(skb, hdr,
			   put_u64(skb, LOCKD_SHIM_A_TRIPS, trips) ?:
			   nla_put_u32(skb, LOCKD_SHIM_A_CAUSE, cause));
}

void shim_notify_gate(enum lockd_shim_state state,
		      enum lockd_shim_reason reason, u64 epoch, u64 trips)
{
	void *hdr;
	struct sk_buff *skb = event_new(LOCKD_SHIM_CMD_GATE_NTF, &hdr);

	if (skb)
		event_send(skb, hdr,
			   nla_put_u32(skb, LOCKD_SHIM_A_STATE, state) ?:
			   nla_put_u32(skb, LOCKD_SHIM_A_REASON, reason) ?:
			   put_u64(skb, LOCKD_SHIM_A_EPOCH, epoch) ?:
			   put_u64(skb, LOCKD_SHIM_A_TRIPS, trips));
}

void shim_notify_net(const struct shim_net_status *st, bool up)
{
	void *hdr;
	struct sk_buff *skb = event_new(LOCKD_SHIM_CMD_NS_NTF, &hdr);

	if (skb)
		event_send(skb, hdr,
			   put_net_id(skb, st) ?:
			   nla_put_u8(skb, LOCKD_SHIM_A_NETNS_UP, up));
}

void shim_notify_hooks(void)
{
	void *hdr;
	struct sk_buff *skb = event_new(LOCKD_SHIM_CMD_HOOKS_NTF, &hdr);

	if (skb)
		event_send(skb, hdr, put_hooks(skb));
}

void shim_notify_wait(unsigned int waiters)
{
	void *hdr;
	struct sk_buff *skb = event_new(LOCKD_SHIM_CMD_WAIT_NTF, &hdr);

	if (skb)
		event_send(skb, hdr,
			   nla_put_u32(skb, LOCKD_SHIM_A_WAITERS, waiters));
}

/* Commands */

/* Takes over @skb if there is no error. */
static int status_reply(struct sk_buff *skb, struct genl_info *info, u8 cmd)
{
	void *hdr = genlmsg_put_reply(skb, info, &shim_family, 0, cmd);

	if (!hdr || put_status(skb))
		return -EMSGSIZE;
	genlmsg_end(skb, hdr);
	genlmsg_reply(skb, info);
	return 0;
}

static int check_attached(struct genl_info *info)
{
	lockdep_assert_held(&shim_mutex);

	if (shim.portid != info->snd_portid) {
		NL_SET_ERR_MSG(info->extack, "this socket is not attached");
		return -ENOTCONN;
	}
	return 0;
}

static struct net *get_net_attr(struct genl_info *info)
{
	struct nlattr *attr = info->attrs[LOCKD_SHIM_A_NETNS_FD];
	struct net *net = get_net_ns_by_fd(nla_get_u32(attr));

	if (IS_ERR(net))
		NL_SET_ERR_MSG_ATTR(info->extack, attr,
				    "not a file descriptor of a network namespace");
	return net;
}

static int status_get(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply;
	int ret;

	/* Not under the mutex: closing must not wait for memory. */
	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	mutex_lock(&shim_mutex);
	ret = status_reply(reply, info, LOCKD_SHIM_CMD_STATUS_GET);
	mutex_unlock(&shim_mutex);
	if (ret)
		nlmsg_free(reply);
	return ret;
}

static int ns_get(struct sk_buff *skb, struct genl_info *info)
{
	struct shim_net_status st;
	struct sk_buff *reply;
	struct net *net;
	void *hdr;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_NETNS_FD))
		return -EINVAL;
	net = get_net_attr(info);
	if (IS_ERR(net))
		return PTR_ERR(net);
	mutex_lock(&shim_mutex);
	grace_net_status(net, &st);
	mutex_unlock(&shim_mutex);
	put_net(net);

	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	hdr = genlmsg_put_reply(reply, info, &shim_family, 0,
				LOCKD_SHIM_CMD_NS_GET);
	if (!hdr || put_net_status(reply, &st)) {
		nlmsg_free(reply);
		return -EMSGSIZE;
	}
	genlmsg_end(reply, hdr);
	return genlmsg_reply(reply, info);
}

static int ns_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct shim_net_status st;
	unsigned long generation;
	void *hdr;

	mutex_lock(&shim_mutex);
	while (grace_nth_status(cb->args[0], &generation, &st)) {
		/* 0 is taken for "not set" by the check of consistency. */
		cb->seq = (generation & 0x7fffffff) + 1;
		hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid,
				  cb->nlh->nlmsg_seq, &shim_family,
				  NLM_F_MULTI, LOCKD_SHIM_CMD_NS_GET);
		if (!hdr)
			break;
		genl_dump_check_consistent(cb, hdr);
		if (put_net_status(skb, &st)) {
			genlmsg_cancel(skb, hdr);
			break;
		}
		genlmsg_end(skb, hdr);
		cb->args[0]++;
	}
	mutex_unlock(&shim_mutex);
	return skb->len;
}

static int attach(struct sk_buff *skb, struct genl_info *info)
{
	static char wrong[64];	/* outlives us: the kernel reads it for the ack */
	struct sk_buff *reply;
	u32 version;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_VERSION))
		return -EINVAL;
	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	version = nla_get_u32(info->attrs[LOCKD_SHIM_A_VERSION]);

	mutex_lock(&shim_mutex);
	if (version != LOCKD_SHIM_VERSION) {
		snprintf(wrong, sizeof(wrong),
			 "the module speaks version %u, the daemon %u",
			 LOCKD_SHIM_VERSION, version);
		info->extack->_msg = wrong;
		ret = -EPROTONOSUPPORT;
		goto out;
	}
	ret = gate_attach(info->snd_portid, info->extack);
	if (!ret)
		ret = status_reply(reply, info, LOCKD_SHIM_CMD_ATTACH);
out:
	mutex_unlock(&shim_mutex);
	if (ret)
		nlmsg_free(reply);
	return ret;
}

static int gate_set(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	u32 state;
	u64 epoch;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_STATE) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_EPOCH))
		return -EINVAL;
	state = nla_get_u32(attrs[LOCKD_SHIM_A_STATE]);
	epoch = nla_get_u64(attrs[LOCKD_SHIM_A_EPOCH]);

	switch (state) {
	case LOCKD_SHIM_STATE_CLOSED:
		if (attrs[LOCKD_SHIM_A_TRIPS]) {
			NL_SET_ERR_MSG_ATTR(info->extack,
					    attrs[LOCKD_SHIM_A_TRIPS],
					    "trips go with open only");
			return -EINVAL;
		}
		break;
	case LOCKD_SHIM_STATE_OPEN:
		if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_TRIPS))
			return -EINVAL;
		break;
	default:
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[LOCKD_SHIM_A_STATE],
				    "a gate is open or closed; reclaim is for namespaces");
		return -EINVAL;
	}

	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (ret)
		goto out;
	if (state == LOCKD_SHIM_STATE_OPEN)
		ret = gate_order_open(epoch,
				      nla_get_u64(attrs[LOCKD_SHIM_A_TRIPS]),
				      info->extack);
	else
		ret = gate_order_close(epoch, info->extack);
out:
	mutex_unlock(&shim_mutex);
	return ret;
}

static int reclaim_set(struct sk_buff *skb, struct genl_info *info)
{
	struct net *net;
	bool reclaim;
	u64 epoch;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_NETNS_FD) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_STATE) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_EPOCH))
		return -EINVAL;
	/* The policy lets nothing else pass than reclaim and closed. */
	reclaim = nla_get_u32(info->attrs[LOCKD_SHIM_A_STATE]) ==
		  LOCKD_SHIM_STATE_RECLAIM;
	epoch = nla_get_u64(info->attrs[LOCKD_SHIM_A_EPOCH]);
	net = get_net_attr(info);
	if (IS_ERR(net))
		return PTR_ERR(net);

	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (ret)
		goto out;
	if (epoch != shim.epoch) {
		NL_SET_ERR_MSG(info->extack, "the order is for another epoch");
		ret = -ESTALE;
		goto out;
	}
	if (reclaim) {
		ret = gate_reclaim_allowed(info->extack);
		if (ret)
			goto out;
	}
	grace_reclaim_set(net, reclaim, epoch);
out:
	mutex_unlock(&shim_mutex);
	put_net(net);
	return ret;
}

static int permit(struct sk_buff *skb, struct genl_info *info)
{
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_PERMIT_UNTIL))
		return -EINVAL;
	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (!ret)
		ret = permit_set(nla_get_u64(info->attrs[LOCKD_SHIM_A_PERMIT_UNTIL]),
				 info->extack);
	mutex_unlock(&shim_mutex);
	return ret;
}

static int host_add(struct sk_buff *skb, struct genl_info *info)
{
	struct net *net;
	u64 epoch;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_NETNS_FD) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_HOST) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_EPOCH))
		return -EINVAL;
	epoch = nla_get_u64(info->attrs[LOCKD_SHIM_A_EPOCH]);
	net = get_net_attr(info);
	if (IS_ERR(net))
		return PTR_ERR(net);
	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (!ret && epoch != shim.epoch) {
		NL_SET_ERR_MSG(info->extack, "the order is for another epoch");
		ret = -ESTALE;
	}
	if (!ret)
		ret = grace_host_add(net,
				     nla_data(info->attrs[LOCKD_SHIM_A_HOST]),
				     info->extack);
	mutex_unlock(&shim_mutex);
	put_net(net);
	return ret;
}

static int exempt_order(struct sk_buff *skb, struct genl_info *info)
{
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_PID) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_EXEMPT))
		return -EINVAL;
	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (!ret)
		ret = exempt_set(nla_get_u32(info->attrs[LOCKD_SHIM_A_PID]),
				 nla_get_u8(info->attrs[LOCKD_SHIM_A_EXEMPT]),
				 info->extack);
	mutex_unlock(&shim_mutex);
	return ret;
}

/* From any socket: it is for when no daemon can be attached. */
static int bypass_order(struct sk_buff *skb, struct genl_info *info)
{
	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_BYPASS))
		return -EINVAL;
	mutex_lock(&shim_mutex);
	gate_bypass(nla_get_u8(info->attrs[LOCKD_SHIM_A_BYPASS]));
	mutex_unlock(&shim_mutex);
	return 0;
}

static int enforced_order(struct sk_buff *skb, struct genl_info *info)
{
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_EPOCH) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_TRIPS) ||
	    GENL_REQ_ATTR_CHECK(info, LOCKD_SHIM_A_ENFORCED))
		return -EINVAL;
	mutex_lock(&shim_mutex);
	ret = check_attached(info);
	if (!ret)
		ret = gate_order_enforced(nla_get_u64(info->attrs[LOCKD_SHIM_A_EPOCH]),
					  nla_get_u64(info->attrs[LOCKD_SHIM_A_TRIPS]),
					  nla_get_u8(info->attrs[LOCKD_SHIM_A_ENFORCED]),
					  info->extack);
	mutex_unlock(&shim_mutex);
	return ret;
}

/*
 * One policy for each command: what it does not list, the kernel refuses.
 */
static const struct nla_policy ns_get_policy[] = {
	[LOCKD_SHIM_A_NETNS_FD] = { .type = NLA_U32 },
};

static const struct nla_policy attach_policy[] = {
	[LOCKD_SHIM_A_VERSION] = { .type = NLA_U32 },
};

static const struct nla_policy gate_set_policy[] = {
	[LOCKD_SHIM_A_STATE] = NLA_POLICY_MAX(NLA_U32, LOCKD_SHIM_STATE_OPEN),
	[LOCKD_SHIM_A_EPOCH] = { .type = NLA_U64 },
	[LOCKD_SHIM_A_TRIPS] = { .type = NLA_U64 },
};

static const struct nla_policy reclaim_set_policy[] = {
	[LOCKD_SHIM_A_STATE] = NLA_POLICY_MAX(NLA_U32,
					      LOCKD_SHIM_STATE_RECLAIM),
	[LOCKD_SHIM_A_EPOCH] = { .type = NLA_U64 },
	[LOCKD_SHIM_A_NETNS_FD] = { .type = NLA_U32 },
};

static const struct nla_policy permit_set_policy[] = {
	[LOCKD_SHIM_A_PERMIT_UNTIL] = { .type = NLA_U64 },
};

static const struct nla_policy host_add_policy[] = {
	[LOCKD_SHIM_A_EPOCH] = { .type = NLA_U64 },
	[LOCKD_SHIM_A_NETNS_FD] = { .type = NLA_U32 },
	[LOCKD_SHIM_A_HOST] = { .type = NLA_NUL_STRING,
				.len = LOCKD_SHIM_HOST_LEN - 1 },
};

static const struct nla_policy exempt_set_policy[] = {
	[LOCKD_SHIM_A_PID] = { .type = NLA_U32 },
	[LOCKD_SHIM_A_EXEMPT] = NLA_POLICY_MAX(NLA_U8, 1),
};

static const struct nla_policy bypass_set_policy[] = {
	[LOCKD_SHIM_A_BYPASS] = NLA_POLICY_MAX(NLA_U8, 1),
};

static const struct nla_policy enforced_set_policy[] = {
	[LOCKD_SHIM_A_EPOCH] = { .type = NLA_U64 },
	[LOCKD_SHIM_A_TRIPS] = { .type = NLA_U64 },
	[LOCKD_SHIM_A_ENFORCED] = NLA_POLICY_MAX(NLA_U8, 1),
};

#define SHIM_POLICY(p)	.policy = (p), .maxattr = ARRAY_SIZE(p) - 1

static const struct genl_ops shim_ops[] = {
	{
		.cmd = LOCKD_SHIM_CMD_STATUS_GET,
		.flags = GENL_ADMIN_PERM,
		.doit = status_get,
	},
	{
		.cmd = LOCKD_SHIM_CMD_NS_GET,
		.flags = GENL_ADMIN_PERM,
		.doit = ns_get,
		.dumpit = ns_dump,
		SHIM_POLICY(ns_get_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_ATTACH,
		.flags = GENL_ADMIN_PERM,
		.doit = attach,
		SHIM_POLICY(attach_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_GATE_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = gate_set,
		SHIM_POLICY(gate_set_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_RECLAIM_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = reclaim_set,
		SHIM_POLICY(reclaim_set_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_PERMIT_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = permit,
		SHIM_POLICY(permit_set_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_HOST_ADD,
		.flags = GENL_ADMIN_PERM,
		.doit = host_add,
		SHIM_POLICY(host_add_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_EXEMPT_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = exempt_order,
		SHIM_POLICY(exempt_set_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_BYPASS_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = bypass_order,
		SHIM_POLICY(bypass_set_policy),
	},
	{
		.cmd = LOCKD_SHIM_CMD_ENFORCED_SET,
		.flags = GENL_ADMIN_PERM,
		.doit = enforced_order,
		SHIM_POLICY(enforced_set_policy),
	},
};

static const struct genl_multicast_group shim_groups[] = {
	{ .name = LOCKD_SHIM_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

/*
 * parallel_ops: closing must not wait for the mutex that all families share,
 * which others hold for long.
 */
static struct genl_family shim_family __ro_after_init = {
	.name = LOCKD_SHIM_FAMILY_NAME,
	.version = LOCKD_SHIM_FAMILY_VERSION,
	.module = THIS_MODULE,
	.netnsok = false,
	.parallel_ops = true,
	.ops = shim_ops,
	.n_ops = ARRAY_SIZE(shim_ops),
	.resv_start_op = LOCKD_SHIM_CMD_STATUS_GET,
	.mcgrps = shim_groups,
	.n_mcgrps = ARRAY_SIZE(shim_groups),
};

/* A socket is being closed, whoever's; may sleep. */
static int netlink_event(struct notifier_block *nb, unsigned long event,
			 void *data)
{
	struct netlink_notify *n = data;

	if (event == NETLINK_URELEASE && n->protocol == NETLINK_GENERIC &&
	    net_eq(n->net, &init_net))
		gate_detach(n->portid);
	return NOTIFY_DONE;
}

static struct notifier_block netlink_notifier = {
	.notifier_call = netlink_event,
};

int __init shim_netlink_init(void)
{
	int ret;

	ret = netlink_register_notifier(&netlink_notifier);
	if (ret)
		return ret;
	ret = genl_register_family(&shim_family);
	if (ret) {
		netlink_unregister_notifier(&netlink_notifier);
		return ret;
	}
	mutex_lock(&shim_mutex);
	family_up = true;
	mutex_unlock(&shim_mutex);
	return 0;
}

void shim_netlink_exit(void)
{
	mutex_lock(&shim_mutex);
	family_up = false;
	mutex_unlock(&shim_mutex);
	genl_unregister_family(&shim_family);
	netlink_unregister_notifier(&netlink_notifier);
}

MODULE_ALIAS_GENL_FAMILY(LOCKD_SHIM_FAMILY_NAME);
