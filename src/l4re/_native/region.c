/* Mappings: shared memory in this address space, lent out through the buffer protocol.
 *
 * The one rule: memory is never unmapped under a live view. A view does not refer to the mapping
 * but to its `Lease`, a token that exists exactly while somebody looks. (numpy.ndarray(buffer=...)
 * drops the Py_buffer at once and keeps only what the view pointed to; with a token, that counts.)
 *
 * And one promise that C can check better than Python: no page of a mapping can raise SIGBUS. What
 * is mapped is a memfd sealed against shrinking, and the range ends where the file ends. */
#include "leaf.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25            /* Linux 6.1 */
#endif

enum {
    MAX_ALIGN = 30,             /* log2; the search reserves this much more for a moment */
    LARGE = 4 << 20,            /* from here on mmap and munmap may take long: drop the GIL */
};

typedef struct {
    PyObject_HEAD
    char *start;
    Py_ssize_t size;            /* as asked for: what views show */
    Py_ssize_t length;          /* as mapped: whole pages */
    PyObject *lease;            /* borrowed; NULL while nobody looks */
    bool readonly;
    bool mapped;
} Mapping;

typedef struct {
    PyObject_HEAD
    Mapping *mapping;           /* owned: a view keeps the mapping */
} Lease;

static PyTypeObject *lease_type;

static size_t page_size(void)
{
    static size_t size;
    if (!size)
        size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

static void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* ---- making ---- */

int leaf_memfd(const char *name, off_t size)
{
    static unsigned refused;            /* flags this kernel does not know (no-exec came with 6.3) */
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL;
    int fd = memfd_create(name, flags & ~refused);
    if (fd < 0 && errno == EINVAL && !refused && (fd = memfd_create(name, flags & ~MFD_NOEXEC_SEAL)) >= 0)
        refused = MFD_NOEXEC_SEAL;
    if (fd >= 0 && (ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* memfd(name, size) -> fd. One step, because making a small dataspace should cost little more than the system calls. */
static PyObject *py_memfd(PyObject *module, PyObject *args)
{
    const char *name;
    long long size;
    (void)module;
    if (!PyArg_ParseTuple(args, "sL:memfd", &name, &size))
        return NULL;
    int fd = leaf_memfd(name, (off_t)size);
    if (fd < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    leaf_unguard(fd);                   /* the number may have been somebody's who guarded it */
    return PyLong_FromLong(fd);
}

/* ---- placing ---- */

struct place {
    int fd;
    off_t offset;
    size_t length;
    void *fixed;                /* NULL: searched */
    size_t align;
    int prot, populate;
};

static void *place_fixed(const struct place *p)
{
    void *got = mmap(p->fixed, p->length, p->prot, MAP_SHARED | MAP_FIXED_NOREPLACE | p->populate, p->fd, p->offset);
    if (got != MAP_FAILED && got != p->fixed) {     /* a kernel that took the address for a hint */
        munmap(got, p->length);
        errno = EEXIST;
        return MAP_FAILED;
    }
    return got;
}

static void *place_searched(const struct place *p)
{
    if (p->align <= page_size())
        return mmap(NULL, p->length, p->prot, MAP_SHARED | p->populate, p->fd, p->offset);

    /* Reserve enough to find an aligned start in it, map inside what is ours, give back the rest. */
    if (p->length > SIZE_MAX / 2 - p->align) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    size_t reserved = p->length + p->align - page_size();
    char *base = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return MAP_FAILED;
    char *start = (char *)(((uintptr_t)base + p->align - 1) & ~(uintptr_t)(p->align - 1));
    char *end = start + p->length;
    if (mmap(start, p->length, p->prot, MAP_SHARED | MAP_FIXED | p->populate, p->fd, p->offset) == MAP_FAILED) {
        int error = errno;
        munmap(base, reserved);
        errno = error;
        return MAP_FAILED;
    }
    if (start > base)
        munmap(base, (size_t)(start - base));
    if (end < base + reserved)
        munmap(end, (size_t)(base + reserved - end));
    return start;
}

/* Whether every page of the range exists and goes on existing. False with an error set. */
static bool lasting(int fd, off_t offset, size_t size)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &st) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    if (!(seals & F_SEAL_SHRINK)) {
        PyErr_SetString(PyExc_ValueError, "this descriptor can shrink under a mapping: not sealed");
        return false;
    }
    if (offset > st.st_size || size > (uint64_t)(st.st_size - offset)) {
        PyErr_Format(PyExc_ValueError, "%zu bytes from %lld reach beyond the end of the memory (%lld bytes)",
                     size, (long long)offset, (long long)st.st_size);
        return false;
    }
    return true;
}

/* Mapping(fd, size, offset=0, writable=False, addr=0, align=12, populate=False, huge=False)
 * addr 0: the kernel searches, aligned to 1 << align. Otherwise exactly there, or OSError(EEXIST)
 * if anything at all is mapped in the range. With populate and huge, large pages are made now of
 * what is mapped, as far as that goes. The descriptor is borrowed for the call. */
static PyObject *mapping_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "size", "offset", "writable", "addr", "align", "populate", "huge", NULL};
    int fd, writable = 0, align = 12, populate = 0, huge = 0;
    Py_ssize_t size, addr = 0;
    long long offset = 0;
    size_t page = page_size();

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "in|Lpnipp:Mapping", names, &fd, &size, &offset, &writable,
                                     &addr, &align, &populate, &huge))
        return NULL;
    if (size <= 0 || size > PY_SSIZE_T_MAX - (Py_ssize_t)page)
        return PyErr_Format(PyExc_ValueError, "cannot map %zd bytes", size);
    if (offset < 0 || offset % (long long)page)
        return PyErr_Format(PyExc_ValueError, "offset %lld is not a multiple of the page size %zu", offset, page);
    if (addr < 0 || (size_t)addr % page)
        return PyErr_Format(PyExc_ValueError, "address %zd is not a multiple of the page size %zu", addr, page);
    if (align < 0 || align > MAX_ALIGN)
        return PyErr_Format(PyExc_ValueError, "alignment is given as log2, 0 to %d, not %d", (int)MAX_ALIGN, align);
    if (!lasting(fd, (off_t)offset, (size_t)size))
        return NULL;

    struct place p = {
        .fd = fd,
        .offset = (off_t)offset,
        .length = ((size_t)size + page - 1) & ~(page - 1),
        .fixed = (void *)addr,
        .align = (size_t)1 << align,
        .prot = writable ? PROT_READ | PROT_WRITE : PROT_READ,
        .populate = populate ? MAP_POPULATE : 0,
    };
    PyThreadState *dropped = p.length >= LARGE || populate ? PyEval_SaveThread() : NULL;
    void *start = p.fixed ? place_fixed(&p) : place_searched(&p);
    int error = errno;
    if (start != MAP_FAILED && huge) {                  /* wishes, whatever the kernel says */
        madvise(start, p.length, MADV_HUGEPAGE);
        if (populate)
            madvise(start, p.length, MADV_COLLAPSE);    /* of the pages there are, for everybody who maps them */
    }
    if (dropped)
        PyEval_RestoreThread(dropped);

    if (start == MAP_FAILED) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Mapping *self = (Mapping *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) {
        munmap(start, p.length);
        return NULL;
    }
    self->start = start;
    self->size = size;
    self->length = (Py_ssize_t)p.length;
    self->readonly = !writable;
    self->mapped = true;
    return (PyObject *)self;
}

