/* Which parts of a reserved range are taken: runs of addresses in order, neighbours joined.
 *
 * The table is what keeps two mappings of one reserved range apart, since MAP_FIXED asks nobody. So a range is
 * entered before anything is mapped there, and given back when that is gone. */
#ifndef L4RE_RUNS_H
#define L4RE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run {
    uintptr_t start, end;
};

struct runs {
    struct run *first;
    size_t count, room;
    size_t holders;             /* ranges taken and not given back: there are never more runs than these */
};

/* Whether nothing in [start, end) is taken. */
bool runs_free(const struct runs *runs, uintptr_t start, uintptr_t end);
/* The lowest multiple of `align` in [from, end) with `length` free bytes; 0: there is none. */
uintptr_t runs_search(const struct runs *runs, uintptr_t from, uintptr_t end, uintptr_t length, uintptr_t align);
/* Make room for one more holder, so that nothing that follows can fail. */
bool runs_prepare(struct runs *runs);
/* Take a free range, for a holder that was prepared. */
void runs_take(struct runs *runs, uintptr_t start, uintptr_t end);
/* Give a taken range back, or a part of one. `holders` is the caller's to change. */
void runs_give(struct runs *runs, uintptr_t start, uintptr_t end);

#endif
