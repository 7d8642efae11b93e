/* Delays at the marked points of the protocol, in the debug build only (`make soak`).
 *
 * Most points pass at once; some yield, spin for about a microsecond, or sleep long
 * enough that the other side runs into whatever it should not. */
#include "page.h"

#ifdef L4RE_DEBUG
#include <unistd.h>

void debug_point(void)
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
#endif
