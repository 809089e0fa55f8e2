// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * shimctl - speaks to lockd_shim by hand, for tests of the module.
 *
 *	shimctl COMMAND...	one command
 *	shimctl			commands from standard input, all over one
 *				socket, until its end; the socket closes then
 *
 *	attach [VERSION]
 *	gate closed EPOCH
 *	gate open EPOCH TRIPS
 *	reclaim NETNS-FILE give|withdraw EPOCH
 *	permit MILLISECONDS	from now; 0 revokes, negative is in the past
 *	beat MILLISECONDS	permit for so long, and again every third of it,
 *				until another permit or beat; 0 ends it
 *	host NETNS-FILE HOST EPOCH
 *	exempt PID 0|1
 *	bypass 0|1
 *	enforced 0|1 EPOCH TRIPS
 *	alone 0|1		as if there were no other node: each trip is
 *				answered by `enforced 1`
 *	status
 *	ns [NETNS-FILE]
 *	events			prints events as they come, too
 *
 * Each is answered by a line `[BOOTTIME REALTIME] #N VERB RESULT`, N counting
 * the commands; events are `[BOOTTIME REALTIME] event NAME RESULT`.  RESULT is
 * "ok", fields NAME=VALUE, or "error ENAME text".
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include "uapi/lockd_shim.h"

static struct nl_sock *commands, *events;
static int family;
static unsigned int number;
static const char *verb;
static unsigned int beat_ms;
static bool failed, print_events, alone, silent;
static uint64_t epoch;		/* of the last order to the gate */
static uint64_t trips;		/* to be answered as if alone */

static int64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void stamp(void)
{
	int64_t boot = now_ns(CLOCK_BOOTTIME), real = now_ns(CLOCK_REALTIME);

	printf("[%" PRId64 ".%06" PRId64 " %" PRId64 ".%03" PRId64 "] ",
	       boot / 1000000000, boot % 1000000000 / 1000,
	       real / 1000000000, real % 1000000000 / 1000000);
}

