/* A message as Python sees it, on its way into a page and out of one. */
#ifndef L4RE_MESSAGE_H
#define L4RE_MESSAGE_H

#include "page.h"

/* One message to send, out of Python's arguments, which stay theirs. */
struct outgoing {
    int64_t label;
    const void *words, *data;
    size_t word_bytes, size;
    unsigned items;
    int fds[IO_MAX_FDS], count;
    Py_buffer views[2];                                 /* of what is not bytes; obj is NULL for what is */
};

/* Only words and data; false with an exception. Whatever this returns, outgoing_release() comes next. */
bool outgoing_take(struct outgoing *message, PyObject *label, PyObject *words, PyObject *data);
/* (label, words, data, items, fds), and whether all of it fits a page. */
bool outgoing_parse(struct outgoing *message, PyObject *const *args);

static inline void outgoing_release(struct outgoing *message)
{
    for (int i = 0; i < 2; i++)
        if (message->views[i].obj)
            PyBuffer_Release(&message->views[i]);
}

/* One message that was received: label, words, data, and (items, fds) or (). */
struct incoming {
    PyObject *label, *words, *data, *caps;
};

/* Copy the message whose checked header is `head` out of the page; takes the inbox's descriptors.
 * False with an exception. */
bool incoming_read(struct incoming *message, struct page *page, const struct head *head, struct inbox *inbox);
void incoming_release(struct incoming *message);

/* The four as a tuple, or as a subclass of tuple; takes the message. NULL with an exception. */
PyObject *incoming_tuple(struct incoming *message, PyTypeObject *type);

#endif
