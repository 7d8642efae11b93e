#include "message.h"

static bool view(PyObject *object, const void **start, size_t *size, Py_buffer *buffer)
{
    if (PyBytes_CheckExact(object)) {
        *start = PyBytes_AsString(object);
        *size = (size_t)PyBytes_Size(object);
        return true;
    }
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE) < 0) {
        buffer->obj = NULL;
        return false;
    }
    *start = buffer->buf;
    *size = (size_t)buffer->len;
    return true;
}

bool outgoing_take(struct outgoing *message, PyObject *label, PyObject *words, PyObject *data)
{
    message->views[0].obj = message->views[1].obj = NULL;
    message->items = 0;
    message->count = 0;
    message->lent = 0;
    message->unsent = false;
    message->word_bytes = 0;
    message->label = label ? PyLong_AsLongLong(label) : 0;
    if (message->label == -1 && PyErr_Occurred())
        return false;
    if ((words && !view(words, &message->words, &message->word_bytes, &message->views[0])) ||
        !view(data, &message->data, &message->size, &message->views[1]))
        return false;
    if (message->word_bytes <= PAGE_WORDS * 8 && message->size <= PAGE_LONG)
        return true;
    PyErr_SetString(PyExc_ValueError, "the message does not fit the page");
    return false;
}

bool outgoing_parse(struct outgoing *message, PyObject *const *args)
{
    if (!outgoing_take(message, args[0], args[1], args[2]))
        return false;
    long items = PyLong_AsLong(args[3]);
    if (items == -1 && PyErr_Occurred())
        return false;
    if (args[4] != Py_None && (message->count = io_fds_from(args[4], message->fds)) < 0)
        return false;
    if (items >= 0 && items <= PAGE_ITEMS && (size_t)items * 16 <= message->word_bytes) {
        message->items = (unsigned)items;
        return true;
    }
    PyErr_SetString(PyExc_ValueError, "the message does not fit the page");
    return false;
}

bool incoming_read(struct incoming *message, struct page *page, const struct head *head, struct inbox *inbox)
{
    message->label = PyLong_FromLongLong(head->label);
    message->words = PyBytes_FromStringAndSize((const char *)page->words, head->words * 8);
    message->data = PyBytes_FromStringAndSize(page->long_area, head->size);
    if (!head->items && !head->fds)
        message->caps = PyTuple_New(0);
    else {
        int count = head->fds ? inbox->count : 0;
        if (head->fds)
            inbox->count = 0;
        PyObject *fds = io_fds_tuple(inbox->fds, count);
        message->caps = fds ? Py_BuildValue("IN", head->items, fds) : NULL;
    }
    if (message->label && message->words && message->data && message->caps)
        return true;
    incoming_release(message);
    return false;
}

void incoming_release(struct incoming *message)
{
    Py_CLEAR(message->label);
    Py_CLEAR(message->words);
    Py_CLEAR(message->data);
    Py_CLEAR(message->caps);
}

PyObject *incoming_tuple(struct incoming *message, PyTypeObject *type)
{
    PyObject *tuple = type ? PyType_GenericAlloc(type, 4) : PyTuple_New(4);
    if (!tuple) {
        incoming_release(message);
        return NULL;
    }
    PyTuple_SetItem(tuple, 0, message->label);
    PyTuple_SetItem(tuple, 1, message->words);
    PyTuple_SetItem(tuple, 2, message->data);
    PyTuple_SetItem(tuple, 3, message->caps);
    return tuple;
}
