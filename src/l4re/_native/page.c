/* What both halves of a session do with the page and the socket beside it. */
#include "page.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct page *page_map(int memfd)
{
    struct page *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (page == MAP_FAILED)
        return NULL;
    madvise(page, PAGE_BYTES, MADV_DONTFORK);           /* a forked child must not see a call of its parent */
    return page;
}

int64_t spin_setting(void)
{
    const char *setting = getenv("L4RE_SPIN_US");
    char *end;
    double microseconds = setting ? strtod(setting, &end) : -1;
    if (!setting || end == setting || !(microseconds >= 0 && microseconds <= 1e6))
        return SPIN_DEFAULT_NS;
    return (int64_t)(microseconds * 1000);
}

bool outgoing_parse(struct outgoing *message, PyObject *const *args)
{
    *message = (struct outgoing){0};
    message->label = PyLong_AsLongLong(args[0]);
    if (message->label == -1 && PyErr_Occurred())
        return false;
    long items = PyLong_AsLong(args[3]);
    if (items == -1 && PyErr_Occurred())
        return false;
    if (PyObject_GetBuffer(args[1], &message->words, PyBUF_SIMPLE) < 0)
        return false;
    if (PyObject_GetBuffer(args[2], &message->data, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&message->words);
        return false;
    }
    message->items = (unsigned)items;
    message->count = args[4] == Py_None ? 0 : io_fds_from(args[4], message->fds);
    if (message->count < 0 || message->words.len > PAGE_WORDS * 8 || message->data.len > PAGE_LONG || items < 0 ||
        items > PAGE_ITEMS || items * 16 > message->words.len) {
        outgoing_release(message);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the message does not fit the page");
        return false;
    }
    return true;
}

void outgoing_release(struct outgoing *message)
{
    PyBuffer_Release(&message->words);
    PyBuffer_Release(&message->data);
}

void inbox_clear(struct inbox *inbox)
{
    io_close_all(inbox->fds, inbox->count);
    inbox->count = 0;
}

/* One packet; false when there was none (or the end, or an error: see the flags). */
static bool inbox_read(struct inbox *inbox, int sock, int flags, char *kind)
{
    struct packet packet;
    int fds[IO_MAX_FDS], count;
    ssize_t got = io_recv_flags(sock, &packet, sizeof packet, fds, &count, flags);
    if (got <= 0) {
        if (got == 0)
            inbox->end = true;
        else if (got != -EAGAIN && got != -EINTR)
            inbox->broken = true;
        return false;
    }
    *kind = packet.kind;
    if (packet.kind == 'C' && got >= (ssize_t)offsetof(struct packet, text) && count && !inbox->count) {
        memcpy(inbox->fds, fds, sizeof(int) * (size_t)count);
        inbox->count = count;
        inbox->sequence = packet.sequence;
        return true;
    }
    io_close_all(fds, count);
    if (packet.kind == 'R') {
        size_t length = (size_t)got > offsetof(struct packet, text) ? (size_t)got - offsetof(struct packet, text) : 0;
        if (length >= sizeof inbox->refusal)
            length = sizeof inbox->refusal - 1;
        memcpy(inbox->refusal, packet.text, length);
        inbox->refusal[length] = 0;
        inbox->refused = true;
    } else if (packet.kind != 'w' || count)
        inbox->broken = true;
    return true;
}

bool inbox_drain(struct inbox *inbox, int sock, bool block)
{
    char kind;
    while (inbox_read(inbox, sock, block ? 0 : MSG_DONTWAIT, &kind)) {
        if (kind != 'C' || inbox->broken)
            return true;
        block = false;
    }
    return false;
}

bool inbox_claim(struct inbox *inbox, int sock, uint64_t sequence, unsigned count)
{
    char kind;
    for (int packets = 0; packets < 1024; packets++) {  /* wake-ups may lie before it */
        if (inbox->count && inbox->sequence == sequence)
            return (unsigned)inbox->count == count;
        if (inbox->broken || !inbox_read(inbox, sock, MSG_DONTWAIT, &kind))
            return false;
    }
    return false;
}

PyObject *page_tuple(struct page *page, const struct head *head, struct inbox *inbox, PyObject *first, PyObject *second)
{
    PyObject *caps = NULL, *result = NULL;
    PyObject *label = PyLong_FromLongLong(head->label);
    PyObject *words = PyBytes_FromStringAndSize((const char *)page->words, head->words * 8);
    PyObject *data = PyBytes_FromStringAndSize(page->long_area, head->size);
    if (!head->items && !head->fds)
        caps = PyTuple_New(0);
    else {
        int count = head->fds ? inbox->count : 0;
        if (head->fds)
            inbox->count = 0;
        PyObject *fds = io_fds_tuple(inbox->fds, count);
        if (fds)
            caps = Py_BuildValue("IN", head->items, fds);
    }
    if (label && words && data && caps)
        result = first ? PyTuple_Pack(6, first, second, label, words, data, caps) : PyTuple_Pack(4, label, words, data, caps);
    Py_XDECREF(label);
    Py_XDECREF(words);
    Py_XDECREF(data);
    Py_XDECREF(caps);
    return result;
}
