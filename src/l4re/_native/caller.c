/* What a gate is in C: which session a thread calls through, and the call of a message that has nothing special.
 *
 * No capabilities but to memory, a session that is open and idle, an answer that is no error and brings no other
 * capabilities either: that is one function from Python's arguments to Python's answer. In every other case the class
 * that derives from this one is asked, by its methods _call, _transact, _resume and _received. */
#include "session.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *sessions;                 /* a dict: the call path of each thread */
    Session *at_hand;                   /* the one of `thread`, who called last */
    unsigned long thread;
} Caller;

static PyTypeObject *message_type;
static PyObject *no_bytes, *nothing;

/* The session of this thread: a new reference, or NULL if there is none (or a path that is no session). */
static Session *session_of_thread(Caller *c)
{
    unsigned long thread = PyThread_get_thread_ident();
    if (c->at_hand && c->thread == thread)
        return (Session *)Py_NewRef((PyObject *)c->at_hand);
    PyObject *key = PyLong_FromUnsignedLong(thread);
    PyObject *path = key ? PyDict_GetItemWithError(c->sessions, key) : NULL;
    Py_XDECREF(key);
    if (!path || Py_TYPE(path) != session_type) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *before = (PyObject *)c->at_hand;
    c->at_hand = (Session *)Py_NewRef(path);
    c->thread = thread;
    Py_INCREF(path);
    Py_XDECREF(before);
    return (Session *)path;
}

/* Call the method `name` with the arguments that came. */
static PyObject *hand_on(Caller *c, const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)c, name), *result = NULL;
    PyObject *positional = PyTuple_New(count), *named = names ? PyDict_New() : NULL;
    bool built = method && positional && (!names || named);
    for (Py_ssize_t i = 0; built && i < count; i++)
        PyTuple_SetItem(positional, i, Py_NewRef(args[i]));
    for (Py_ssize_t i = 0; built && names && i < PyTuple_Size(names); i++)
        built = PyDict_SetItem(named, PyTuple_GetItem(names, i), args[count + i]) == 0;
    if (built)
        result = PyObject_Call(method, positional, named);
    Py_XDECREF(method);
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return result;
}

/* A call as its arguments describe it; `plain` unless they ask for something that is not done here. */
struct wanted {
    PyObject *label, *words, *data, *caps, *timeout;    /* borrowed; label, caps and timeout may be NULL */
    int64_t timeout_ns;
    unsigned flags;
    bool plain;
};

/* Seconds or None; a mistake is not plain. */
static bool within(struct wanted *wanted, PyObject *timeout)
{
    wanted->timeout = timeout;
    if (timeout == Py_None)
        return true;
    double seconds = PyFloat_CheckExact(timeout) || PyLong_CheckExact(timeout) ? PyFloat_AsDouble(timeout) : -1;
    if (seconds == -1)
        PyErr_Clear();
    if (!(seconds >= 0 && seconds < 1e9))
        return false;
    wanted->timeout_ns = (int64_t)(seconds * 1e9);
    return true;
}

static bool no_caps(PyObject *caps) { return PyTuple_CheckExact(caps) && PyTuple_Size(caps) == 0; }

static void option(struct wanted *wanted, PyObject *name, PyObject *value)
{
    if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0)
        wanted->plain &= within(wanted, value);
    else if (PyUnicode_CompareWithASCIIString(name, "label") == 0)
        wanted->label = value;
    else if (PyUnicode_CompareWithASCIIString(name, "caps") == 0)
        wanted->caps = no_caps(value) ? NULL : value;
    else if (PyUnicode_CompareWithASCIIString(name, "oneway") == 0 && PyBool_Check(value))
        wanted->flags = value == Py_True ? ONE_WAY : 0;
    else
        wanted->plain = false;
}

/* Whether these are capabilities, or none; else (items, descriptors). */
static bool caps_made(PyObject *caps) { return PyTuple_Size(caps) == 0 || !PyLong_CheckExact(PyTuple_GetItem(caps, 0)); }

/* Make capabilities of what came with an answer, if it is memory; false with an exception. */
static bool import(PyObject **answer)
{
    PyObject *words = Py_NewRef(PyTuple_GetItem(*answer, 1)), *caps = Py_NewRef(PyTuple_GetItem(*answer, 3));
    int made = memory_import(&words, &caps);
    if (made > 0) {
        PyTuple_SetItem(*answer, 1, words);
        PyTuple_SetItem(*answer, 3, caps);
        return true;
    }
    Py_DECREF(words);
    Py_DECREF(caps);
    if (made < 0)
        Py_CLEAR(*answer);
    return made == 0;
}

/* The answer, if it is one like most; otherwise what _resume() makes of it. NULL and plain set to false: go the
 * long way instead. */
static PyObject *exchange(Caller *c, struct wanted *wanted, PyTypeObject *type)
{
    struct outgoing message;
    Session *s = session_of_thread(c);
    if (!s || !outgoing_take(&message, wanted->label, wanted->words, wanted->data) ||
        (wanted->caps && !memory_export(wanted->caps, &message))) {
        if (s)
            outgoing_release(&message);
        Py_XDECREF((PyObject *)s);
        PyErr_Clear();                                  /* said better over there */
        wanted->plain = false;
        return NULL;
    }
    PyObject *answer = session_exchange(s, &message, wanted->timeout_ns, wanted->flags, type);
    if (answer && PyTuple_Check(answer) && !no_caps(PyTuple_GetItem(answer, 3)) && !import(&answer))
        answer = NULL;
    else if (!answer && message.unsent) {               /* not: what a signal handler raised while we waited */
        PyErr_Clear();
        wanted->plain = false;
    }
    if (answer && !(PyTuple_Check(answer) && caps_made(PyTuple_GetItem(answer, 3)))) {
        PyObject *status = answer, *label = wanted->label ? Py_NewRef(wanted->label) : PyLong_FromLong(0);
        PyObject *resume = PyObject_GetAttrString((PyObject *)c, "_resume");
        if (PyLong_Check(status) && c->at_hand == s) {  /* it may be spent: look it up next time */
            c->at_hand = NULL;
            Py_DECREF((PyObject *)s);
        }
        answer = label && resume ? PyObject_CallFunctionObjArgs(
            resume, (PyObject *)s, status, label, wanted->words, wanted->data, wanted->caps ? wanted->caps : nothing,
            wanted->timeout ? wanted->timeout : Py_None, wanted->flags ? Py_True : Py_False, NULL) : NULL;
        Py_XDECREF(resume);
        Py_XDECREF(label);
        Py_DECREF(status);
    }
    Py_DECREF((PyObject *)s);
    return answer;
}

