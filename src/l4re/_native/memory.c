/* Capabilities to memory on their way through messages.
 *
 * Of all that travels memory is handed over most often and costs least: one descriptor that exists already, and a
 * look at what arrived. So where all capabilities of a message are such ones, the leaf does what cap/transfer.py
 * and the dataspace room do, from object to item and back. Whatever is not usual, and whatever is wrong, is left to
 * them, who also know what to say. */
#include "message.h"

#include <fcntl.h>
#include <structmember.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ITEM_WORDS = 2, RIGHT_W = 1, RIGHT_R = 4 };      /* as wire/items.py and rights.py have them */
enum { SHRINK_OR_GROW = 0x2 | 0x4, ANY_WRITE = 0x8 | 0x10 };    /* seals */
#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif

/* The fields of a Dataspace; those that C does not use have their meaning there. */
typedef struct {
    PyObject_HEAD
    PyObject *fd;                       /* an Owner; None once closed */
    long long size;
    bool writable;
    bool handed_out;                    /* read-write: its seals are settled */
    PyObject *name, *hints, *made, *identity;
} Memory;

/* Two words. */
struct item {
    uint8_t kind, rights;
    uint16_t fds;
    uint32_t zero;
    uint64_t value;
};

static PyTypeObject *memory_type, *owner_type;          /* what arrives becomes these; NULL: nobody said so yet */
static PyObject *no_hints;
static uint8_t memory_kind;
static dev_t memfds;                                    /* the kernel's own tmpfs, which is never unmounted */

bool memory_export(PyObject *caps, struct outgoing *message)
{
    Py_ssize_t count = PyTuple_CheckExact(caps) ? PyTuple_Size(caps) : 0;
    size_t words = (message->word_bytes + 7) / 8;
    if (!memory_type || count < 1 || count > PAGE_ITEMS || words + ITEM_WORDS * (size_t)count > PAGE_WORDS)
        return false;
    for (Py_ssize_t i = 0; i < count; i++) {
        Memory *m = (Memory *)PyTuple_GetItem(caps, i);
        if (Py_TYPE((PyObject *)m) != memory_type || (m->writable && !m->handed_out))
            return false;
        if ((message->fds[i] = leaf_owner_fd(m->fd)) < 0)
            return false;
        uint8_t rights = m->writable ? RIGHT_R | RIGHT_W : RIGHT_R;
        struct item item = {.kind = memory_kind, .rights = rights, .fds = 1, .value = (uint64_t)m->size};
        memcpy(message->joined + words + ITEM_WORDS * (size_t)i, &item, sizeof item);
    }
    if (words)
        message->joined[words - 1] = 0;
    memcpy(message->joined, message->words, message->word_bytes);
    message->words = message->joined;
    message->word_bytes = 8 * (words + ITEM_WORDS * (size_t)count);
    message->items = (unsigned)count;
    message->count = (int)count;
    for (Py_ssize_t i = 0; i < count; i++)              /* whoever closes the capability meanwhile closes it after us */
        message->owners[i] = Py_NewRef(((Memory *)PyTuple_GetItem(caps, i))->fd);
    message->lent = (int)count;
    return true;
}

/* Whether the kernel confirms what an item says. */
static bool sound(int fd, uint64_t size, bool writable)
{
    struct stat about;
    int seals, flags;
    if (fstat(fd, &about) < 0 || about.st_dev != memfds || !S_ISREG(about.st_mode) || (uint64_t)about.st_size != size ||
        !size)
        return false;
    seals = fcntl(fd, F_GET_SEALS);
    flags = fcntl(fd, F_GETFL);
    return seals >= 0 && flags >= 0 && (seals & SHRINK_OR_GROW) == SHRINK_OR_GROW && !(writable && seals & ANY_WRITE) &&
           (flags & (O_ACCMODE | O_PATH)) == (writable ? O_RDWR : O_RDONLY);
}

/* Takes the descriptor, whatever happens. */
static PyObject *arrived(int fd, uint64_t size, bool writable)
{
    PyObject *owner = leaf_owner(owner_type, fd, "received descriptor");
    Memory *m = owner ? (Memory *)PyType_GenericAlloc(memory_type, 0) : NULL;
    if (!m) {
        Py_XDECREF(owner);
        return NULL;
    }
    m->fd = owner;
    m->size = (long long)size;
    m->writable = writable;
    m->hints = Py_NewRef(no_hints);
    return (PyObject *)m;
}

