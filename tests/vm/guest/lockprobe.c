// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * lockprobe - what locks on a file do, as a program sees it; for scenarios of the gate.
 *
 *	lockprobe semantics FILE	one line for each property: NAME RESULT. No times, no pids: two runs
 *					compare equal if the kernel does the same
 *	lockprobe closed FILE		takes an OFD read lock on 100+50 and a shared flock, says "held", waits for
 *					a line on standard input, and goes on as with a closed gate
 *	lockprobe herd FILE N		N threads wait in F_OFD_SETLKW, each for a byte of its own, in order;
 *					"waiting", then one line for each grant: NANOSECONDS N
 *	lockprobe unlock FILE N		instructions under -icount: nanoseconds of N unlocks of a range not held
 *	lockprobe latency FILE SECONDS	locks and unlocks a byte all the time; the longest and the mean in us
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *path;

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int open_file(int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0) {
		perror(path);
		exit(2);
	}
	return fd;
}

static void say(const char *name, const char *format, ...)
{
	va_list args;

	printf("%s ", name);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static const char *result(int ret)
{
	return ret < 0 ? strerrorname_np(errno) : "ok";
}

static int lock(int fd, int cmd, int type, off_t start, off_t len)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &fl);
}

/* What F_GETLK says to another owner: a child asks. */
static const char *test(off_t start, off_t len)
{
	static char text[64];
	int pipes[2];
	ssize_t got;

	if (pipe(pipes))
		exit(2);
	if (!fork()) {
		struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
		int fd = open_file(O_RDWR);

		if (fcntl(fd, F_GETLK, &fl))
			snprintf(text, sizeof(text), "%s", strerrorname_np(errno));
		else if (fl.l_type == F_UNLCK)
			snprintf(text, sizeof(text), "free");
		else
			snprintf(text, sizeof(text), "%s %lld+%lld %s", fl.l_type == F_WRLCK ? "write" : "read",
				 (long long)fl.l_start, (long long)fl.l_len,
				 fl.l_pid == getppid() ? "parent" : fl.l_pid == -1 ? "ofd" : "other");
		if (write(pipes[1], text, strlen(text) + 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(pipes[1]);
	got = read(pipes[0], text, sizeof(text));
	if (got <= 0)
		strcpy(text, "?");
	close(pipes[0]);
	wait(NULL);
	return text;
}

/* Whether another process gets it, F_SETLK. */
static const char *other_try(int type, off_t start, off_t len)
{
	int status;

	if (!fork())
		_exit(lock(open_file(O_RDWR), F_SETLK, type, start, len) < 0 ? errno : 0);
	wait(&status);
	return WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "ok";
}

static const char *other_flock(int operation)
{
	int status;

	if (!fork())
		_exit(flock(open_file(O_RDWR), operation | LOCK_NB) < 0 ? errno : 0);
	wait(&status);
	return WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "ok";
}

static volatile sig_atomic_t handled;

static void handler(int number)
{
	(void)number;
	handled++;
}

enum how { POSIX, OFD, FLOCK };

static int wait_lock(enum how how, int fd)
{
	return how == FLOCK ? flock(fd, LOCK_EX) :
	       lock(fd, how == OFD ? F_OFD_SETLKW : F_SETLKW, F_WRLCK, 0, 10);
}

/*
 * A child waits for a lock that is not to be had (another holds it, or the gate is closed) and gets a signal.
 * Reports what the wait returned within 1.5 s ("waits": nothing), and then kills it.
 */
static void signals(const char *name, enum how how, int flags, int number)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	char text[32] = "waits";
	int pipes[2], status, i;
	pid_t pid;

	if (pipe2(pipes, O_NONBLOCK))
		exit(2);
	pid = fork();
	if (!pid) {
		int fd = open_file(O_RDWR);

		sigaction(SIGUSR1, &action, NULL);
		snprintf(text, sizeof(text), "returned %s", result(wait_lock(how, fd)));
		if (write(pipes[1], text, strlen(text) + 1) < 0)
			_exit(1);
		_exit(0);
	}
	usleep(400000);
	kill(pid, number);
	if (number == SIGSTOP) {
		usleep(300000);
		kill(pid, SIGCONT);
	}
	usleep(1500000);
	if (read(pipes[0], text, sizeof(text)) < 0)
		strcpy(text, "waits");
	if (how != FLOCK || number == SIGKILL || !strcmp(text, "waits"))
		kill(pid, SIGKILL);
	for (i = 0; i < 30; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		usleep(100000);
	}
	say(name, "%s, %s", text, i < 30 ? "killed at once" : "not killed");
	if (i == 30) {
		FILE *left = fopen("/run/lockprobe.left", "a");

		fprintf(left, "%d\n", pid);
		fclose(left);
	}
	close(pipes[0]);
	close(pipes[1]);
}

static void semantics(void)
{
	int fd = open_file(O_RDWR), again, copy, status, pipes[2];
	char text[32];
	pid_t pid;

	/* POSIX */
	say("posix-write", "%s", result(lock(fd, F_SETLK, F_WRLCK, 0, 100)));
	say("posix-conflict", "%s", other_try(F_RDLCK, 50, 1));
	say("posix-test", "%s", test(50, 1));
	say("posix-beside", "%s", other_try(F_WRLCK, 100, 1));
	say("posix-unlock-middle", "%s", result(lock(fd, F_SETLK, F_UNLCK, 20, 10)));
	say("posix-middle-free", "%s", test(20, 10));
	say("posix-left", "%s", test(0, 30));
	say("posix-right", "%s", test(30, 0));
	say("posix-downgrade", "%s", result(lock(fd, F_SETLK, F_RDLCK, 30, 70)));
	say("posix-downgraded", "%s", other_try(F_RDLCK, 40, 1));
	say("posix-upgrade", "%s", result(lock(fd, F_SETLKW, F_WRLCK, 0, 100)));
	say("posix-upgraded", "%s", test(0, 0));
	say("posix-to-end", "%s", result(lock(fd, F_SETLK, F_RDLCK, 1000, 0)));
	say("posix-to-end-test", "%s", test(5000, 1));
	copy = dup(fd);
	close(copy);
	say("posix-close-of-dup", "%s", test(0, 0));
	lock(fd, F_SETLK, F_WRLCK, 0, 10);
	again = open_file(O_RDONLY);
	close(again);
	say("posix-close-of-other-fd", "%s", test(0, 0));
	lock(fd, F_SETLK, F_WRLCK, 0, 10);
	pid = fork();
	if (!pid)
		_exit(lock(fd, F_SETLK, F_WRLCK, 0, 10) < 0 ? errno : 0);
	waitpid(pid, &status, 0);
	say("posix-fork-not-inherited", "%s", strerrorname_np(WEXITSTATUS(status)));
	say("posix-child-exit-keeps", "%s", test(0, 0));
	lock(fd, F_SETLK, F_UNLCK, 0, 0);
	if (pipe(pipes))
		exit(2);
	pid = fork();
	if (!pid) {
		lock(open_file(O_RDWR), F_SETLK, F_WRLCK, 0, 10);
		if (write(pipes[1], "x", 1) < 0)
			_exit(1);
		pause();
	}
	if (read(pipes[0], text, 1) != 1)
		exit(2);
	say("posix-held-by-child", "%s", other_try(F_WRLCK, 0, 1));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	say("posix-exit-drops", "%s", test(0, 0));
	again = open_file(O_RDONLY);
	say("posix-write-on-rdonly", "%s", result(lock(again, F_SETLK, F_WRLCK, 0, 1)));
	close(again);
	say("posix-bad-range", "%s", result(lock(fd, F_SETLK, F_WRLCK, 5, -10)));
	say("posix-bad-type", "%s", result(lock(fd, F_SETLK, 17, 0, 1)));
	say("posix-unlock-not-held", "%s", result(lock(fd, F_SETLK, F_UNLCK, 0, 0)));

	/* OFD */
	say("ofd-write", "%s", result(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 10)));
	say("ofd-against-posix", "%s", other_try(F_WRLCK, 0, 1));
	say("ofd-test", "%s", test(0, 1));
	again = open_file(O_RDWR);
	say("ofd-other-description", "%s", result(lock(again, F_OFD_SETLK, F_WRLCK, 0, 10)));
	close(again);
	say("ofd-close-of-other-fd", "%s", test(0, 1));
	copy = dup(fd);
	say("ofd-dup-same-owner", "%s", result(lock(copy, F_OFD_SETLK, F_WRLCK, 0, 10)));
	pid = fork();
	if (!pid)
		_exit(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 20) < 0 ? errno : 0);
	waitpid(pid, &status, 0);
	say("ofd-fork-same-owner", "%s", WEXITSTATUS(status) ? "no" : "ok");
	close(fd);
	say("ofd-dup-keeps", "%s", test(0, 20));
	close(copy);
	say("ofd-last-close-drops", "%s", test(0, 0));

	/* flock */
	fd = open_file(O_RDWR);
	say("flock-shared", "%s", result(flock(fd, LOCK_SH)));
	say("flock-shared-other", "%s", other_flock(LOCK_SH));
	say("flock-shared-against-ex", "%s", other_flock(LOCK_EX));
	say("flock-upgrade", "%s", result(flock(fd, LOCK_EX | LOCK_NB)));
	say("flock-ex-against-sh", "%s", other_flock(LOCK_SH));
	say("flock-not-posix", "%s", other_try(F_WRLCK, 0, 1));
	copy = dup(fd);
	close(fd);
	say("flock-dup-keeps", "%s", other_flock(LOCK_SH));
	pid = fork();
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	say("flock-child-exit-keeps", "%s", other_flock(LOCK_SH));
	pid = fork();
	if (!pid)
		_exit(flock(copy, LOCK_UN) < 0);
	waitpid(pid, NULL, 0);
	say("flock-fork-same-owner", "%s", other_flock(LOCK_EX));
	flock(copy, LOCK_EX);
	close(copy);
	say("flock-last-close-drops", "%s", other_flock(LOCK_EX));

	/* Signals while another one holds the lock. */
	if (pipe(pipes))
		exit(2);
	pid = fork();
	if (!pid) {
		fd = open_file(O_RDWR);
		lock(fd, F_SETLK, F_WRLCK, 0, 10);
		if (write(pipes[1], "x", 1) < 0)
			_exit(1);
		pause();
	}
	if (read(pipes[0], text, 1) != 1)
		exit(2);
	signals("signal-posix-handler", POSIX, 0, SIGUSR1);
	signals("signal-posix-restart", POSIX, SA_RESTART, SIGUSR1);
	signals("signal-posix-stop", POSIX, 0, SIGSTOP);
	signals("signal-posix-kill", POSIX, 0, SIGKILL);
	signals("signal-ofd-handler", OFD, 0, SIGUSR1);
	signals("signal-ofd-kill", OFD, 0, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	say("signal-nothing-left", "%s", test(0, 0));
}

static void closed(void)
{
	int held = open_file(O_RDWR), fd = open_file(O_RDWR), copy;

	if (lock(held, F_OFD_SETLK, F_RDLCK, 100, 50) || flock(held, LOCK_SH))
		exit(2);
	say("held", "ok");
	getchar();
	say("posix-try", "%s", result(lock(fd, F_SETLK, F_WRLCK, 0, 10)));
	say("posix-try-read", "%s", result(lock(fd, F_SETLK, F_RDLCK, 0, 10)));
	say("ofd-try", "%s", result(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 10)));
	say("flock-try", "%s", result(flock(fd, LOCK_EX | LOCK_NB)));
	say("flock-try-shared", "%s", result(flock(fd, LOCK_SH | LOCK_NB)));
	say("posix-unlock-not-held", "%s", result(lock(fd, F_SETLK, F_UNLCK, 0, 0)));
	say("posix-unlock-wait", "%s", result(lock(fd, F_SETLKW, F_UNLCK, 0, 0)));
	say("ofd-unlock-not-held", "%s", result(lock(fd, F_OFD_SETLK, F_UNLCK, 0, 0)));
	say("flock-unlock-not-held", "%s", result(flock(fd, LOCK_UN)));
	say("test", "%s", test(0, 0));
	say("held-test", "%s", test(100, 50));
	say("held-same-again", "%s", result(lock(held, F_OFD_SETLK, F_RDLCK, 100, 50)));
	copy = dup(held);
	close(copy);
	say("held-close-of-dup", "%s", test(100, 50));
	say("held-unlock-part", "%s", result(lock(held, F_OFD_SETLK, F_UNLCK, 110, 40)));
	say("held-part-test", "%s", test(100, 50));
	say("held-flock-unlock", "%s", result(flock(held, LOCK_UN)));
	close(held);
	say("held-last-close", "%s", test(0, 0));
	signals("signal-posix-handler", POSIX, 0, SIGUSR1);
	signals("signal-posix-restart", POSIX, SA_RESTART, SIGUSR1);
	signals("signal-posix-stop", POSIX, 0, SIGSTOP);
	signals("signal-posix-kill", POSIX, 0, SIGKILL);
	signals("signal-ofd-handler", OFD, 0, SIGUSR1);
	signals("signal-ofd-kill", OFD, 0, SIGKILL);
	signals("signal-flock-kill", FLOCK, 0, SIGKILL);
	say("nothing-left", "%s", test(0, 0));
}

