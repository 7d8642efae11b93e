/* Watches on memory: whoever made it hears when nobody anywhere holds or maps it any more, and keeps it from nothing. */
#include "leaf.h"

#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

/* watches() -> fd of a new set of watches */
static PyObject *watches(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* watch_memory(set, fd) -> number of the watch */
static PyObject *watch_memory(PyObject *module, PyObject *args)
{
    (void)module;
    int set, fd;
    char path[32];
    if (!PyArg_ParseTuple(args, "ii:watch_memory", &set, &fd))
        return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int number = inotify_add_watch(set, path, IN_DELETE_SELF);
    return number < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(number);
}

/* gone(set) -> list of the watches whose memory is gone, as many as one read gives; -1 in it: some went untold */
static PyObject *gone(PyObject *module, PyObject *arg)
{
    (void)module;
    long set = PyLong_AsLong(arg);
    if (set == -1 && PyErr_Occurred())
        return NULL;
    _Alignas(struct inotify_event) char buffer[4096];
    ssize_t got = read((int)set, buffer, sizeof buffer);
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *list = PyList_New(0);
    for (ssize_t at = 0; list && at < got;) {
        const struct inotify_event *event = (const struct inotify_event *)(buffer + at);
        at += (ssize_t)(sizeof *event + event->len);
        if (!(event->mask & (IN_DELETE_SELF | IN_Q_OVERFLOW)))
            continue;                                   /* IN_IGNORED follows every end */
        PyObject *number = PyLong_FromLong(event->mask & IN_Q_OVERFLOW ? -1 : event->wd);
        if (!number || PyList_Append(list, number) < 0)
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    return list;
}

static PyMethodDef functions[] = {
    {"watches", watches, METH_NOARGS, "watches() -> fd of a new set of watches"},
    {"watch_memory", watch_memory, METH_VARARGS, "watch_memory(set, fd) -> number: heard of when that memory is gone"},
    {"gone", gone, METH_O, "gone(set) -> numbers of those whose memory is gone, once each; -1: some were lost"},
    {NULL, NULL, 0, NULL},
};

int leaf_watch_init(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
