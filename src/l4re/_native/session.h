/* The client half of a session, for those who call through one. */
#ifndef L4RE_SESSION_H
#define L4RE_SESSION_H

#include "message.h"

typedef struct {
    PyObject_HEAD
    struct page *page;
    struct inbox inbox;
    struct spin spin;
    uint64_t sequence;
    uint32_t generation;
    int sock, watch;
    bool busy, closing, dead;           /* dead: never to be used again */
    bool open_post, open_fds;           /* posted and neither collected nor withdrawn; with descriptors */
    unsigned peer_cpu;                  /* where the last reply was written, plus one: a hint */
    uint64_t calls, rings, sleeps;
} Session;

extern PyTypeObject *session_type;

/* Send the message, which is released, and wait for the answer: a tuple (of `type`, if that is not NULL),
 * a status as an int, or NULL with an exception. */
PyObject *session_exchange(Session *session, struct outgoing *message, int64_t timeout, unsigned flags, PyTypeObject *type);

#endif
