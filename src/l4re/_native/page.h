/* The session page: one call at a time between one client thread and one server.
 *
 * `state` carries a sequence number and one of four states:
 *
 *     FREE ----post----> POSTED ----take----> TAKEN ----reply----> DONE ----post----> POSTED ...
 *       ^                  |                    |
 *       +----withdraw------+                    +--- (one-way) ---> FREE
 *
 * The client writes the message, then posts with release order; the server takes
 * with a compare-exchange (so a withdrawal by a timed-out client and a take
 * exclude each other), copies the message out once, checks the copy, and replies
 * the same way. Whoever wants to sleep raises its `asleep` flag, fences, looks
 * once more, and only then blocks; whoever posts or replies fences and rings the
 * socket if the other's flag is up. The fence on both sides is what makes one of
 * the two see the other's store (store buffers would otherwise hide both).
 *
 * Everything in the page may change at any moment: the other side may lie. */
#ifndef L4RE_PAGE_H
#define L4RE_PAGE_H

#include "io.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

enum page_state { FREE = 0, POSTED = 1, TAKEN = 2, DONE = 3 };
enum { ONE_WAY = 1 };                                   /* header flags */

enum {
    PAGE_BYTES = 65536,
    PAGE_WORDS = 63,
    PAGE_LONG = 60 * 1024,
    PAGE_ITEMS = 16,
    PAGE_VERSION = 1,
};

/* What a call gives when it gives no answer. */
enum status { GONE = 1, SEND_TIMEOUT, RECEIVE_TIMEOUT, BUSY, STALE, BROKEN, REFUSED, FULL, CLOSED, FORKED };

struct page {
    _Alignas(64) _Atomic uint64_t state;                /* sequence << 8 | page_state */
    _Atomic int64_t label;
    _Atomic uint64_t counts;                            /* words, items, descriptors, flags: 16 bits each */
    _Atomic uint64_t size_cpu;                          /* bytes in the long area, and the writer's CPU + 1 */
    uint64_t words[PAGE_WORDS];
    _Alignas(64) _Atomic uint32_t server_asleep;        /* starts raised */
    _Alignas(64) _Atomic uint32_t client_asleep;
    _Atomic uint32_t version;
    _Atomic uint64_t probe;                             /* do two mappings show one page? */
    _Alignas(64) char long_area[PAGE_LONG];
};
_Static_assert(sizeof(struct page) <= PAGE_BYTES, "the page fits its memfd");

struct head {
    int64_t label;
    unsigned words, items, fds, flags, size, cpu;
};

/* What either side keeps of a session socket: descriptors that came ahead of their message. */
struct inbox {
    uint64_t sequence;
    int fds[IO_MAX_FDS], count;
    bool end;                   /* the other side is gone */
    bool broken;                /* it sent what no honest peer sends */
    char refusal[200];          /* why the server did not take the session, if it said so */
    bool refused;
};

/* A packet on the session socket. */
struct packet {
    char kind;                  /* 'w' wake up, 'C' descriptors of message `sequence`, 'R' refusal */
    uint64_t sequence;
    char text[200];
};

/* Whether to spin: for `most`, unless that failed several times in a row; then not at all for a
 * while, each time longer. A short sleep says that both sides may be waiting for each other's
 * wake-up, which one spin that succeeds would end: then the next try comes soon. */
struct spin {
    int64_t most;
    unsigned failures;                  /* in a row */
    unsigned rest;                      /* waits to go without spinning */
    uint64_t paid, failed;              /* counts, for stats() */
};

enum {
    QUICK_LOOKS = 64,                   /* before the clock is read: about a microsecond, the usual answer */
    GIL_SPIN_NS = 3000,                 /* then, before the GIL is given up */
    LOOKS_PER_YIELD = 16,               /* from then on */
    SPIN_DEFAULT_NS = 100000,           /* what sleeping costs: to wake a core takes 35 to 50 us, and both sides sleep */
    CROWDED_NS = 200000,                /* a yield that took so long: others need this CPU more */
    SPIN_TRIES = 4,
    SPIN_REST_SHORT = 16,
    SPIN_REST_CROWDED = 256,
    SPIN_REST_LOG2 = 10,
};

static inline int64_t spin_limit(struct spin *spin, int64_t timeout)
{
    if (spin->rest) {
        spin->rest--;
        return 0;
    }
    return timeout >= 0 && timeout < spin->most ? timeout : spin->most;
}

static inline void spin_done(struct spin *spin, bool paid, bool crowded)
{
    *(paid ? &spin->paid : &spin->failed) += 1;
    if (crowded)                        /* whoever sleeps is preferred when woken; whoever yields goes last */
        spin->rest = SPIN_REST_CROWDED;
    else if (paid)
        spin->failures = 0;
    else if (++spin->failures >= SPIN_TRIES) {
        unsigned more = spin->failures - SPIN_TRIES;
        spin->rest = 1U << (more < SPIN_REST_LOG2 ? more : SPIN_REST_LOG2);
    }
}