__attribute__((format(printf, 1, 2)))
static void answer(const char *format, ...)
{
	va_list args;

	if (silent)
		return;
	stamp();
	printf("#%u %s ", number, verb);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static const char *state_name(uint32_t state)
{
	static const char *const names[] = { "closed", "reclaim", "open" };

	return state < 3 ? names[state] : "?";
}

static const char *reason_name(uint32_t reason)
{
	static const char *const names[] = {
		"load", "order", "attach", "socket", "permit", "trip", "hooks",
		"bypass"
	};

	return reason < 8 ? names[reason] : "?";
}

static const char *cause_name(uint32_t cause)
{
	static const char *const names[] = {
		"unspec", "dlm-ls-stop", "nfsd-stop", "lockd-stop"
	};

	return cause < 4 ? names[cause] : "?";
}

static void print_attr(struct nlattr *attr)
{
	static const char *const names[] = {
		[LOCKD_SHIM_A_VERSION] = "version",
		[LOCKD_SHIM_A_EPOCH] = "epoch",
		[LOCKD_SHIM_A_TRIPS] = "trips",
		[LOCKD_SHIM_A_PERMIT_UNTIL] = "permit-until",
		[LOCKD_SHIM_A_ATTACHED] = "attached",
		[LOCKD_SHIM_A_HOOKS] = "hooks",
		[LOCKD_SHIM_A_HOOKS_WANTED] = "hooks-wanted",
		[LOCKD_SHIM_A_WAITERS] = "waiters",
		[LOCKD_SHIM_A_INSTANCE] = "instance",
		[LOCKD_SHIM_A_NETNS_INO] = "netns-ino",
		[LOCKD_SHIM_A_NETNS_COOKIE] = "netns-cookie",
		[LOCKD_SHIM_A_NETNS_UP] = "netns-up",
		[LOCKD_SHIM_A_HELD] = "held",
		[LOCKD_SHIM_A_IN_GRACE] = "in-grace",
		[LOCKD_SHIM_A_OPENS_BLOCKED] = "opens-blocked",
		[LOCKD_SHIM_A_RECLAIMS_IN_FLIGHT] = "reclaims-in-flight",
		[LOCKD_SHIM_A_UNDONE] = "undone",
		[LOCKD_SHIM_A_DEFERRED] = "deferred",
		[LOCKD_SHIM_A_STOPS] = "stops",
		[LOCKD_SHIM_A_NFSD_UP] = "nfsd-up",
		[LOCKD_SHIM_A_HOSTS] = "hosts",
		[LOCKD_SHIM_A_EXEMPTS] = "exempts",
		[LOCKD_SHIM_A_BYPASS] = "bypass",
	};
	unsigned int type = nla_type(attr);
	uint64_t value;

	switch (type) {
	case LOCKD_SHIM_A_PAD:
		return;
	case LOCKD_SHIM_A_STATE:
		printf(" state=%s", state_name(nla_get_u32(attr)));
		return;
	case LOCKD_SHIM_A_REASON:
		printf(" reason=%s", reason_name(nla_get_u32(attr)));
		return;
	case LOCKD_SHIM_A_CAUSE:
		printf(" cause=%s", cause_name(nla_get_u32(attr)));
		return;
	case LOCKD_SHIM_A_MODULE_VERSION:
		printf(" module-version=%s", nla_get_string(attr));
		return;
	case LOCKD_SHIM_A_HOOK_ERROR:
		printf(" hook-error=\"%s\"", nla_get_string(attr));
		return;
	}
	if (type >= sizeof(names) / sizeof(names[0]) || !names[type]) {
		printf(" attribute-%u=?", type);
		return;
	}
	switch (nla_len(attr)) {
	case 1:
		value = nla_get_u8(attr);
		break;
	case 4:
		value = nla_get_u32(attr);
		break;
	default:
		value = nla_get_u64(attr);
	}
	printf(" %s=%" PRIu64, names[type], value);
}

static void print_attrs(struct nl_msg *msg)
{
	struct genlmsghdr *header = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *attr;
	int left;

	nla_for_each_attr(attr, genlmsg_attrdata(header, 0),
			  genlmsg_attrlen(header, 0), left)
		print_attr(attr);
	putchar('\n');
	fflush(stdout);
}

static int on_reply(struct nl_msg *msg, void *arg)
{
	(void)arg;
	stamp();
	printf("#%u %s", number, verb);
	print_attrs(msg);
	return NL_OK;
}

static int on_event(struct nl_msg *msg, void *arg)
{
	static const char *const names[] = {
		[LOCKD_SHIM_CMD_TRIP_NTF] = "trip",
		[LOCKD_SHIM_CMD_GATE_NTF] = "gate",
		[LOCKD_SHIM_CMD_NS_NTF] = "ns",
		[LOCKD_SHIM_CMD_HOOKS_NTF] = "hooks",
		[LOCKD_SHIM_CMD_WAIT_NTF] = "wait",
	};
	struct genlmsghdr *header = nlmsg_data(nlmsg_hdr(msg));
	unsigned int event = header->cmd;

	(void)arg;
	if (alone && event == LOCKD_SHIM_CMD_TRIP_NTF)
		trips = nla_get_u64(nla_find(genlmsg_attrdata(header, 0),
					     genlmsg_attrlen(header, 0),
					     LOCKD_SHIM_A_TRIPS));
	if (!print_events)
		return NL_OK;
	stamp();
	printf("event %s", event < sizeof(names) / sizeof(names[0]) &&
			   names[event] ? names[event] : "?");
	print_attrs(msg);
	return NL_OK;
}

/* Receives until the acknowledgment; prints replies and the error, if any. */
static int receive(void)
{
	static char buffer[65536];

	for (;;) {
		ssize_t length = recv(nl_socket_get_fd(commands), buffer,
				      sizeof(buffer), 0);
		struct nlmsghdr *header = (struct nlmsghdr *)buffer;
		int left = length;

		if (length < 0)
			return -errno;
		for (; nlmsg_ok(header, left);
		     header = nlmsg_next(header, &left)) {
			struct nlmsgerr *error = nlmsg_data(header);
			struct nlattr *text = NULL, *attr;
			const char *said = "";
			int rest, skip;

			if (header->nlmsg_type == NLMSG_DONE)
				return 0;
			if (header->nlmsg_type != NLMSG_ERROR) {
				struct nl_msg *msg = nlmsg_convert(header);

				on_reply(msg, NULL);
				nlmsg_free(msg);
				continue;
			}
			if (!error->error)
				return 0;
			skip = sizeof(*error);
			if (!(header->nlmsg_flags & NLM_F_CAPPED))
				skip += NLMSG_ALIGN(error->msg.nlmsg_len) -
					sizeof(error->msg);
			if (header->nlmsg_flags & NLM_F_ACK_TLVS)
				nla_for_each_attr(attr,
						  (struct nlattr *)((char *)error + skip),
						  nlmsg_datalen(header) - skip,
						  rest)
					if (nla_type(attr) == NLMSGERR_ATTR_MSG)
						text = attr;
			if (text)
				said = nla_data(text);
			answer("error %s %s",
			       strerrorname_np(-error->error), said);
			return error->error;
		}
	}
}

static struct nl_msg *message(int cmd, int flags)
{
	struct nl_msg *msg = nlmsg_alloc();

	genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, flags, cmd,
		    LOCKD_SHIM_FAMILY_VERSION);
	return msg;
}

