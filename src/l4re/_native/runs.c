#include "runs.h"

#include <stdlib.h>
#include <string.h>

/* The first run that ends behind `address`. */
static size_t behind(const struct runs *runs, uintptr_t address)
{
    size_t low = 0, high = runs->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (runs->first[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void insert(struct runs *runs, size_t at, struct run run)
{
    memmove(runs->first + at + 1, runs->first + at, (runs->count - at) * sizeof run);
    runs->first[at] = run;
    runs->count++;
}

static void drop(struct runs *runs, size_t at)
{
    runs->count--;
    memmove(runs->first + at, runs->first + at + 1, (runs->count - at) * sizeof *runs->first);
}

bool runs_free(const struct runs *runs, uintptr_t start, uintptr_t end)
{
    size_t i = behind(runs, start);
    return i == runs->count || runs->first[i].start >= end;
}

uintptr_t runs_search(const struct runs *runs, uintptr_t from, uintptr_t end, uintptr_t length, uintptr_t align)
{
    for (size_t i = behind(runs, from); from < end; i++) {
        uintptr_t start = (from + align - 1) & ~(align - 1);
        uintptr_t limit = i < runs->count ? runs->first[i].start : end;
        if (start < from || start >= end)
            return 0;
        if (limit > start && limit - start >= length)
            return start;
        if (i == runs->count)
            return 0;
        from = runs->first[i].end;
    }
    return 0;
}

bool runs_prepare(struct runs *runs)
{
    if (runs->holders < runs->room)
        return true;
    size_t room = runs->room ? 2 * runs->room : 8;
    struct run *first = realloc(runs->first, room * sizeof *first);
    if (!first)
        return false;
    runs->first = first;
    runs->room = room;
    return true;
}

void runs_take(struct runs *runs, uintptr_t start, uintptr_t end)
{
    size_t i = behind(runs, start);
    bool before = i && runs->first[i - 1].end == start, after = i < runs->count && runs->first[i].start == end;
    runs->holders++;
    if (before && after) {
        runs->first[i - 1].end = runs->first[i].end;
        drop(runs, i);
    } else if (before) {
        runs->first[i - 1].end = end;
    } else if (after) {
        runs->first[i].start = start;
    } else {
        insert(runs, i, (struct run){start, end});
    }
}

void runs_give(struct runs *runs, uintptr_t start, uintptr_t end)
{
    size_t i = behind(runs, start);
    struct run run = runs->first[i];
    if (run.start == start && run.end == end) {
        drop(runs, i);
    } else if (run.start == start) {
        runs->first[i].start = end;
    } else if (run.end == end) {
        runs->first[i].end = start;
    } else {
        runs->first[i].end = start;
        insert(runs, i + 1, (struct run){end, run.end});
    }
}