static inline void spin_slept(struct spin *spin, int64_t took)
{
    if (took < 4 * spin->most && spin->rest > SPIN_REST_SHORT)
        spin->rest = SPIN_REST_SHORT;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

/* Let others have the CPU; true: somebody kept it for long. */
static inline bool yield_to_others(void)
{
    int64_t before = io_now();
    sched_yield();
    return io_now() - before > CROWDED_NS;
}

/* Look again and again for as long as it pays: briefly without a clock, then holding the GIL (to
 * give it up beside a busy Python thread costs milliseconds), then letting others have the CPU.
 * `look` says 1: there, 0: not yet, -1: no use in waiting; it is called without the GIL, too.
 * `beside`: the other side last ran on this CPU. `quick`: how many looks come before the first clock. `start` is set unless it was there at once. */
static inline __attribute__((always_inline)) int spin_until(struct spin *spin, bool beside, int quick, int64_t timeout, int64_t *start,
                                                            int (*look)(void *), void *what)
{
    int64_t limit = spin_limit(spin, timeout);
    bool crowded = false;
    int seen = 0;
    for (int i = 0; limit && !beside && !seen && i < quick; i++) {
        relax();
        seen = look(what);
    }
    if (!seen)
        *start = io_now();
    if (!limit)
        return 0;
    int64_t first = limit < GIL_SPIN_NS ? limit : GIL_SPIN_NS;
    while (!seen) {
        if (beside)                     /* the other side runs only if we let it */
            crowded |= yield_to_others();
        else
            relax();
        if (!(seen = look(what)) && io_now() - *start >= first)
            break;
    }
    if (!seen && first < limit) {
        Py_BEGIN_ALLOW_THREADS
        do {
            crowded |= yield_to_others();
            for (int i = 0; !(seen = look(what)) && i < LOOKS_PER_YIELD; i++)
                relax();
        } while (!seen && io_now() - *start < limit);
        Py_END_ALLOW_THREADS
    }
    spin_done(spin, seen > 0, crowded);
    return seen;
}

static inline unsigned this_cpu(void) { return (unsigned)sched_getcpu() + 1; }

static inline uint64_t word_of(uint64_t sequence, enum page_state state) { return sequence << 8 | state; }

/* Write a message; the state word is the caller's to publish. */
static inline void page_write(struct page *page, int64_t label, const void *words, size_t bytes, unsigned items,
                              const void *data, size_t size, unsigned fds, unsigned flags)
{
    unsigned count = (unsigned)((bytes + 7) / 8);
    if (bytes) {
        if (bytes % 8)
            page->words[count - 1] = 0;
        memcpy(page->words, words, bytes);
    }
    if (size)
        memcpy(page->long_area, data, size);
    atomic_store_explicit(&page->label, label, memory_order_relaxed);
    atomic_store_explicit(&page->counts, count | (uint64_t)items << 16 | (uint64_t)fds << 32 | (uint64_t)flags << 48,
                          memory_order_relaxed);
    atomic_store_explicit(&page->size_cpu, size | (uint64_t)this_cpu() << 32, memory_order_relaxed);
}

/* Copy the header out once and check the copy. */
static inline bool page_read(struct page *page, struct head *head)
{
    uint64_t counts = atomic_load_explicit(&page->counts, memory_order_relaxed);
    uint64_t size_cpu = atomic_load_explicit(&page->size_cpu, memory_order_relaxed);
    *head = (struct head){
        .label = atomic_load_explicit(&page->label, memory_order_relaxed),
        .words = counts & 0xffff, .items = counts >> 16 & 0xffff, .fds = counts >> 32 & 0xffff,
        .flags = counts >> 48, .size = (uint32_t)size_cpu, .cpu = (unsigned)(size_cpu >> 32),
    };
    return head->words <= PAGE_WORDS && head->items <= PAGE_ITEMS && 2 * head->items <= head->words &&
           head->fds <= IO_MAX_FDS && head->size <= PAGE_LONG;
}

/* A moment at which the other side may do anything: the debug build waits here, sometimes and at random
 * (debug.c, `make soak`). Nothing in any other build. */
#ifdef L4RE_DEBUG
void debug_point(void);
#define L4RE_POINT(name) debug_point()
#else
#define L4RE_POINT(name) ((void)0)
#endif

struct page *session_page(PyObject *session);           /* NULL with an exception */
struct page *page_map(int memfd);                       /* NULL with errno */
int64_t spin_setting(void);                             /* L4RE_SPIN_US in ns, or the default */

/* Read packets until one that wakes (true), nothing, or the end; blocks only for the first, and if told to.
 * Descriptors come one packet ahead of their message, never two: so it ends, whatever is sent. */
bool inbox_drain(struct inbox *inbox, int sock, bool block);
/* The descriptors of message `sequence`, which must have come first; false: they did not. */
bool inbox_claim(struct inbox *inbox, int sock, uint64_t sequence, unsigned count);
void inbox_clear(struct inbox *inbox);

#endif
