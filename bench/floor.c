/* The C floor: a round trip of 64 bytes between two processes over one shared page.
 *
 *     floor MODE CPU CPU SECONDS      MODE: spin, spin-futex, futex; CPU -1: anywhere
 *
 * Prints {"": [p50, p99, mean, count]} in microseconds: of one round trip at least, however long it
 * took. Each answer is checked. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, SPINS = 2000, MOST = 4000000 };

struct side {
    _Alignas(64) _Atomic uint32_t turn;         /* counts messages */
    _Atomic uint32_t asleep;                    /* whoever waits for `turn` sleeps */
    _Alignas(64) char data[SIZE];
};
struct page {
    struct side request, reply;
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Wait until `turn` is no longer `old`. spins < 0: without end; 0: sleep at once. */
static void await(struct side *side, uint32_t old, long spins)
{
    for (long i = 0; spins < 0 || i < spins; i++) {
        if (atomic_load_explicit(&side->turn, memory_order_acquire) != old)
            return;
        relax();
    }
    while (atomic_load(&side->turn) == old) {
        atomic_store(&side->asleep, 1);
        if (atomic_load(&side->turn) == old)
            syscall(SYS_futex, &side->turn, FUTEX_WAIT, old, NULL, NULL, 0);
        atomic_store(&side->asleep, 0);
    }
}

static void post(struct side *side, uint32_t turn)
{
    atomic_store(&side->turn, turn);
    if (atomic_load(&side->asleep))
        syscall(SYS_futex, &side->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0 && sched_setaffinity(0, sizeof set, &set) < 0) {
        perror("sched_setaffinity");
        exit(1);
    }
}

static int by_size(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: floor spin|spin-futex|futex CPU CPU SECONDS\n");
        return 2;
    }
    long spins = !strcmp(argv[1], "spin") ? -1 : !strcmp(argv[1], "futex") ? 0 : SPINS;
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int32_t *samples = malloc(MOST * sizeof *samples);
    if (page == MAP_FAILED || !samples)
        return 1;
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            return 1;
        pin(atoi(argv[2]));
        for (uint32_t turn = 0;; turn++) {
            await(&page->request, turn, spins);
            memcpy(page->reply.data, page->request.data, SIZE);
            post(&page->reply, turn + 1);
        }
    }
    pin(atoi(argv[3]));
    int64_t begin = now(), warm = begin + 50000000, end = warm + (int64_t)(atof(argv[4]) * 1e9), after = begin;
    char data[SIZE], answer[SIZE];
    long count = 0;
    double sum = 0;
    for (uint32_t turn = 0; (after < end || !count) && count < MOST; turn++) {
        memset(data, (int)turn, SIZE);
        int64_t before = now();
        memcpy(page->request.data, data, SIZE);
        post(&page->request, turn + 1);
        await(&page->reply, turn, spins);
        memcpy(answer, page->reply.data, SIZE);
        after = now();
        if (memcmp(data, answer, SIZE)) {
            fprintf(stderr, "a wrong answer\n");
            kill(child, SIGKILL);
            return 1;
        }
        if (before >= warm) {
            int64_t took = after - before;
            samples[count++] = took < INT32_MAX ? (int32_t)took : INT32_MAX;
            sum += (double)took;
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    qsort(samples, (size_t)count, sizeof *samples, by_size);
    printf("{\"\": [%.3f, %.3f, %.3f, %ld]}\n", samples[(count - 1) / 2] / 1e3, samples[count - 1 - count / 100] / 1e3,
           sum / (double)count / 1e3, count);
    return 0;
}