/* herd */

static pthread_mutex_t granted = PTHREAD_MUTEX_INITIALIZER;
static int64_t *when;
static int *who, n_granted;
static volatile int asking;

static void *one(void *arg)
{
	int n = (intptr_t)arg, fd = open_file(O_RDWR);

	asking = n;
	if (lock(fd, F_OFD_SETLKW, F_WRLCK, n, 1))
		perror("lock");
	pthread_mutex_lock(&granted);
	when[n_granted] = now_ns();
	who[n_granted++] = n;
	pthread_mutex_unlock(&granted);
	pause();
	return NULL;
}

static void herd(int n)
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	when = calloc(n, sizeof(*when));
	who = calloc(n, sizeof(*who));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (i = 1; i <= n; i++) {
		if (pthread_create(&thread, &attr, one, (void *)(intptr_t)i)) {
			perror("pthread_create");
			exit(2);
		}
		/* In order: the next one when this one has asked, and had the time to sleep. */
		while (asking != i)
			sched_yield();
		usleep(200);
	}
	say("waiting", "%d", n);
	while (n_granted < n)
		usleep(50000);
	for (i = 0; i < n; i++)
		printf("%lld %d\n", (long long)when[i], who[i]);
	puts("end");
}

static void unlocks(int n)
{
	int fd = open_file(O_RDWR), i, round;
	int64_t best = INT64_MAX;

	lock(fd, F_SETLK, F_WRLCK, 1000, 1); /* the inode has a list of locks */
	for (round = 0; round < 20; round++) {
		int64_t start = now_ns(), took;

		for (i = 0; i < n; i++)
			lock(fd, F_SETLK, F_UNLCK, 0, 10);
		took = now_ns() - start;
		if (took < best)
			best = took;
	}
	say("unlock", "%lld", (long long)best / n);
}

static void latency(double seconds)
{
	int64_t end = now_ns() + (int64_t)(seconds * 1e9), longest = 0, sum = 0;
	int fd = open_file(O_RDWR), n = 0;

	while (now_ns() < end) {
		int64_t start = now_ns(), took;

		if (lock(fd, F_SETLKW, F_WRLCK, 0, 1))
			perror("lock");
		took = now_ns() - start;
		lock(fd, F_SETLK, F_UNLCK, 0, 1);
		if (took > longest)
			longest = took;
		if (took > 50000000)
			say("pause", "%.1f ms", took / 1e6);
		sum += took;
		n++;
	}
	say("latency", "%d locks, mean %.1f us, longest %.1f ms", n, sum / 1e3 / n, longest / 1e6);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	path = argv[2];
	if (!strcmp(argv[1], "semantics"))
		semantics();
	else if (!strcmp(argv[1], "closed"))
		closed();
	else if (!strcmp(argv[1], "herd") && argc == 4)
		herd(atoi(argv[3]));
	else if (!strcmp(argv[1], "unlock") && argc == 4)
		unlocks(atoi(argv[3]));
	else if (!strcmp(argv[1], "latency") && argc == 4)
		latency(atof(argv[3]));
	else
		return 2;
	return 0;
}
