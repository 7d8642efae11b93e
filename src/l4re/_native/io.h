/* What session.c and loop.c use of io.c. */
#ifndef L4RE_IO_H
#define L4RE_IO_H

#include "leaf.h"

#include <sched.h>
#include <sys/types.h>
#include <time.h>

enum {
    IO_MAX_FDS = 64,            /* descriptors in one message: 16 capabilities */
    IO_MAX_DATAGRAM = 1024,
    IO_DERIVE_BYTE = 'D',       /* in a notification pipe: look at the socket beside it */
    IO_CPUS = 64,               /* any other byte says where it was written, plus one: a hint */
};

/* What a notification pipe held. */
struct drained {
    bool control;               /* look at the socket beside it */
    bool end;                   /* nobody holds the other side */
    unsigned cpu;               /* of the last trigger; 0: it was not triggered */
};

/* 0, or -errno. Never blocks, never raises a signal. */
int io_send(int fd, const void *data, size_t size, const int *fds, int count);
/* Bytes received (0: the other side is gone), or -errno. What arrives is guarded;
 * a truncated message is closed whole and gives -EMSGSIZE. */
ssize_t io_recv(int fd, void *data, size_t size, int *fds, int *count);
ssize_t io_recv_flags(int fd, void *data, size_t size, int *fds, int *count, int flags);
int io_trigger(int fd, char byte);
static inline char io_trigger_byte(void) { return (char)(1 + sched_getcpu() % IO_CPUS); }
/* Empty a notification pipe. 0, -EAGAIN: nothing is there, or another -errno. The open file may be shared with
 * whoever made it, so its O_NONBLOCK is not to be relied upon: RWF_NOWAIT, or (before Linux 5.x for pipes) a
 * look at FIONREAD first. */
int io_drain(int fd, struct drained *found);
void io_close_all(const int *fds, int count);

int io_fds_from(PyObject *sequence, int *fds);          /* count, or -1 with an exception */
PyObject *io_fds_tuple(const int *fds, int count);      /* takes the descriptors, also when it fails */

static inline int64_t io_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
