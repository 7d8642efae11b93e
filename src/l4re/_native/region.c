/* Mappings: shared memory in this address space, lent out through the buffer protocol.
 *
 * The one rule: memory is never unmapped under a live view. A view does not refer to the mapping
 * but to its `Lease`, a token that exists exactly while somebody looks. (numpy.ndarray(buffer=...)
 * drops the Py_buffer at once and keeps only what the view pointed to; with a token, that counts.)
 *
 * And one promise that C can check better than Python: no page of a mapping can raise SIGBUS. What
 * is mapped is a memfd sealed against shrinking, and the range ends where the file ends.
 *
 * A mapping without memory behind it only keeps others out, the kernel's own searches included. It can be host to
 * mappings that replace a part of it; when such a guest goes, its host has the hole back, or nobody if the host is
 * gone. The host's runs are its books; they change with the GIL held, while the pages may not (see release_range). */
#include "leaf.h"
#include "runs.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
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
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum {
    MAX_ALIGN = 63,             /* log2; the search reserves this much more for a moment */
    LARGE = 4 << 20,            /* from here on mmap and munmap may take long: drop the GIL */
};

typedef struct mapping {
    PyObject_HEAD
    char *start;
    Py_ssize_t size;            /* as asked for: what views show */
    Py_ssize_t length;          /* as mapped: whole pages */
    long long offset;           /* in the file */
    PyObject *lease;            /* borrowed; NULL while nobody looks */
    struct mapping *host;       /* owned; NULL: in nobody's range */
    char *live;                 /* of a host: what lies below was given back, see close_host */
    struct runs guests;
    bool readonly;
    bool private;               /* what is written here stays here */
    bool hollow;                /* no memory behind it */
    bool kept;                  /* has a reference to itself */
    bool mapped;
} Mapping;

typedef struct {
    PyObject_HEAD
    Mapping *mapping;           /* owned: a view keeps the mapping */
} Lease;

static PyTypeObject *lease_type, *mapping_type;

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
    int prot, flags;
};

