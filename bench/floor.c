/* The C floor: a round trip of 64 bytes between two processes over one shared page.
 *
 *     floor MODE CPU CPU SECONDS [WHAT]      MODE: spin, spin-futex, futex; CPU -1: anywhere
 *
 * With WHAT the answer brings descriptors, over a socket beside the page: "dataspace", memory that exists and is
 * looked at when it arrives; "gate", one end of a new socket pair; "irq", that and one end of a new pipe.
 *
 * Prints {"": [p50, p99, mean, count]} in microseconds, and "on top" what WHAT costs: of one round trip at least,
 * however long it took. Each answer is checked. */
#define _GNU_SOURCE
#include <fcntl.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
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

/* ---- what an answer may bring ---- */

enum what { NOTHING, DATASPACE, GATE, IRQ };
static const char *const WHATS[] = {"", "dataspace", "gate", "irq"};
static const int COUNTS[] = {0, 1, 1, 2};

union control {
    struct cmsghdr head;
    char space[CMSG_SPACE(2 * sizeof(int))];
};

static void give(int sock, int memory, enum what what)
{
    int pair[2], pipes[2], fds[2] = {memory};
    if (what == GATE || what == IRQ) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
            exit(1);
        fds[what == IRQ] = pair[0];
    }
    if (what == IRQ) {
        if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) < 0)
            exit(1);
        fds[0] = pipes[1];
    }
    union control control;
    size_t size = sizeof(int) * (size_t)COUNTS[what];
    memset(&control, 0, sizeof control);
    struct iovec iov = {"C", 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(head), fds, size);
    if (sendmsg(sock, &message, MSG_NOSIGNAL) != 1)
        exit(1);
    for (int i = 0; i < 2; i++) {
        if (what == GATE || what == IRQ)
            close(pair[i]);
        if (what == IRQ)
            close(pipes[i]);
    }
}

/* Receive it, and see whether memory is memory. How many came. */
static int take(int sock, enum what what, int *fds)
{
    union control control;
    char kind;
    struct stat about;
    struct iovec iov = {&kind, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *head = recvmsg(sock, &message, MSG_CMSG_CLOEXEC) == 1 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!head)
        return 0;
    int count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(head), sizeof(int) * (size_t)count);
    if (what == DATASPACE && (fstat(fds[0], &about) < 0 || fcntl(fds[0], F_GET_SEALS) < 0 || fcntl(fds[0], F_GETFL) < 0))
        return 0;
    return count;
}

/* ---- one measurement ---- */

struct summary {
    double p50, p99, mean;
    long count;
};

static void serve(struct page *page, int sock, int memory, enum what what, long spins)
{
    for (uint32_t turn = 0;; turn++) {
        await(&page->request, turn, spins);
        if (what)
            give(sock, memory, what);
        memcpy(page->reply.data, page->request.data, SIZE);
        post(&page->reply, turn + 1);
    }
}

static struct summary measure(long spins, int server, int client, double seconds, enum what what)
{
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int32_t *samples = malloc(MOST * sizeof *samples);
    int socks[2], memory = memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (page == MAP_FAILED || !samples || memory < 0 || ftruncate(memory, 4096) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
        exit(1);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        exit(1);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            exit(1);
        pin(server);
        serve(page, socks[1], memory, what, spins);
    }
    pin(client);
    int64_t begin = now(), warm = begin + 50000000, end = warm + (int64_t)(seconds * 1e9), after = begin;
    char data[SIZE], answer[SIZE];
    struct summary found = {0};
    for (uint32_t turn = 0; (after < end || !found.count) && found.count < MOST; turn++) {
        int fds[2], came = 0;
        memset(data, (int)turn, SIZE);
        int64_t before = now();
        memcpy(page->request.data, data, SIZE);
        post(&page->request, turn + 1);
        await(&page->reply, turn, spins);
        memcpy(answer, page->reply.data, SIZE);
        if (what)
            came = take(socks[0], what, fds);
        after = now();
        if (memcmp(data, answer, SIZE) || came != COUNTS[what]) {
            fprintf(stderr, "a wrong answer\n");
            kill(child, SIGKILL);
            exit(1);
        }
        while (came)
            close(fds[--came]);
        if (before >= warm) {
            int64_t took = after - before;
            samples[found.count++] = took < INT32_MAX ? (int32_t)took : INT32_MAX;
            found.mean += (double)took;
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    qsort(samples, (size_t)found.count, sizeof *samples, by_size);
    found.p50 = samples[(found.count - 1) / 2] / 1e3;
    found.p99 = samples[found.count - 1 - found.count / 100] / 1e3;
    found.mean /= 1e3 * (double)found.count;
    free(samples);
    return found;
}

static void print(const char *name, struct summary s)
{
    printf("\"%s\": [%.3f, %.3f, %.3f, %ld]", name, s.p50, s.p99, s.mean, s.count);
}

int main(int argc, char **argv)
{
    enum what what = NOTHING;
    while (argc == 6 && what <= IRQ && strcmp(argv[5], WHATS[what]))
        what++;
    if (argc < 5 || argc > 6 || what > IRQ) {
        fprintf(stderr, "usage: floor spin|spin-futex|futex CPU CPU SECONDS [dataspace|gate|irq]\n");
        return 2;
    }
    long spins = !strcmp(argv[1], "spin") ? -1 : !strcmp(argv[1], "futex") ? 0 : SPINS;
    int server = atoi(argv[2]), client = atoi(argv[3]);
    double seconds = atof(argv[4]);
    struct summary whole = measure(spins, server, client, seconds, what);
    printf("{");
    print("", whole);
    if (what) {
        struct summary plain = measure(spins, server, client, seconds, NOTHING);
        printf(", ");
        print("on top", (struct summary){whole.p50 - plain.p50, whole.p99 - plain.p99, whole.mean - plain.mean, whole.count});
    }
    printf("}\n");
    return 0;
}
