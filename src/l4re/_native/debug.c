/* What the marked points of the protocol do in the debug build only (`make debug`).
 *
 * Most pass at once; some yield, spin for about a microsecond, or sleep long enough that the other side runs into
 * whatever it should not (`make soak`). With L4RE_DEBUG_STOP in the environment they do nothing but one thing: the
 * thread that comes to the point of that name stops its process (SIGSTOP), which its parent can await. With
 * L4RE_DEBUG_PASSING=n it is the n-th time. The environment is read each time: a program can set it just before
 * the step that matters. */
#include "leaf.h"

#ifdef L4RE_DEBUG
#include "page.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static void delay(void)
{
    static _Thread_local uint64_t chance;
    if (!chance)
        chance = ((uint64_t)getpid() << 32 ^ (uint64_t)io_now() ^ (uint64_t)(uintptr_t)&chance) | 1;
    chance ^= chance << 13;                             /* xorshift */
    chance ^= chance >> 7;
    chance ^= chance << 17;
    unsigned draw = chance >> 32 & 0xfff;
    if (draw < 4)
        usleep(1000);
    else if (draw < 32)
        usleep(draw);
    else if (draw < 256)
        sched_yield();
    else if (draw < 768)
        for (unsigned i = 0; i < draw; i++)
            relax();
}

void debug_point(const char *name)
{
    static atomic_long passed;
    const char *stop = getenv("L4RE_DEBUG_STOP"), *passing = getenv("L4RE_DEBUG_PASSING");
    if (!stop)
        delay();
    else if (strcmp(stop, name) == 0 && atomic_fetch_add(&passed, 1) + 1 == (passing ? atol(passing) : 1))
        raise(SIGSTOP);                                 /* of this thread: it takes no other step */
}
#endif
