/* Descriptors with one owner.
 *
 * Every capability that comes or goes makes and drops a few of these, so making one costs little more than
 * the object and dropping one little more than close(). A guarded descriptor is closed in a forked child by
 * fork.c: there the owner counts as closed, and its number may be somebody else's by now. */
#include "io.h"

#include <errno.h>
#include <structmember.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    int fd;                             /* -1 once closed */
    bool guarded;
    uint32_t generation;                /* of a guarded one: when it was made */
    PyObject *what;                     /* for people to read */
} Owner;

static PyObject *some_descriptor;       /* "descriptor" */
static PyTypeObject *owner_type;

static inline bool left_behind(Owner *o) { return o->guarded && o->generation != leaf_generation(); }

static PyObject *owner_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {"fd", "guarded", "what", NULL};
    int fd, guarded = false;
    PyObject *what = some_descriptor;
    if (named ? !PyArg_ParseTupleAndKeywords(args, named, "i|pU:Fd", names, &fd, &guarded, &what)
              : !PyArg_ParseTuple(args, "i|pU:Fd", &fd, &guarded, &what))
        return NULL;
    Owner *o = (Owner *)PyType_GenericAlloc(type, 0);
    if (!o)
        return NULL;
    o->fd = fd;
    o->guarded = guarded;
    o->generation = leaf_generation();
    o->what = Py_NewRef(what);
    (guarded ? leaf_guard : leaf_unguard)(fd);
    return (PyObject *)o;
}

bool leaf_owns(PyTypeObject *type) { return PyType_IsSubtype(type, owner_type); }

PyObject *leaf_owner(PyTypeObject *type, int fd, const char *what)
{
    PyObject *text = PyUnicode_InternFromString(what);
    Owner *o = text ? (Owner *)PyType_GenericAlloc(type, 0) : NULL;
    if (!o) {
        Py_XDECREF(text);
        leaf_close_guarded(fd);
        return NULL;
    }
    o->fd = fd;
    o->guarded = false;
    o->generation = leaf_generation();
    o->what = text;
    leaf_unguard(fd);
    return (PyObject *)o;
}

/* Forget the number, then close it. 0, or an errno. The last user of memory frees its pages: without the GIL. */
static int owner_release(Owner *o)
{
    int fd = o->fd, result = 0;
    o->fd = -1;
    if (fd < 0 || left_behind(o))
        return 0;
    if (o->guarded)
        leaf_unguard(fd);
    Py_BEGIN_ALLOW_THREADS
    result = close(fd) < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return result == EINTR ? 0 : result;
}

static void owner_dealloc(Owner *o)
{
    PyTypeObject *type = Py_TYPE((PyObject *)o);
    owner_release(o);
    Py_XDECREF(o->what);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(o);
    Py_DECREF(type);
}

static PyObject *owner_close(Owner *o, PyObject *unused)
{
    (void)unused;
    errno = owner_release(o);
    if (errno)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* The number; -1 with an exception if there is none any more. */
static int owner_number(Owner *o)
{
    if (o->fd >= 0 && !left_behind(o))
        return o->fd;
    /* Which class says "closed" is Python's business: a subclass names it. */
    PyObject *error = PyObject_GetAttrString((PyObject *)Py_TYPE((PyObject *)o), "closed_error");
    if (error)
        PyErr_Format(error, o->fd < 0 ? "this %U is closed" :
                     "this %U belongs to the process before the fork; a child does not keep it", o->what);
    Py_XDECREF(error);
    return -1;
}

int leaf_owner_fd(PyObject *owner)
{
    Owner *o = (Owner *)owner;
    return owner && PyType_IsSubtype(Py_TYPE(owner), owner_type) && !left_behind(o) ? o->fd : -1;
}

static PyObject *owner_fileno(Owner *o, PyObject *unused)
{
    (void)unused;
    int fd = owner_number(o);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

/* notify() -> bool: write one byte into a notification pipe; False: it is full, so one is pending anyhow. */
static PyObject *owner_notify(Owner *o, PyObject *unused)
{
    (void)unused;
    int fd = owner_number(o);
    if (fd < 0)
        return NULL;
    int result = io_trigger(fd, io_trigger_byte());
    if (result == 0 || result == -EAGAIN)
        return PyBool_FromLong(result == 0);
    errno = -result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *owner_detach(Owner *o, PyObject *unused)
{
    PyObject *number = owner_fileno(o, unused);
    if (number)
        o->fd = -1;
    return number;
}

static PyObject *owner_closed(Owner *o, void *closure)
{
    (void)closure;
    return PyBool_FromLong(o->fd < 0 || left_behind(o));
}

static PyMethodDef methods[] = {
    {"fileno", (PyCFunction)owner_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nReturn the number, lent for one system call.\n\nRaises:\n    Closed: there is none any more."},
    {"detach", (PyCFunction)owner_detach, METH_NOARGS,
     "detach($self, /)\n--\n\nGive the number away, guarded if it was; the caller owns it now."},
    {"notify", (PyCFunction)owner_notify, METH_NOARGS,
     "notify($self, /)\n--\n\nWrite one byte into a notification pipe; False: it is full, one is pending anyhow."},
    {"close", (PyCFunction)owner_close, METH_NOARGS, "close($self, /)\n--\n\nClose; a second call does nothing."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"closed", (getter)owner_closed, NULL, "Whether the descriptor is gone (closed here, or left behind by a fork).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"guarded", T_BOOL, offsetof(Owner, guarded), READONLY, "Whether a forked child does not keep it."},
    {"what", T_OBJECT_EX, offsetof(Owner, what), READONLY, "What it is, for people to read."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, owner_new}, {Py_tp_dealloc, owner_dealloc}, {Py_tp_methods, methods},
    {Py_tp_getset, getset}, {Py_tp_members, members}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "l4re._native.leaf.Owner",
    .basicsize = sizeof(Owner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

int leaf_fd_init(PyObject *module)
{
    if (!some_descriptor && !(some_descriptor = PyUnicode_InternFromString("descriptor")))
        return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = !type || PyObject_SetAttrString(type, "closed_error", PyExc_ValueError) ||
                 PyModule_AddObjectRef(module, "Owner", type);
    if (!failed)
        owner_type = (PyTypeObject *)Py_NewRef(type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