/* ---- ending ---- */

/* Give the pages back; 0, or the error. Marked first: with the GIL dropped others may look. */
static int release_pages(Mapping *self)
{
    self->mapped = false;
    PyThreadState *dropped = self->length >= LARGE ? PyEval_SaveThread() : NULL;
    int error = munmap(self->start, (size_t)self->length) < 0 ? errno : 0;
    if (dropped)
        PyEval_RestoreThread(dropped);
    return error;
}

static Py_ssize_t count_views(const Mapping *self)
{
    return self->lease ? Py_REFCNT(self->lease) : 0;
}

static PyObject *mapping_unmap(PyObject *object, PyObject *unused)
{
    Mapping *self = (Mapping *)object;
    (void)unused;
    if (!self->mapped)
        Py_RETURN_FALSE;
    Py_ssize_t views = count_views(self);
    if (views)
        return PyErr_Format(PyExc_BufferError, "%zd view%s of the memory at %p %s alive (memoryview, numpy array ...): "
                            "release or delete %s first", views, views == 1 ? "" : "s", self->start,
                            views == 1 ? "is" : "are", views == 1 ? "it" : "them");
    int error = release_pages(self);
    if (error) {                                        /* splitting a merged mapping needs a free slot */
        self->mapped = true;
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_TRUE;
}

static void mapping_dealloc(PyObject *object)
{
    Mapping *self = (Mapping *)object;
    if (self->mapped)
        release_pages(self);
    free_object(object);
}

/* ---- lending ---- */

static int mapping_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Mapping *self = (Mapping *)object;
    view->obj = NULL;
    if (!self->mapped) {
        /* Which class says "closed" is Python's business: a subclass names it. */
        PyObject *error = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "closed_error");
        if (error) {
            PyErr_SetString(error, "this mapping was unmapped");
            Py_DECREF(error);
        }
        return -1;
    }
    PyObject *lease = self->lease;
    if (lease) {
        Py_INCREF(lease);
    } else {
        lease = ((allocfunc)PyType_GetSlot(lease_type, Py_tp_alloc))(lease_type, 0);
        if (!lease)
            return -1;
        Py_INCREF(object);
        ((Lease *)lease)->mapping = self;
        self->lease = lease;
    }
    int result = PyBuffer_FillInfo(view, lease, self->start, self->size, self->readonly, flags);
    Py_DECREF(lease);
    return result;
}

