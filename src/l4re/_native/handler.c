/* What a server object does with most requests, between the loop and the method its author wrote.
 *
 * raw_handler() makes the stream of a raw object and its answer; typed_handler() finds the generated handler of
 * an operation. Both give functions with the arguments of serve_request(), which does the same in Python and is
 * asked for all that is not usual. */
#include "message.h"

#include <structmember.h>

enum { LABEL_MAX = (1 << 15) - 1, OPCODE_BYTES = 4 };

/* ---- raw objects ---- */

/* The fields of an Iostream; what is NULL is None, and made when it is asked for. */
typedef struct {
    PyObject_HEAD
    long long label;
    PyObject *words, *data, *caps;      /* received */
    PyObject *reader, *writer, *put;
} Frame;

static PyObject *no_bytes, *no_caps, *dispatch, *answer, *serve_request, *put_other;

static int frame_traverse(Frame *f, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)f));
    Py_VISIT(f->words);
    Py_VISIT(f->data);
    Py_VISIT(f->caps);
    Py_VISIT(f->reader);
    Py_VISIT(f->writer);
    Py_VISIT(f->put);
    return 0;
}

static int frame_clear(Frame *f)
{
    Py_CLEAR(f->words);
    Py_CLEAR(f->data);
    Py_CLEAR(f->caps);
    Py_CLEAR(f->reader);
    Py_CLEAR(f->writer);
    Py_CLEAR(f->put);
    return 0;
}

static void frame_dealloc(Frame *f)
{
    PyTypeObject *type = Py_TYPE((PyObject *)f);
    PyObject_GC_UnTrack(f);
    frame_clear(f);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(f);
    Py_DECREF(type);
}