/* @quiet: an "ok" is not printed; status and the like print their reply. */
static int send_message(struct nl_msg *msg, bool quiet)
{
	int ret = nl_send_auto(commands, msg);

	nlmsg_free(msg);
	if (ret < 0) {
		answer("error EIO %s", nl_geterror(ret));
		return ret;
	}
	ret = receive();
	if (!ret && !quiet)
		answer("ok");
	return ret;
}

static int send_permit(int64_t milliseconds, bool quiet)
{
	struct nl_msg *msg = message(LOCKD_SHIM_CMD_PERMIT_SET, NLM_F_ACK);
	uint64_t until = 0;

	if (milliseconds)
		until = now_ns(CLOCK_BOOTTIME) + milliseconds * 1000000;
	nla_put_u64(msg, LOCKD_SHIM_A_PERMIT_UNTIL, until);
	return send_message(msg, quiet);
}

static int send_enforced(bool on, uint64_t at, uint64_t count)
{
	struct nl_msg *msg = message(LOCKD_SHIM_CMD_ENFORCED_SET, NLM_F_ACK);

	nla_put_u64(msg, LOCKD_SHIM_A_EPOCH, at);
	nla_put_u64(msg, LOCKD_SHIM_A_TRIPS, count);
	nla_put_u8(msg, LOCKD_SHIM_A_ENFORCED, on);
	return send_message(msg, false);
}

static int netns_fd(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		answer("error %s %s", strerrorname_np(errno), path);
	return fd;
}

static int listen_to_events(void)
{
	int group;

	if (events)
		return 0;
	events = nl_socket_alloc();
	nl_socket_disable_seq_check(events);
	nl_socket_modify_cb(events, NL_CB_VALID, NL_CB_CUSTOM, on_event, NULL);
	if (genl_connect(events))
		return -1;
	group = genl_ctrl_resolve_grp(events, LOCKD_SHIM_FAMILY_NAME,
				      LOCKD_SHIM_MCGRP_EVENTS);
	if (group < 0 || nl_socket_add_membership(events, group)) {
		answer("error ENOENT no group");
		return -1;
	}
	return 0;
}

static int command(int argc, char **argv)
{
	struct nl_msg *msg;
	int fd = -1, ret;

	number++;
	verb = argv[0];
	if (!strcmp(verb, "attach")) {
		msg = message(LOCKD_SHIM_CMD_ATTACH, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_VERSION,
			    argc > 1 ? atoi(argv[1]) : LOCKD_SHIM_VERSION);
		return send_message(msg, true);
	}
	if (!strcmp(verb, "status"))
		return send_message(message(LOCKD_SHIM_CMD_STATUS_GET,
					    NLM_F_ACK), true);
	if (!strcmp(verb, "gate") && argc >= 3) {
		bool open = !strcmp(argv[1], "open");

		epoch = strtoull(argv[2], NULL, 0);
		msg = message(LOCKD_SHIM_CMD_GATE_SET, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_STATE,
			    open ? LOCKD_SHIM_STATE_OPEN :
				   LOCKD_SHIM_STATE_CLOSED);
		nla_put_u64(msg, LOCKD_SHIM_A_EPOCH, epoch);
		if (argc > 3)
			nla_put_u64(msg, LOCKD_SHIM_A_TRIPS,
				    strtoull(argv[3], NULL, 0));
		return send_message(msg, false);
	}
	if (!strcmp(verb, "reclaim") && argc == 4) {
		fd = netns_fd(argv[1]);
		if (fd < 0)
			return fd;
		msg = message(LOCKD_SHIM_CMD_RECLAIM_SET, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_NETNS_FD, fd);
		nla_put_u32(msg, LOCKD_SHIM_A_STATE,
			    !strcmp(argv[2], "give") ?
				LOCKD_SHIM_STATE_RECLAIM :
				LOCKD_SHIM_STATE_CLOSED);
		nla_put_u64(msg, LOCKD_SHIM_A_EPOCH, strtoull(argv[3], NULL, 0));
		ret = send_message(msg, false);
		close(fd);
		return ret;
	}
	if (!strcmp(verb, "host") && argc == 4) {
		fd = netns_fd(argv[1]);
		if (fd < 0)
			return fd;
		msg = message(LOCKD_SHIM_CMD_HOST_ADD, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_NETNS_FD, fd);
		nla_put_string(msg, LOCKD_SHIM_A_HOST, argv[2]);
		nla_put_u64(msg, LOCKD_SHIM_A_EPOCH, strtoull(argv[3], NULL, 0));
		ret = send_message(msg, false);
		close(fd);
		return ret;
	}
	if (!strcmp(verb, "exempt") && argc == 3) {
		msg = message(LOCKD_SHIM_CMD_EXEMPT_SET, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_PID, atoi(argv[1]));
		nla_put_u8(msg, LOCKD_SHIM_A_EXEMPT, atoi(argv[2]));
		return send_message(msg, false);
	}
	if (!strcmp(verb, "bypass") && argc == 2) {
		msg = message(LOCKD_SHIM_CMD_BYPASS_SET, NLM_F_ACK);
		nla_put_u8(msg, LOCKD_SHIM_A_BYPASS, atoi(argv[1]));
		return send_message(msg, false);
	}
	if (!strcmp(verb, "enforced") && argc == 4)
		return send_enforced(atoi(argv[1]), strtoull(argv[2], NULL, 0),
				     strtoull(argv[3], NULL, 0));
	if (!strcmp(verb, "alone") && argc == 2) {
		alone = atoi(argv[1]);
		if (listen_to_events())
			return -ENOENT;
		answer("ok");
		return 0;
	}
	if (!strcmp(verb, "permit") && argc == 2) {
		beat_ms = 0;
		return send_permit(atoll(argv[1]), false);
	}
	if (!strcmp(verb, "beat") && argc == 2) {
		beat_ms = atoi(argv[1]);
		if (beat_ms)
			return send_permit(beat_ms, false);
		answer("ok");
		return 0;
	}
	if (!strcmp(verb, "ns")) {
		if (argc == 1)
			return send_message(message(LOCKD_SHIM_CMD_NS_GET,
						    NLM_F_DUMP), false);
		fd = netns_fd(argv[1]);
		if (fd < 0)
			return fd;
		msg = message(LOCKD_SHIM_CMD_NS_GET, NLM_F_ACK);
		nla_put_u32(msg, LOCKD_SHIM_A_NETNS_FD, fd);
		ret = send_message(msg, true);
		close(fd);
		return ret;
	}
	if (!strcmp(verb, "events")) {
		print_events = true;
		if (listen_to_events())
			return -ENOENT;
		answer("ok");
		return 0;
	}
	answer("error EINVAL no such command, or not so many words");
	return -EINVAL;
}