/* Nothing to do, but numpy looks whether the slot is there before it decides to keep the view. */
static void ignore_release(PyObject *object, Py_buffer *view)
{
    (void)object, (void)view;
}

static int lease_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    return mapping_getbuffer((PyObject *)((Lease *)object)->mapping, view, flags);
}

static void lease_dealloc(PyObject *object)
{
    Mapping *mapping = ((Lease *)object)->mapping;
    if (mapping)
        mapping->lease = NULL;
    free_object(object);
    Py_XDECREF((PyObject *)mapping);
}

/* ---- looking ---- */

static PyObject *get_exports(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(count_views((Mapping *)self));
}

static PyMemberDef mapping_members[] = {
    {"address", T_ULONG, offsetof(Mapping, start), READONLY, "Where it starts; it keeps the number after unmap()."},
    {"size", T_PYSSIZET, offsetof(Mapping, size), READONLY, "Bytes that were asked for and that views show."},
    {"mapped_size", T_PYSSIZET, offsetof(Mapping, length), READONLY, "Bytes of the whole pages it occupies."},
    {"readonly", T_BOOL, offsetof(Mapping, readonly), READONLY, "Whether writing is refused."},
    {"mapped", T_BOOL, offsetof(Mapping, mapped), READONLY, "False after unmap()."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef mapping_fields[] = {
    {"exports", get_exports, NULL, "How many views are alive.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef mapping_methods[] = {
    {"unmap", mapping_unmap, METH_NOARGS,
     "Give the address range back; False if that was done before. BufferError while a view is alive."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, "Memory of a sealed memfd in this address space, lent out through the buffer protocol."},
    {Py_tp_new, mapping_new},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_tp_members, mapping_members},
    {Py_tp_getset, mapping_fields},
    {Py_tp_methods, mapping_methods},
    {Py_bf_getbuffer, mapping_getbuffer},
    {Py_bf_releasebuffer, ignore_release},
    {0, NULL},
};

static PyType_Spec mapping_spec = {
    .name = "l4re._native.leaf.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = mapping_slots,
};

static PyMemberDef lease_members[] = {
    {"mapping", T_OBJECT_EX, offsetof(Lease, mapping), READONLY, "The mapping that is kept alive."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_doc, "What a view of a mapping refers to: the mapping stays while this exists."},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_members, lease_members},
    {Py_bf_getbuffer, lease_getbuffer},
    {Py_bf_releasebuffer, ignore_release},
    {0, NULL},
};

static PyType_Spec lease_spec = {
    .name = "l4re._native.leaf.Lease",
    .basicsize = sizeof(Lease),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};

static PyMethodDef functions[] = {
    {"memfd", py_memfd, METH_VARARGS, "memfd(name, size) -> fd: zeroed memory that can neither shrink nor grow."},
    {NULL, NULL, 0, NULL},
};

int leaf_region_init(PyObject *module)
{
    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    PyObject *mapping = PyType_FromModuleAndSpec(module, &mapping_spec, NULL);
    if (!mapping)
        return -1;
    int failed = PyObject_SetAttrString(mapping, "closed_error", PyExc_ValueError) ||
                 PyModule_AddObjectRef(module, "Mapping", mapping);
    Py_DECREF(mapping);
    if (failed)
        return -1;
    if (!lease_type && !(lease_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &lease_spec, NULL)))
        return -1;
    return PyModule_AddObjectRef(module, "Lease", (PyObject *)lease_type);
}