static PyObject *caller_call(Caller *c, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct wanted wanted = {.words = no_bytes, .data = count ? args[0] : no_bytes, .timeout_ns = -1, .plain = count <= 1};
    for (Py_ssize_t i = 0; names && i < PyTuple_Size(names); i++)
        option(&wanted, PyTuple_GetItem(names, i), args[count + i]);
    PyObject *answer = wanted.plain && !wanted.flags ? exchange(c, &wanted, message_type) : NULL;
    if (!answer)
        return wanted.plain && !wanted.flags ? NULL : hand_on(c, "_call", args, count, names);
    if (Py_TYPE(answer) == message_type && PyLong_AsLongLong(PyTuple_GetItem(answer, 0)) >= 0)
        return answer;
    PyObject *received = PyObject_GetAttrString((PyObject *)c, "_received");
    PyObject *result = received ? PyObject_CallFunctionObjArgs(received, answer, NULL) : NULL;
    Py_XDECREF(received);
    Py_DECREF(answer);
    return result;
}

static PyObject *caller_transact(Caller *c, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct wanted wanted = {.data = count > 2 ? args[2] : no_bytes, .timeout_ns = -1, .plain = count >= 2 && count <= 4};
    if (wanted.plain) {
        wanted.words = args[1];
        for (Py_ssize_t i = 0; names && i < PyTuple_Size(names); i++)
            option(&wanted, PyTuple_GetItem(names, i), args[count + i]);
        wanted.plain &= !wanted.label && !(count == 4 && wanted.caps);
        wanted.label = args[0];
        if (count == 4 && !no_caps(args[3]))
            wanted.caps = args[3];
    }
    PyObject *answer = wanted.plain ? exchange(c, &wanted, NULL) : NULL;
    return answer || wanted.plain ? answer : hand_on(c, "_transact", args, count, names);
}

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    (void)args, (void)named;
    PyObject *sessions = PyDict_New();
    Caller *c = sessions ? (Caller *)PyType_GenericAlloc(type, 0) : NULL;
    if (c)
        c->sessions = sessions;
    else
        Py_XDECREF(sessions);
    return (PyObject *)c;
}

static int caller_traverse(Caller *c, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)c));
    Py_VISIT(c->sessions);
    return 0;
}

static int caller_clear(Caller *c)
{
    PyObject *session = (PyObject *)c->at_hand;
    c->at_hand = NULL;
    Py_XDECREF(session);
    PyDict_Clear(c->sessions);                          /* kept: a finalizer may still call */
    return 0;
}

static void caller_dealloc(Caller *c)
{
    PyTypeObject *type = Py_TYPE((PyObject *)c);
    PyObject_GC_UnTrack(c);
    Py_XDECREF((PyObject *)c->at_hand);
    Py_XDECREF(c->sessions);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(c);
    Py_DECREF(type);
}

/* answer_with(type): what call() returns, a subclass of tuple with no slots of its own. */
static PyObject *answer_with(PyObject *module, PyObject *type)
{
    (void)module;
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "a subclass of tuple is needed");
        return NULL;
    }
    PyObject *before = (PyObject *)message_type;
    message_type = (PyTypeObject *)Py_NewRef(type);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))caller_call, METH_FASTCALL | METH_KEYWORDS,
     "call($self, /, data=b'', *, label=0, caps=(), timeout=None)\n--\n\n"
     "Send data (at most 60 KiB) and capabilities, and wait for the answer."},
    {"transact", (PyCFunction)(void (*)(void))caller_transact, METH_FASTCALL | METH_KEYWORDS,
     "transact($self, /, label, words, data=b'', caps=(), timeout=None, oneway=False)\n--\n\n"
     "Send one message and return the answer as it came: label, words, long data, capabilities."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_sessions", T_OBJECT_EX, offsetof(Caller, sessions), READONLY, "the call path of each thread"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, caller_new}, {Py_tp_dealloc, caller_dealloc}, {Py_tp_traverse, caller_traverse},
    {Py_tp_clear, caller_clear}, {Py_tp_methods, methods}, {Py_tp_members, members}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "l4re._native.leaf.Caller",
    .basicsize = sizeof(Caller),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static PyMethodDef functions[] = {
    {"answer_with", answer_with, METH_O, "answer_with(type): what Caller.call() returns"},
    {NULL, NULL, 0, NULL},
};

int leaf_caller_init(PyObject *module)
{
    message_type = (PyTypeObject *)Py_NewRef((PyObject *)&PyTuple_Type);
    no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    nothing = PyTuple_New(0);
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!no_bytes || !nothing || !type || PyModule_AddType(module, type) < 0)
        return -1;
    Py_DECREF((PyObject *)type);
    return PyModule_AddFunctions(module, functions);
}
