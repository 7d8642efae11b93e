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
    bool unsent;                                        /* its descriptors could not be sent: an exception says why */
    int lent;                                           /* how many owners of descriptors are held */
    PyObject *owners[PAGE_ITEMS];
    uint64_t joined[PAGE_WORDS];                        /* words and items, once there are items */
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
    while (message->lent)
        Py_DECREF(message->owners[--message->lent]);
}

/* handler.c: function(rights, label, words, data, caps), without the interpreter between where it is one of ours. */
PyObject *handler_call(PyObject *function, PyObject *const *args, Py_ssize_t count);

/* memory.c: add capabilities, if they are a tuple of memory that can be handed over as it is. False without an
 * exception: they are something else, and the message is as it was. */
bool memory_export(PyObject *caps, struct outgoing *message);
/* Make of the words and (items, descriptors) that were received the words before the items and a tuple of
 * capabilities, if they are all memory and the kernel confirms it. 1; 0: they are something else, and as they were;
 * -1 with an exception: the descriptors are closed. */
int memory_import(PyObject **words, PyObject **caps);

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
