/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest program that measures what kind of multiprocessor it runs on.
 *
 * Runs as the only program of an initramfs (as /init), static, needs nothing
 * but a kernel.  Unknown words of the kernel command line arrive in the
 * environment; probe=timing (the default) prints one line per measurement,
 * "probe: NAME VALUE UNIT"; probe=digest runs a mixed load for some virtual
 * seconds and prints what happened in which order.  Then the guest powers off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOG_LOOPS 100000000UL /* two instructions each */
#define WAKEUPS 500
#define MAX_CPUS 64

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void die(const char *what)
{
    printf("probe: failed %s: %s\n", what, strerror(errno));
    fflush(stdout);
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set)) {
        die("sched_setaffinity");
    }
}

/* Not 0.  Assembly, so that every compiler makes the same instructions. */
static void hog(unsigned long loops)
{
    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(loops) : : "cc");
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    if (pthread_create(thread, NULL, fn, arg)) {
        die("pthread_create");
    }
}

/* --- probe=timing: hogs --- */

static pthread_barrier_t hogs_ready;

static void *hog_thread(void *arg)
{
    pin((int)(intptr_t)arg);
    pthread_barrier_wait(&hogs_ready);
    hog(HOG_LOOPS);
    return NULL;
}

/* Wall clock of the guest from the start of @n hogs to the end of the last. */
static void measure_hogs(const char *name, int n, int cpus)
{
    pthread_t threads[MAX_CPUS];
    int64_t begin;

    pthread_barrier_init(&hogs_ready, NULL, n + 1);
    for (int i = 0; i < n; i++) {
        start(&threads[i], hog_thread, (void *)(intptr_t)(i % cpus));
    }
    pthread_barrier_wait(&hogs_ready);
    begin = now_ns();
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("probe: %s %.1f ms\n", name, (now_ns() - begin) / 1e6);
    pthread_barrier_destroy(&hogs_ready);
}

/* --- probe=timing: wake-ups --- */

static atomic_int wake_seq;
static atomic_int woken_seq;
static _Atomic int64_t woken_at;

static void futex(atomic_int *word, int op, int value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void *sleeper_thread(void *arg)
{
    pin((int)(intptr_t)arg);
    for (int seen = 0; seen < WAKEUPS; seen++) {
        while (atomic_load(&wake_seq) == seen) {
            futex(&wake_seq, FUTEX_WAIT, seen);
        }
        atomic_store(&woken_at, now_ns());
        atomic_store(&woken_seq, seen + 1);
    }
    return NULL;
}

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The waker never sleeps: on one processor the sleeper would have to wait. */
static void measure_wakeups(void)
{
    static int64_t latency[WAKEUPS];
    pthread_t sleeper;

    pin(0);
    start(&sleeper, sleeper_thread, (void *)(intptr_t)1);
    for (int i = 0; i < WAKEUPS; i++) {
        int64_t begin;

        /* Long enough for the sleeper's CPU to be idle, and uneven. */
        hog(150000 + 1237 * (i % 97));
        begin = now_ns();
        atomic_store(&wake_seq, i + 1);
        futex(&wake_seq, FUTEX_WAKE, 1);
        while (atomic_load(&woken_seq) != i + 1) {
            hog(50);
        }
        latency[i] = atomic_load(&woken_at) - begin;
    }
    pthread_join(sleeper, NULL);
    qsort(latency, WAKEUPS, sizeof(latency[0]), compare_i64);
    printf("probe: wakeup_min %.1f us\n", latency[0] / 1e3);
    printf("probe: wakeup_p50 %.1f us\n", latency[WAKEUPS / 2] / 1e3);
    printf("probe: wakeup_p99 %.1f us\n", latency[WAKEUPS * 99 / 100] / 1e3);
    printf("probe: wakeup_max %.1f us\n", latency[WAKEUPS - 1] / 1e3);
}

static void measure(int cpus)
{
    /* Late work of the boot would be measured too. */
    sleep(5);
    measure_hogs("hog_1", 1, 1);
    if (cpus >= 2) {
        measure_hogs("hog_2_on_2", 2, 2);
        measure_hogs("hog_2_on_1", 2, 1);
    }
    if (cpus >= 4) {
        measure_hogs("hog_4_on_4", 4, 4);
        measure_hogs("hog_4_on_1", 4, 1);
    }
    if (cpus >= 2) {
        measure_wakeups();
    }
}

/* --- probe=digest --- */

static pthread_mutex_t digest_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t digest = 0xcbf29ce484222325ULL;
static unsigned long events;
static atomic_int stop_load;

/* FNV-1a over who did something when: any other interleaving shows. */
static void note(int who, int what)
{
    int64_t words[3] = { who, what, now_ns() };
    const unsigned char *bytes = (const unsigned char *)words;

    pthread_mutex_lock(&digest_lock);
    for (size_t i = 0; i < sizeof(words); i++) {
        digest = (digest ^ bytes[i]) * 0x100000001b3ULL;
    }
    if (++events % 500 == 0) {
        printf("probe: event %lu by %d at %ld digest %016lx\n", events, who,
               (long)words[2], (unsigned long)digest);
    }
    pthread_mutex_unlock(&digest_lock);
}

static void *digest_hog(void *arg)
{
    int who = (int)(intptr_t)arg;

    for (int i = 0; !atomic_load(&stop_load); i++) {
        hog(200000 + 1000 * who);
        note(who, i);
    }
    return NULL;
}

static void *digest_sleeper(void *arg)
{
    int who = (int)(intptr_t)arg;

    for (int i = 0; !atomic_load(&stop_load); i++) {
        struct timespec ts = { .tv_nsec = 300000 + 70000 * (who % 16) };

        nanosleep(&ts, NULL);
        note(who, i);
    }
    return NULL;
}

static void *digest_forker(void *arg)
{
    int who = (int)(intptr_t)arg;

    for (int i = 0; !atomic_load(&stop_load); i++) {
        pid_t pid = fork();
        int status;

        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            hog(1000 * (1 + i % 7));
            _exit(0);
        }
        waitpid(pid, &status, 0);
        note(who, pid);
    }
    return NULL;
}

static void run_digest(int cpus, int seconds)
{
    pthread_t threads[2 * MAX_CPUS + 8];
    int n = 0;

    for (int i = 0; i < cpus - 1; i++) {
        start(&threads[n++], digest_hog, (void *)(intptr_t)(100 + i));
    }
    for (int i = 0; i < 2; i++) {
        start(&threads[n++], digest_forker, (void *)(intptr_t)(200 + i));
    }
    for (int i = 0; i < 4; i++) {
        start(&threads[n++], digest_sleeper, (void *)(intptr_t)(300 + i));
    }
    sleep(seconds);
    atomic_store(&stop_load, 1);
    while (n--) {
        pthread_join(threads[n], NULL);
    }
    printf("probe: %lu events digest %016lx at %ld\n", events,
           (unsigned long)digest, (long)now_ns());
}

int main(void)
{
    const char *what = getenv("probe");
    const char *seconds = getenv("probe_seconds");
    int cpus, console;

    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    console = open("/dev/console", O_RDWR);
    if (console >= 0) {
        for (int fd = 0; fd <= 2; fd++) {
            dup2(console, fd);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (cpus > MAX_CPUS) {
        cpus = MAX_CPUS;
    }
    printf("probe: cpus %d\n", cpus);
    if (what && strcmp(what, "digest") == 0) {
        run_digest(cpus, seconds ? atoi(seconds) : 2);
    } else {
        measure(cpus);
    }
    printf("probe: done\n");
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