static PyObject *frame_put(Frame *f, PyObject *data)
{
    if (!PyBytes_CheckExact(data) || PyBytes_Size(data) > PAGE_LONG)
        return PyObject_CallMethodObjArgs((PyObject *)f, put_other, data, NULL);
    PyObject *before = f->put;
    f->put = Py_NewRef(data);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyMethodDef frame_methods[] = {
    {"put", (PyCFunction)frame_put, METH_O,
     "put($self, data, /)\n--\n\nSet the long data to send, beside the words.\n\n"
     "Raises:\n    MessageTooLong: more than 60 KiB."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef frame_members[] = {
    {"_label", T_LONGLONG, offsetof(Frame, label), 0, NULL},
    {"_words", T_OBJECT_EX, offsetof(Frame, words), 0, NULL},
    {"data", T_OBJECT_EX, offsetof(Frame, data), 0, NULL},
    {"caps", T_OBJECT_EX, offsetof(Frame, caps), 0, NULL},
    {"_reader", T_OBJECT, offsetof(Frame, reader), 0, NULL},
    {"_writer", T_OBJECT, offsetof(Frame, writer), 0, NULL},
    {"_long", T_OBJECT_EX, offsetof(Frame, put), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot frame_slots[] = {
    {Py_tp_dealloc, frame_dealloc}, {Py_tp_traverse, frame_traverse}, {Py_tp_clear, frame_clear},
    {Py_tp_members, frame_members}, {Py_tp_methods, frame_methods}, {0, NULL},
};

static PyType_Spec frame_spec = {
    .name = "l4re._native.leaf.Frame",
    .basicsize = sizeof(Frame),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = frame_slots,
};

/* ---- what the two have in common: a function with something behind it ---- */

typedef struct {
    PyObject_HEAD
    PyObject *object;                   /* the server object */
    PyTypeObject *stream;               /* raw: the subclass of Frame, and rights by number */
    PyObject *rights;
    PyObject *tables;                   /* typed: label -> opcode in bytes -> handler */
    PyObject *handler;                  /* typed: the last one found, for `label` and `opcode` */
    int64_t label;
    uint32_t opcode;
} Behind;

static PyTypeObject *behind_type;

static int behind_traverse(Behind *b, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)b));
    Py_VISIT(b->object);
    Py_VISIT((PyObject *)b->stream);
    Py_VISIT(b->rights);
    Py_VISIT(b->tables);
    Py_VISIT(b->handler);
    return 0;
}

static void behind_dealloc(Behind *b)
{
    PyTypeObject *type = Py_TYPE((PyObject *)b);
    PyObject_GC_UnTrack(b);
    Py_XDECREF(b->object);
    Py_XDECREF((PyObject *)b->stream);
    Py_XDECREF(b->rights);
    Py_XDECREF(b->tables);
    Py_XDECREF(b->handler);
    PyObject_GC_Del(b);
    Py_DECREF(type);
}

static PyType_Slot behind_slots[] = {
    {Py_tp_dealloc, behind_dealloc}, {Py_tp_traverse, behind_traverse}, {0, NULL},
};

static PyType_Spec behind_spec = {
    .name = "l4re._native.leaf.Behind",
    .basicsize = sizeof(Behind),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = behind_slots,
};

static Behind *behind(PyObject *object)
{
    Behind *b = PyObject_GC_New(Behind, behind_type);
    if (!b)
        return NULL;
    memset((char *)b + sizeof(PyObject), 0, sizeof *b - sizeof(PyObject));
    b->object = Py_NewRef(object);
    PyObject_GC_Track(b);
    return b;
}

/* ---- raw ---- */

static PyObject *handle_raw(Behind *b, PyObject *const *args, Py_ssize_t count)
{
    long rights = count == 5 ? PyLong_AsLong(args[0]) & 3 : -1, result;
    long long label = rights >= 0 ? PyLong_AsLongLong(args[1]) : 0;
    Frame *f = PyErr_Occurred() ? NULL : (Frame *)PyType_GenericAlloc(b->stream, 0);
    if (!f || rights < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "rights, label, words, data and capabilities are needed");
        Py_XDECREF((PyObject *)f);
        return NULL;
    }
    f->label = label;
    f->words = Py_NewRef(args[2]);
    f->data = Py_NewRef(args[3]);
    f->caps = Py_NewRef(args[4]);
    f->put = Py_NewRef(no_bytes);
    PyObject *returned = PyObject_CallMethodObjArgs(b->object, dispatch, PyTuple_GetItem(b->rights, rights), (PyObject *)f, NULL);
    PyObject *reply = NULL;
    if (returned && PyLong_CheckExact(returned) && !f->writer && f->put) {
        result = PyLong_AsLong(returned);
        if (result >= 0 && result <= LABEL_MAX)
            reply = PyTuple_Pack(4, returned, no_bytes, f->put, no_caps);
        PyErr_Clear();
    }
    if (returned && !reply)
        reply = PyObject_CallMethodObjArgs(b->object, answer, returned, (PyObject *)f, NULL);
    Py_XDECREF(returned);
    Py_DECREF((PyObject *)f);
    return reply;
}

/* ---- typed ---- */

/* The handler of this request's operation, lent; NULL without an exception if it is in no table. */
static PyObject *operation(Behind *b, PyObject *label, PyObject *words)
{
    uint32_t opcode;
    int64_t number = PyLong_AsLongLong(label);
    if (PyErr_Occurred() || !PyBytes_Check(words) || PyBytes_Size(words) < OPCODE_BYTES)
        return NULL;
    memcpy(&opcode, PyBytes_AsString(words), OPCODE_BYTES);
    if (b->handler && number == b->label && opcode == b->opcode)
        return b->handler;
    PyObject *table = PyDict_GetItemWithError(b->tables, label);
    if (!table || !PyDict_CheckExact(table))
        return NULL;
    PyObject *key = PyBytes_FromStringAndSize((const char *)&opcode, OPCODE_BYTES);
    PyObject *handler = key ? PyDict_GetItemWithError(table, key) : NULL;
    Py_XDECREF(key);
    if (handler) {
        PyObject *before = b->handler;
        b->handler = Py_NewRef(handler);
        b->label = number;
        b->opcode = opcode;
        Py_XDECREF(before);
    }
    return handler;
}

static PyObject *handle_typed(Behind *b, PyObject *const *args, Py_ssize_t count)
{
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "rights, label, words, data and capabilities are needed");
        return NULL;
    }
    PyObject *handler = operation(b, args[1], args[2]), *reply;
    if (!handler) {
        if (PyErr_Occurred())
            return NULL;
        return PyObject_CallMethodObjArgs(b->object, serve_request, args[0], args[1], args[2], args[3], args[4], NULL);
    }
    Py_INCREF(handler);                                 /* the next request may come while this one is served */
    reply = PyObject_CallFunctionObjArgs(handler, b->object, args[0], args[2], args[3], args[4], NULL);
    Py_DECREF(handler);
    return reply;
}