int memory_import(PyObject **words, PyObject **caps)
{
    if (!memory_type || !PyTuple_CheckExact(*caps) || PyTuple_Size(*caps) != 2)
        return 0;
    PyObject *fds = PyTuple_GetItem(*caps, 1);
    Py_ssize_t count = PyTuple_Size(fds), cut = PyBytes_Size(*words) - 8 * ITEM_WORDS * count;
    struct item items[PAGE_ITEMS];
    int numbers[PAGE_ITEMS];
    if (count < 1 || count > PAGE_ITEMS || PyLong_AsLong(PyTuple_GetItem(*caps, 0)) != count || cut < 0)
        return 0;
    memcpy(items, PyBytes_AsString(*words) + cut, sizeof *items * (size_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        numbers[i] = (int)PyLong_AsLong(PyTuple_GetItem(fds, i));
        if (items[i].kind != memory_kind || items[i].fds != 1 || (items[i].rights & ~RIGHT_W) != RIGHT_R ||
            !sound(numbers[i], items[i].value, items[i].rights & RIGHT_W))
            return 0;
    }
    PyObject *received = PyTuple_New(count), *plain = PyBytes_FromStringAndSize(PyBytes_AsString(*words), cut);
    bool made = received && plain;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *m = made ? arrived(numbers[i], items[i].value, items[i].rights & RIGHT_W) : NULL;
        if (m)
            PyTuple_SetItem(received, i, m);
        else if (!made)
            leaf_close_guarded(numbers[i]);
        made &= m != NULL;
    }
    if (!made) {
        Py_XDECREF(received);
        Py_XDECREF(plain);
        return -1;
    }
    Py_DECREF(*words);
    Py_DECREF(*caps);
    *words = plain;
    *caps = received;
    return 1;
}

static int memory_traverse(Memory *m, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)m));
    Py_VISIT(m->fd);
    Py_VISIT(m->name);
    Py_VISIT(m->hints);
    Py_VISIT(m->made);
    Py_VISIT(m->identity);
    return 0;
}

static int memory_clear(Memory *m)
{
    Py_CLEAR(m->fd);
    Py_CLEAR(m->name);
    Py_CLEAR(m->hints);
    Py_CLEAR(m->made);
    Py_CLEAR(m->identity);
    return 0;
}

static void memory_dealloc(Memory *m)
{
    PyTypeObject *type = Py_TYPE((PyObject *)m);
    PyObject_GC_UnTrack(m);
    memory_clear(m);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(m);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"_fd", T_OBJECT, offsetof(Memory, fd), 0, NULL},
    {"_size", T_LONGLONG, offsetof(Memory, size), 0, NULL},
    {"_writable", T_BOOL, offsetof(Memory, writable), 0, NULL},
    {"_handed_out", T_BOOL, offsetof(Memory, handed_out), 0, NULL},
    {"_name", T_OBJECT, offsetof(Memory, name), 0, NULL},
    {"_hints", T_OBJECT, offsetof(Memory, hints), 0, NULL},
    {"_made", T_OBJECT, offsetof(Memory, made), 0, NULL},
    {"_identity", T_OBJECT, offsetof(Memory, identity), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, memory_dealloc}, {Py_tp_traverse, memory_traverse}, {Py_tp_clear, memory_clear},
    {Py_tp_members, members}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "l4re._native.leaf.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

/* receive_memory(type, kind, owner, hints): items of this kind become a `type` that has an `owner` and `hints`. */
static PyObject *receive_memory(PyObject *module, PyObject *args)
{
    PyObject *type, *owner, *hints, *base = PyObject_GetAttrString(module, "Memory");
    unsigned char kind;
    bool sound = base && PyArg_ParseTuple(args, "O!bO!O:receive_memory", &PyType_Type, &type, &kind, &PyType_Type, &owner, &hints);
    if (sound && !(sound = PyType_IsSubtype((PyTypeObject *)type, (PyTypeObject *)base) && leaf_owns((PyTypeObject *)owner)))
        PyErr_SetString(PyExc_TypeError, "subclasses of Memory and Owner are needed");
    Py_XDECREF(base);
    int probe = sound ? leaf_memfd("l4re", 1) : -1;
    struct stat about;
    if (probe < 0 || fstat(probe, &about) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    close(probe);
    memfds = about.st_dev;
    memory_kind = kind;
    owner_type = (PyTypeObject *)Py_NewRef(owner);
    no_hints = Py_NewRef(hints);
    memory_type = (PyTypeObject *)Py_NewRef(type);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"receive_memory", receive_memory, METH_VARARGS, "receive_memory(type, kind, owner, hints): what memory becomes when it arrives"},
    {NULL, NULL, 0, NULL},
};

int leaf_memory_init(PyObject *module)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type || PyModule_AddType(module, type) < 0)
        return -1;
    Py_DECREF((PyObject *)type);
    return PyModule_AddFunctions(module, functions);
}