enum { HOLLOW = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

static void *place_fixed(const struct place *p)
{
    void *got = mmap(p->fixed, p->length, p->prot, p->flags | MAP_FIXED_NOREPLACE, p->fd, p->offset);
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
        return mmap(NULL, p->length, p->prot, p->flags, p->fd, p->offset);

    /* Reserve enough to find an aligned start in it, map inside what is ours, give back the rest. */
    if (p->align > SIZE_MAX / 4 || p->length > SIZE_MAX / 4) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    size_t reserved = p->length + p->align - page_size();
    char *base = mmap(NULL, reserved, PROT_NONE, HOLLOW, -1, 0);
    if (base == MAP_FAILED)
        return MAP_FAILED;
    char *start = (char *)(((uintptr_t)base + p->align - 1) & ~(uintptr_t)(p->align - 1));
    char *end = start + p->length;
    if (mmap(start, p->length, p->prot, p->flags | MAP_FIXED, p->fd, p->offset) == MAP_FAILED) {
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

/* In a range that a host keeps for this; whatever happens, it stays occupied. */
static void *place_inside(const struct place *p)
{
    void *got = mmap(p->fixed, p->length, p->prot, p->flags | MAP_FIXED, p->fd, p->offset);
    if (got == MAP_FAILED) {            /* the kernel may have emptied it before it found no memory */
        int error = errno;
        mmap(p->fixed, p->length, PROT_NONE, HOLLOW | MAP_FIXED_NOREPLACE, -1, 0);
        errno = error;
    }
    return got;
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

static void refuse_closed(PyObject *object)
{
    /* Which class says "closed" is Python's business: a subclass names it. */
    PyObject *error = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "closed_error");
    if (error) {
        PyErr_SetString(error, "this mapping was unmapped");
        Py_DECREF(error);
    }
}

/* Whether what a guest had at `start` goes back to the host. */
static bool lends(const Mapping *host, const void *start)
{
    return host->mapped && (char *)start >= host->live;
}

/* Find a place among the guests and enter it; false with an error set. */
static bool enter_host(Mapping *host, struct place *p, bool search)
{
    if (!host->mapped) {
        refuse_closed((PyObject *)host);
        return false;
    }
    if (!host->hollow || host->host) {
        PyErr_SetString(PyExc_ValueError, "only a range without memory, and in nobody else's, is host to mappings");
        return false;
    }
    uintptr_t start = (uintptr_t)p->fixed, live = (uintptr_t)host->live, end = (uintptr_t)host->start + (size_t)host->length;
    int error = 0;
    if (search)
        start = runs_search(&host->guests, start > live ? start : live, end, p->length,
                            p->align > page_size() ? p->align : page_size());
    if (start < live || start >= end || p->length > end - start)
        error = EADDRNOTAVAIL;
    else if (!search && !runs_free(&host->guests, start, start + p->length))
        error = EEXIST;
    else if (!runs_prepare(&host->guests))
        error = ENOMEM;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    runs_take(&host->guests, start, start + p->length);
    p->fixed = (void *)start;
    return true;
}

/* After place_inside failed. */
static void leave_host(Mapping *host, const struct place *p)
{
    if (!lends(host, p->fixed))
        munmap(p->fixed, p->length);
    runs_give(&host->guests, (uintptr_t)p->fixed, (uintptr_t)p->fixed + p->length);
    host->guests.holders--;
}

/* Make a guest's pages the host's again. At the limit of mappings there may be no room for that: then they stay
 * mapped, out of reach, until another guest comes there or the host goes. */
static bool empty(char *start, size_t length)
{
    if (mmap(start, length, PROT_NONE, HOLLOW | MAP_FIXED, -1, 0) != MAP_FAILED)
        return true;
    if (errno != ENOMEM || mprotect(start, length, PROT_NONE) < 0)
        return false;
    madvise(start, length, MADV_DONTNEED);              /* what was private is nobody's now */
    return true;
}

/* Give pages back; 0, or the error, and then they stay where they were. What a host lent it has back, or, when it is
 * gone by the end, nobody. Until then the range stays in the books: with the GIL dropped nobody else takes it. */
static int release_range(Mapping *host, char *start, size_t length, bool drop)
{
    bool lent = host && lends(host, start);
    PyThreadState *dropped = drop ? PyEval_SaveThread() : NULL;
    int error = (lent ? empty(start, length) : munmap(start, length) == 0) ? 0 : errno;
    if (dropped)
        PyEval_RestoreThread(dropped);
    if (!host || error)
        return error;
    if (lent && !lends(host, start))
        munmap(start, length);
    runs_give(&host->guests, (uintptr_t)start, (uintptr_t)start + length);
    return 0;
}

/* Mapping(fd, size, offset=0, writable=False, addr=0, align=12, populate=False, huge=False, private=False, host=None, search=False)
 * addr 0: the kernel searches, aligned to 1 << align. Otherwise exactly there, or OSError(EEXIST)
 * if anything at all is mapped in the range. With populate and huge, large pages are made now of what is mapped, as
 * far as that goes. The descriptor is borrowed for the call. With fd -1 there is no memory,
 * or, if private, zeroed memory of this process. With a host, the place is in its range: at addr, or, to search,
 * the first from there that is free; OSError(EADDRNOTAVAIL) if there is none. */
static PyObject *mapping_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "size", "offset", "writable", "addr", "align", "populate", "huge", "private", "host", "search", NULL};
    int fd, writable = 0, align = 12, populate = 0, huge = 0, private = 0, search = 0;
    Py_ssize_t size, addr = 0;
    long long offset = 0;
    size_t page = page_size();
    PyObject *inside = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "in|LpnipppOp:Mapping", names, &fd, &size, &offset, &writable,
                                     &addr, &align, &populate, &huge, &private, &inside, &search))
        return NULL;
    if (size <= 0 || size > PY_SSIZE_T_MAX - (Py_ssize_t)page)
        return PyErr_Format(PyExc_ValueError, "cannot map %zd bytes", size);
    if (offset < 0 || offset % (long long)page)
        return PyErr_Format(PyExc_ValueError, "offset %lld is not a multiple of the page size %zu", offset, page);
    if (addr < 0 || (size_t)addr % page)
        return PyErr_Format(PyExc_ValueError, "address %zd is not a multiple of the page size %zu", addr, page);
    if (align < 0 || align > MAX_ALIGN)
        return PyErr_Format(PyExc_ValueError, "alignment is given as log2, 0 to %d, not %d", (int)MAX_ALIGN, align);
    if (inside != Py_None && !PyObject_TypeCheck(inside, mapping_type))
        return PyErr_Format(PyExc_TypeError, "a host is a mapping");
    Mapping *host = inside == Py_None ? NULL : (Mapping *)inside;
    bool hollow = fd < 0 && !private;
    if (fd >= 0 && !lasting(fd, (off_t)offset, (size_t)size))
        return NULL;

    struct place p = {
        .fd = fd,
        .offset = (off_t)offset,
        .length = ((size_t)size + page - 1) & ~(page - 1),
        .fixed = (void *)addr,
        .align = (size_t)1 << align,
        .prot = hollow ? PROT_NONE : writable ? PROT_READ | PROT_WRITE : PROT_READ,
        .flags = (hollow ? HOLLOW : private ? MAP_PRIVATE : MAP_SHARED) | (fd < 0 ? MAP_ANONYMOUS : 0) |
                 (populate && !hollow ? MAP_POPULATE : 0),
    };
    Mapping *self = (Mapping *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    if (host && !enter_host(host, &p, search)) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    PyThreadState *dropped = p.length >= LARGE || populate ? PyEval_SaveThread() : NULL;
    void *start = host ? place_inside(&p) : p.fixed ? place_fixed(&p) : place_searched(&p);
    int error = errno;
    if (start != MAP_FAILED && huge) {                  /* wishes, whatever the kernel says */
        madvise(start, p.length, MADV_HUGEPAGE);
        if (populate)
            madvise(start, p.length, MADV_COLLAPSE);    /* of the pages there are, for everybody who maps them */
    }
    if (dropped)
        PyEval_RestoreThread(dropped);

    if (start == MAP_FAILED) {
        Py_DECREF((PyObject *)self);
        if (host)
            leave_host(host, &p);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->start = self->live = start;
    self->size = size;
    self->length = (Py_ssize_t)p.length;
    self->offset = offset;
    self->host = (Mapping *)Py_XNewRef((PyObject *)host);
    self->readonly = !writable;
    self->private = private;
    self->hollow = hollow;
    self->mapped = true;
    return (PyObject *)self;
}

/* ---- ending ---- */

/* Give back what is left of a host: all but its guests, from below. 0, or the error (to split a merged mapping needs
 * a free slot); what was given back by then is no more the host's. */
static int close_host(Mapping *self)
{
    uintptr_t end = (uintptr_t)self->start + (size_t)self->length;
    for (size_t i = 0; (uintptr_t)self->live < end; i++) {
        struct run guest = i < self->guests.count ? self->guests.first[i] : (struct run){end, end};
        if (guest.end <= (uintptr_t)self->live)
            continue;
        if (guest.start > (uintptr_t)self->live && munmap(self->live, guest.start - (uintptr_t)self->live) < 0)
            return errno;
        self->live = (char *)guest.end;
    }
    return 0;
}

/* Give the pages back; 0, or the error. Marked first: with the GIL dropped others may look. */
static int release_pages(Mapping *self)
{
    int error;
    self->mapped = false;
    if (self->guests.room)
        error = close_host(self);
    else
        error = release_range(self->host, self->start, (size_t)self->length, self->length >= LARGE);
    if (error)                                          /* splitting a merged mapping needs a free slot */
        self->mapped = true;
    else if (self->host)
        self->host->guests.holders--;
    return error;
}

static Py_ssize_t count_views(const Mapping *self)
{
    return self->lease ? Py_REFCNT(self->lease) : 0;
}

/* Whether views forbid that the memory goes; with an error set. */
static bool viewed(const Mapping *self)
{
    Py_ssize_t views = count_views(self);
    if (views)
        PyErr_Format(PyExc_BufferError, "%zd view%s of the memory at %p %s alive (memoryview, numpy array ...): "
                     "release or delete %s first", views, views == 1 ? "" : "s", self->start,
                     views == 1 ? "is" : "are", views == 1 ? "it" : "them");
    return views;
}

static PyObject *mapping_unmap(PyObject *object, PyObject *unused)
{
    Mapping *self = (Mapping *)object;
    (void)unused;
    if (!self->mapped)
        Py_RETURN_FALSE;
    if (viewed(self))
        return NULL;
    int error = release_pages(self);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (self->kept) {
        self->kept = false;
        Py_DECREF(object);                              /* the caller has another */
    }
    Py_RETURN_TRUE;
}

/* cut(first, last) -> Mapping | None: take the bytes [first, last), whole pages, out of the middle (what follows
 * is a mapping of its own then) or off an end. */
static PyObject *mapping_cut(PyObject *object, PyObject *args)
{
    Mapping *self = (Mapping *)object, *tail = NULL;
    Py_ssize_t first, last, page = (Py_ssize_t)page_size();
    if (!PyArg_ParseTuple(args, "nn:cut", &first, &last))
        return NULL;
    if (!self->mapped) {
        refuse_closed(object);
        return NULL;
    }
    if (first < 0 || first >= last || last > self->length || last - first == self->length || first % page || last % page)
        return PyErr_Format(PyExc_ValueError, "cannot cut %zd to %zd out of %zd bytes", first, last, self->length);
    if (self->guests.room)
        return PyErr_Format(PyExc_ValueError, "cannot cut what is host to other mappings");
    if (viewed(self))
        return NULL;
    if (first && last < self->length) {
        if (self->host && !runs_prepare(&self->host->guests))
            return PyErr_NoMemory();
        if (!(tail = (Mapping *)((allocfunc)PyType_GetSlot(Py_TYPE(object), Py_tp_alloc))(Py_TYPE(object), 0)))
            return NULL;
    }
    int error = release_range(self->host, self->start + first, (size_t)(last - first), false);  /* in one step */
    if (error) {
        Py_XDECREF((PyObject *)tail);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (tail) {
        tail->start = tail->live = self->start + last;
        tail->size = self->size - last;
        tail->length = self->length - last;
        tail->offset = self->offset + last;
        tail->host = (Mapping *)Py_XNewRef((PyObject *)self->host);
        tail->readonly = self->readonly;
        tail->private = self->private;
        tail->hollow = self->hollow;
        tail->kept = self->kept;
        tail->mapped = true;
        if (tail->host)
            tail->host->guests.holders++;
        if (tail->kept)
            Py_INCREF((PyObject *)tail);
    }
    if (first) {
        self->length = first;
        if (self->size > first)
            self->size = first;
    } else {
        self->start = self->live += last;
        self->size -= last;
        self->length -= last;
        self->offset += last;
    }
    if (tail)
        return (PyObject *)tail;
    Py_RETURN_NONE;
}

static PyObject *mapping_keep(PyObject *object, PyObject *unused)
{
    Mapping *self = (Mapping *)object;
    (void)unused;
    if (!self->mapped) {
        refuse_closed(object);
        return NULL;
    }
    if (!self->kept)
        Py_INCREF(object);
    self->kept = true;
    Py_RETURN_NONE;
}

static void mapping_dealloc(PyObject *object)
{
    Mapping *self = (Mapping *)object, *host = self->host;
    if (self->mapped)
        release_pages(self);                            /* nobody holds it, so it has no guests */
    free(self->guests.first);
    free_object(object);
    Py_XDECREF((PyObject *)host);
}

/* populate(first, last, write): have the pages of the bytes [first, last) present. Somebody may unmap them meanwhile;
 * then it fails, or hits others and harms nothing. */
static PyObject *mapping_populate(PyObject *object, PyObject *args)
{
    Mapping *self = (Mapping *)object;
    Py_ssize_t first, last, page = (Py_ssize_t)page_size();
    int write, failed;
    if (!PyArg_ParseTuple(args, "nnp:populate", &first, &last, &write))
        return NULL;
    if (!self->mapped) {
        refuse_closed(object);
        return NULL;
    }
    if (first < 0 || first >= last || last > self->length || first % page || last % page)
        return PyErr_Format(PyExc_ValueError, "no pages: %zd to %zd of %zd bytes", first, last, self->length);
    char *start = self->start + first;
    Py_BEGIN_ALLOW_THREADS
    failed = madvise(start, (size_t)(last - first), write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* ---- lending ---- */

static int mapping_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Mapping *self = (Mapping *)object;
    view->obj = NULL;
    if (!self->mapped) {
        refuse_closed(object);
        return -1;
    }
    if (self->hollow) {
        PyErr_Format(PyExc_BufferError, "there is no memory at %p: the range is only reserved", self->start);
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
    {"offset", T_LONGLONG, offsetof(Mapping, offset), READONLY, "Where in the memory it begins."},
    {"readonly", T_BOOL, offsetof(Mapping, readonly), READONLY, "Whether writing is refused."},
    {"private", T_BOOL, offsetof(Mapping, private), READONLY, "Whether what is written stays in this process."},
    {"hollow", T_BOOL, offsetof(Mapping, hollow), READONLY, "Whether there is no memory behind it."},
    {"kept", T_BOOL, offsetof(Mapping, kept), READONLY, "Whether it stays until unmap()."},
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
    {"cut", mapping_cut, METH_VARARGS, "cut(first, last): take pages out; what follows them is returned, a mapping of its own."},
    {"keep", mapping_keep, METH_NOARGS, "Stay mapped until unmap(), whoever forgets it."},
    {"populate", mapping_populate, METH_VARARGS, "populate(first, last, write): have these pages present."},
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
    if (!mapping_type && !(mapping_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mapping_spec, NULL)))
        return -1;
    if (PyObject_SetAttrString((PyObject *)mapping_type, "closed_error", PyExc_ValueError) ||
        PyModule_AddObjectRef(module, "Mapping", (PyObject *)mapping_type))
        return -1;
    if (!lease_type && !(lease_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &lease_spec, NULL)))
        return -1;
    return PyModule_AddObjectRef(module, "Lease", (PyObject *)lease_type);
}