static int command_line(char *line)
{
	char *argv[8];
	int argc = 0;

	for (char *word = strtok(line, " \t\n"); word && argc < 8;
	     word = strtok(NULL, " \t\n"))
		argv[argc++] = word;
	return argc ? command(argc, argv) : 0;
}

static void loop(void)
{
	char input[4096];
	size_t length = 0;

	for (;;) {
		struct pollfd fds[2] = {
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = events ? nl_socket_get_fd(events) : -1,
			  .events = POLLIN },
		};
		int ready = poll(fds, 2, beat_ms ? (int)beat_ms / 3 : -1);
		char *end;
		ssize_t got;

		if (ready < 0)
			return;
		/* Late if commands come thick; the tests do not do that. */
		if (!ready)
			failed |= send_permit(beat_ms, true) < 0;
		if (fds[1].revents)
			nl_recvmsgs_default(events);
		if (trips) {
			/* Another one may have come: its answer comes, too. */
			silent = true;
			send_enforced(true, epoch, trips);
			silent = false;
			trips = 0;
		}
		if (!fds[0].revents)
			continue;
		got = read(STDIN_FILENO, input + length,
			   sizeof(input) - 1 - length);
		if (got <= 0)
			return;
		length += got;
		input[length] = 0;
		while ((end = strchr(input, '\n'))) {
			*end++ = 0;
			failed |= command_line(input) < 0;
			length -= end - input;
			memmove(input, end, length + 1);
		}
	}
}

int main(int argc, char **argv)
{
	int on = 1;

	commands = nl_socket_alloc();
	if (!commands || genl_connect(commands)) {
		fprintf(stderr, "shimctl: no generic netlink\n");
		return 1;
	}
	setsockopt(nl_socket_get_fd(commands), SOL_NETLINK, NETLINK_EXT_ACK,
		   &on, sizeof(on));
	setsockopt(nl_socket_get_fd(commands), SOL_NETLINK, NETLINK_CAP_ACK,
		   &on, sizeof(on));
	family = genl_ctrl_resolve(commands, LOCKD_SHIM_FAMILY_NAME);
	if (family < 0) {
		fprintf(stderr, "shimctl: lockd_shim is not loaded\n");
		return 1;
	}
	/* What is left of the resolving is not ours to read. */
	nl_socket_disable_auto_ack(commands);
	if (argc > 1)
		failed = command(argc - 1, argv + 1) < 0;
	else
		loop();
	if (argc > 1 && events)
		for (;;)
			nl_recvmsgs_default(events);
	nl_socket_free(commands);
	return failed;
}
