/* Descriptors a forked child must not keep.
 *
 * A server end that lives on in a child would hide the server's death from its
 * clients. So server ends, session sockets and epoll descriptors are *guarded*:
 * a pthread_atfork handler closes them in the child (never shuts them down: the
 * parent goes on using them). The set is a bitmap of atomic words, so that a
 * fork in another thread sees it whole at any moment. */
#include "leaf.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define MAX_FD (1 << 20)

static _Atomic uint64_t guarded[MAX_FD / 64];
static _Atomic int highest;              /* highest word ever used, plus one */
static _Atomic uint32_t generation;

static void in_child(void)
{
    int words = atomic_load(&highest);
    for (int w = 0; w < words; w++)
        for (uint64_t set = atomic_exchange(&guarded[w], 0); set; set &= set - 1)
            close(w * 64 + __builtin_ctzll(set));
    atomic_fetch_add(&generation, 1);
}

void leaf_guard(int fd)
{
    if (fd < 0 || fd >= MAX_FD)
        return;
    int word = fd / 64, seen = atomic_load(&highest);
    while (seen <= word && !atomic_compare_exchange_weak(&highest, &seen, word + 1))
        ;
    atomic_fetch_or(&guarded[word], 1ull << (fd % 64));
}

void leaf_unguard(int fd)
{
    if (fd >= 0 && fd < MAX_FD)
        atomic_fetch_and(&guarded[fd / 64], ~(1ull << (fd % 64)));
}

void leaf_close_guarded(int fd)
{
    L4RE_POINT("close: a guarded descriptor, still open");
    leaf_unguard(fd);
    close(fd);
}

uint32_t leaf_generation(void) { return atomic_load_explicit(&generation, memory_order_relaxed); }

static PyObject *py_guard(PyObject *self, PyObject *arg)
{
    (void)self;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    leaf_guard((int)fd);
    Py_RETURN_NONE;
}

static PyObject *py_unguard(PyObject *self, PyObject *arg)
{
    (void)self;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    leaf_unguard((int)fd);
    Py_RETURN_NONE;
}

static PyObject *py_generation(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromUnsignedLong(leaf_generation());
}

static PyMethodDef methods[] = {
    {"guard", py_guard, METH_O, "guard(fd): close this descriptor in a forked child."},
    {"unguard", py_unguard, METH_O, "unguard(fd): a forked child keeps this descriptor."},
    {"generation", py_generation, METH_NOARGS, "generation() -> int: how many forks lie between this process and the first."},
    {NULL, NULL, 0, NULL},
};

int leaf_fork_init(PyObject *module)
{
    static bool installed;
    if (!installed && pthread_atfork(NULL, NULL, in_child)) {
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
        return -1;
    }
    installed = true;
    return PyModule_AddFunctions(module, methods);
}