/* ---- the module ---- */

static PyMethodDef raw_definition = {
    "raw_handler", (PyCFunction)(void (*)(void))handle_raw, METH_FASTCALL, "(rights, label, words, data, caps) -> answer",
};

static PyMethodDef typed_definition = {
    "typed_handler", (PyCFunction)(void (*)(void))handle_typed, METH_FASTCALL, "(rights, label, words, data, caps) -> answer",
};

PyObject *handler_call(PyObject *function, PyObject *const *args, Py_ssize_t count)
{
    if (Py_TYPE(function) == &PyCFunction_Type) {
        PyObject *self = PyCFunction_GetSelf(function);
        PyCFunction ours = PyCFunction_GetFunction(function);
        if (ours == raw_definition.ml_meth)
            return handle_raw((Behind *)self, args, count);
        if (ours == typed_definition.ml_meth)
            return handle_typed((Behind *)self, args, count);
    }
    return PyObject_CallFunctionObjArgs(function, args[0], args[1], args[2], args[3], args[4], NULL);
}

static PyObject *function_of(Behind *b, PyMethodDef *definition)
{
    PyObject *function = b ? PyCFunction_NewEx(definition, (PyObject *)b, NULL) : NULL;
    Py_XDECREF((PyObject *)b);
    return function;
}

/* raw_handler(object, stream, rights) -> function; `rights` has four elements, `stream` derives from Frame. */
static PyObject *raw_handler(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object, *stream, *rights;
    if (!PyArg_ParseTuple(args, "OO!O!:raw_handler", &object, &PyType_Type, &stream, &PyTuple_Type, &rights))
        return NULL;
    PyObject *frame = PyObject_GetAttrString(module, "Frame");
    bool sound = frame && PyType_IsSubtype((PyTypeObject *)stream, (PyTypeObject *)frame) && PyTuple_Size(rights) == 4;
    Py_XDECREF(frame);
    if (!sound) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a subclass of Frame and four rights are needed");
        return NULL;
    }
    Behind *b = behind(object);
    if (b) {
        b->stream = (PyTypeObject *)Py_NewRef(stream);
        b->rights = Py_NewRef(rights);
    }
    return function_of(b, &raw_definition);
}

/* typed_handler(object, tables) -> function */
static PyObject *typed_handler(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object, *tables;
    if (!PyArg_ParseTuple(args, "OO!:typed_handler", &object, &PyDict_Type, &tables))
        return NULL;
    Behind *b = behind(object);
    if (b)
        b->tables = Py_NewRef(tables);
    return function_of(b, &typed_definition);
}

static PyMethodDef functions[] = {
    {"raw_handler", raw_handler, METH_VARARGS, "raw_handler(object, stream, rights) -> what serves a raw object"},
    {"typed_handler", typed_handler, METH_VARARGS, "typed_handler(object, tables) -> what serves a typed object"},
    {NULL, NULL, 0, NULL},
};

int leaf_handler_init(PyObject *module)
{
    no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    no_caps = PyTuple_New(0);
    dispatch = PyUnicode_InternFromString("dispatch");
    answer = PyUnicode_InternFromString("_answer");
    serve_request = PyUnicode_InternFromString("serve_request");
    put_other = PyUnicode_InternFromString("_put_other");
    PyTypeObject *frame = (PyTypeObject *)PyType_FromModuleAndSpec(module, &frame_spec, NULL);
    behind_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &behind_spec, NULL);
    if (!no_bytes || !no_caps || !dispatch || !answer || !serve_request || !frame || !behind_type ||
        PyModule_AddType(module, frame) < 0)
        return -1;
    Py_DECREF((PyObject *)frame);
    return PyModule_AddFunctions(module, functions);
}
