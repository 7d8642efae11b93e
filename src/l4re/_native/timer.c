/* Timers: a descriptor that is readable once a time has come, for event loops of all kinds. */
#include "leaf.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>

/* timer() -> fd of a new timer on the monotonic clock, not set */
static PyObject *timer(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* set_timer(fd, at_ns): readable from that monotonic time on, and not before; -1: never */
static PyObject *set_timer(PyObject *module, PyObject *args)
{
    (void)module;
    int fd;
    long long at;
    if (!PyArg_ParseTuple(args, "iL:set_timer", &fd, &at))
        return NULL;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (at >= 0)                                        /* all zero would disarm it */
        when.it_value = at ? (struct timespec){at / 1000000000, at % 1000000000} : (struct timespec){0, 1};
    if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"timer", timer, METH_NOARGS, "timer() -> fd of a monotonic timer, not set"},
    {"set_timer", set_timer, METH_VARARGS, "set_timer(fd, at_ns): when it becomes readable; -1: never"},
    {NULL, NULL, 0, NULL},
};

int leaf_timer_init(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
