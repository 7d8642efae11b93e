/* The client half of a session: post, spin a little, sleep, collect.
 *
 * One thread uses a session at a time; a nested call (a signal handler, a
 * finalizer) finds it busy and takes another. A call never hangs: the socket
 * ends with its server, and `watch` may name one more descriptor (a pidfd) whose
 * readability means that nobody will answer. */
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

PyTypeObject *session_type;

static void session_release(Session *s)
{
    if (!s->page)
        return;
    if (s->generation == leaf_generation()) {
        inbox_clear(&s->inbox);
        munmap(s->page, PAGE_BYTES);
        leaf_close_guarded(s->sock);
    }
    s->page = NULL;
    s->sock = -1;
    s->dead = true;
}

/* open_session(port, watch) -> Session, or None when the port's queue is full. */
static PyObject *open_session(PyObject *module, PyObject *args)
{
    (void)module;
    int port, watch, pair[2], memfd;
    if (!PyArg_ParseTuple(args, "ii:open_session", &port, &watch))
        return NULL;
    if ((memfd = leaf_memfd("l4re:session", PAGE_BYTES)) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        close(memfd);
        return NULL;
    }
    leaf_guard(pair[0]);
    leaf_guard(pair[1]);
    struct page *page = page_map(memfd);
    int result = page ? 0 : -errno;
    if (page) {
        atomic_store(&page->server_asleep, 1);
        atomic_store(&page->version, PAGE_VERSION);
        struct packet hello = {.kind = 'S'};
        L4RE_POINT("open_session: made, not yet sent");
        result = io_send(port, &hello, offsetof(struct packet, text), (int[]){pair[1], memfd}, 2);
        L4RE_POINT("open_session: sent, our copies still open");
    }
    leaf_close_guarded(pair[1]);
    close(memfd);
    Session *s = result == 0 ? PyObject_New(Session, session_type) : NULL;
    if (!s) {
        if (page)
            munmap(page, PAGE_BYTES);
        leaf_close_guarded(pair[0]);
        if (result == -EAGAIN)
            Py_RETURN_NONE;
        errno = -result;
        return result ? PyErr_SetFromErrno(PyExc_OSError) : NULL;
    }
    int64_t most = spin_setting();
    memset((char *)s + sizeof(PyObject), 0, sizeof *s - sizeof(PyObject));
    s->page = page;
    s->sock = pair[0];
    s->watch = watch;
    s->generation = leaf_generation();
    s->spin = (struct spin){.most = most};
    return (PyObject *)s;
}

/* Whether the state is what we wait for; BROKEN if it is what no server writes. */
static inline int look(Session *s, uint64_t wanted)
{
    uint64_t word = atomic_load_explicit(&s->page->state, memory_order_acquire);
    if (word == wanted)
        return 1;
    if (word == word_of(s->sequence, POSTED) || word == word_of(s->sequence, TAKEN))
        return 0;
    s->dead = true;
    return -1;
}

/* Take a posted request back. True: it is as if it had never been posted. */
static bool withdraw(Session *s)
{
    uint64_t posted = word_of(s->sequence, POSTED);
    L4RE_POINT("withdraw: given up, still posted");
    return atomic_compare_exchange_strong(&s->page->state, &posted, word_of(s->sequence, FREE));
}

struct wish {
    Session *session;
    uint64_t word;
};

static inline int look_for(void *wish)
{
    return look(((struct wish *)wish)->session, ((struct wish *)wish)->word);
}

/* Wait until the state word is `wanted`. 0, a status, or -1 with a Python exception. */
static int await_state(Session *s, uint64_t wanted, int64_t timeout)
{
    int64_t start = 0;
    int seen = look(s, wanted);
    if (!seen)
        seen = spin_until(&s->spin, s->peer_cpu == this_cpu(), QUICK_LOOKS, timeout, &start, look_for,
                          &(struct wish){s, wanted});
    if (seen)
        return seen < 0 ? BROKEN : 0;
    for (;;) {
        atomic_store_explicit(&s->page->client_asleep, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        int result = 0;
        if ((seen = look(s, wanted)))
            result = seen < 0 ? BROKEN : 0;
        else if (PyErr_CheckSignals() < 0 || s->generation != leaf_generation())
            result = PyErr_Occurred() ? -1 : FORKED;    /* by a signal handler: we are the child, the page is not ours */
        else if (s->inbox.end || s->inbox.refused)
            result = s->inbox.refused ? REFUSED : GONE;
        else if (s->inbox.broken)
            result = BROKEN;
        else {
            int ready = 1;
            s->sleeps++;
            L4RE_POINT("await: looked, not yet asleep");
            Py_BEGIN_ALLOW_THREADS
            if (timeout < 0 && s->watch < 0)
                inbox_drain(&s->inbox, s->sock, true);
            else {
                int64_t left = timeout < 0 ? 0 : start + timeout - io_now();
                struct timespec span = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
                struct pollfd polls[] = {{.fd = s->sock, .events = POLLIN}, {.fd = s->watch, .events = POLLIN}};
                ready = ppoll(polls, s->watch < 0 ? 1 : 2, timeout < 0 ? NULL : &span, NULL);
                if (ready > 0 && polls[0].revents)
                    inbox_drain(&s->inbox, s->sock, false);
                else if (ready > 0 && polls[1].revents)
                    s->inbox.end = true;
            }
            Py_END_ALLOW_THREADS
            L4RE_POINT("await: woken, flag still up");
            if ((ready == 0 || (timeout >= 0 && io_now() - start >= timeout)) && !look(s, wanted))
                result = SEND_TIMEOUT;                  /* also if the server keeps ringing for nothing */
            else
                result = -2;                            /* woken: look again */
        }
        if (s->generation != leaf_generation())
            return result;
        atomic_store_explicit(&s->page->client_asleep, 0, memory_order_relaxed);
        if (result != -2) {
            if (result == 0)
                spin_slept(&s->spin, io_now() - start);
            return result;
        }
    }
}

/* Publish what page_write() wrote, and ring if the server sleeps. */
static void post(Session *s)
{
    atomic_store_explicit(&s->page->state, word_of(s->sequence, POSTED), memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    L4RE_POINT("post: before the look at the flag");
    if (atomic_load_explicit(&s->page->server_asleep, memory_order_relaxed)) {
        L4RE_POINT("post: before the ring");
        s->rings++;
        io_send(s->sock, "w", 1, NULL, 0);              /* a full queue has wake-ups enough; an end is seen when we wait */
    }
}

/* 0 or a status: write and post one message. */
static int begin(Session *s, struct outgoing *message, unsigned flags, int64_t *timeout)
{
    uint64_t word = atomic_load_explicit(&s->page->state, memory_order_acquire);
    if (word == word_of(s->sequence, POSTED) || word == word_of(s->sequence, TAKEN)) {
        int64_t start = io_now();
        int status = await_state(s, word_of(s->sequence, FREE), *timeout);      /* a one-way message before us */
        if (*timeout > 0 && (*timeout -= io_now() - start) < 0)
            *timeout = 0;
        s->dead |= status > 0 && status != SEND_TIMEOUT;
        if (status)
            return status;
    } else if (word != word_of(s->sequence, FREE) && word != word_of(s->sequence, DONE)) {
        s->dead = true;
        return BROKEN;
    }
    uint64_t before = s->sequence;
    s->sequence = (s->sequence + 1) & (UINT64_MAX >> 9);
    L4RE_POINT("begin: nothing is sent");
    if (message->count) {
        struct packet packet = {.kind = 'C', .sequence = s->sequence};
        int result = io_send(s->sock, &packet, offsetof(struct packet, text), message->fds, message->count);
        if (result < 0) {
            s->sequence = before;                       /* nothing was sent */
            if (result == -EAGAIN)
                return FULL;
            if (result == -EPIPE || result == -ECONNRESET) {
                s->dead = true;
                for (int i = 0; i < 1024 && !s->inbox.refused && inbox_drain(&s->inbox, s->sock, false); i++)
                    ;                                   /* its last word, if it left one */
                return s->inbox.refused ? REFUSED : GONE;
            }
            errno = -result;
            PyErr_SetFromErrno(PyExc_OSError);
            message->unsent = true;
            return -1;
        }
    }
    L4RE_POINT("begin: descriptors are ahead");
    page_write(s->page, message->label, message->words, message->word_bytes, message->items, message->data,
               message->size, (unsigned)message->count, flags);
    s->calls++;
    post(s);
    return 0;
}

/* The reply, whose state word has been seen. A tuple (or a subclass of it), or a status. */
static PyObject *collect(Session *s, PyTypeObject *type)
{
    struct incoming answer;
    struct head head;
    L4RE_POINT("collect: answered, not yet read");
    if (!page_read(s->page, &head) || (head.fds && !inbox_claim(&s->inbox, s->sock, s->sequence, head.fds))) {
        s->dead = true;
        return PyLong_FromLong(BROKEN);
    }
    s->peer_cpu = head.cpu;
    return incoming_read(&answer, s->page, &head, &s->inbox) ? incoming_tuple(&answer, type) : NULL;
}

static int usable(Session *s)
{
    if (!s->page || s->closing)
        return CLOSED;
    if (s->generation != leaf_generation())             /* a forked child opens its own */
        return STALE;
    return s->dead ? STALE : s->busy ? BUSY : 0;
}

static PyObject *leave(Session *s, PyObject *result)
{
    s->busy = false;
    if (s->closing)
        session_release(s);
    return result;
}

/* What a wait that did not succeed leaves behind: the request taken back, or the session abandoned. */
static PyObject *give_up(Session *s, int status, unsigned fds, PyTypeObject *type)
{
    bool back = s->generation == leaf_generation() && withdraw(s);
    if (!back && status == SEND_TIMEOUT && look(s, word_of(s->sequence, DONE)) == 1)
        return collect(s, type);                        /* it came after all */
    if (!back || fds || (status != SEND_TIMEOUT && status != -1))
        s->dead = true;
    if (status < 0)
        return NULL;
    return PyLong_FromLong(status == SEND_TIMEOUT && !back ? RECEIVE_TIMEOUT : status);
}

PyObject *session_exchange(Session *s, struct outgoing *message, int64_t timeout, unsigned flags, PyTypeObject *type)
{
    int status = usable(s);                             /* after the parsing, which may have run foreign code */
    if (status) {
        outgoing_release(message);
        return PyLong_FromLong(status);
    }
    s->busy = true;
    status = begin(s, message, flags, &timeout);
    unsigned fds = (unsigned)message->count;
    outgoing_release(message);
    if (status < 0)
        return leave(s, NULL);
    if (status)
        return leave(s, PyLong_FromLong(status));
    if (flags & ONE_WAY)
        return leave(s, PyLong_FromLong(0));
    status = await_state(s, word_of(s->sequence, DONE), timeout);
    return leave(s, status ? give_up(s, status, fds, type) : collect(s, type));
}

/* call(label, words, data, items, fds, timeout_ns, flags) -> (label, words, data, caps) or a status */
static PyObject *session_call(Session *s, PyObject *const *args, Py_ssize_t count)
{
    struct outgoing message;
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "call takes label, words, data, items, fds, timeout and flags");
        return NULL;
    }
    int64_t timeout = PyLong_AsLongLong(args[5]);
    long flags = PyLong_AsLong(args[6]);
    if (PyErr_Occurred())
        return NULL;
    if (!outgoing_parse(&message, args)) {
        outgoing_release(&message);
        return NULL;
    }
    return session_exchange(s, &message, timeout, (unsigned)flags, NULL);
}

/* post(label, words, data, items, fds) -> status; the answer is fetched with look(). */
static PyObject *session_post(Session *s, PyObject *const *args, Py_ssize_t count)
{
    struct outgoing message;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "post takes label, words, data, items and fds");
        return NULL;
    }
    if (!outgoing_parse(&message, args)) {
        outgoing_release(&message);
        return NULL;
    }
    int status = usable(s);
    if (status) {
        outgoing_release(&message);
        return PyLong_FromLong(status);
    }
    s->busy = true;
    s->open_fds = message.count > 0;
    status = begin(s, &message, 0, &(int64_t){0});
    outgoing_release(&message);
    if (status) {
        leave(s, NULL);
        return status < 0 ? NULL : PyLong_FromLong(status);
    }
    s->open_post = true;
    return PyLong_FromLong(0);
}

/* look() -> the answer, a status, or None: not yet, and the socket will become readable. */
static PyObject *session_look(Session *s, PyObject *unused)
{
    (void)unused;
    if (!s->open_post || !s->page || s->generation != leaf_generation())
        return PyLong_FromLong(CLOSED);
    atomic_store_explicit(&s->page->client_asleep, 0, memory_order_relaxed);
    inbox_drain(&s->inbox, s->sock, false);
    atomic_store_explicit(&s->page->client_asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    int seen = look(s, word_of(s->sequence, DONE));
    if (!seen && !s->inbox.end && !s->inbox.broken && !s->inbox.refused)
        Py_RETURN_NONE;
    s->open_post = false;
    if (seen == 1)
        return leave(s, collect(s, NULL));
    s->dead = true;
    return leave(s, PyLong_FromLong(s->inbox.refused ? REFUSED : s->inbox.end ? GONE : BROKEN));
}

/* withdraw() -> bool: give a posted request up; False: the server has it, the session is spent. */
static PyObject *session_withdraw(Session *s, PyObject *unused)
{
    (void)unused;
    bool back = false;
    if (s->open_post && s->page && s->generation == leaf_generation()) {
        back = withdraw(s);
        s->dead |= !back || s->open_fds;                /* descriptors cannot be taken back */
        s->open_post = false;
        leave(s, NULL);
    }
    return PyBool_FromLong(back);
}

static PyObject *session_close(Session *s, PyObject *unused)
{
    (void)unused;
    if (s->busy && !s->open_post)
        s->closing = true;                              /* the call that runs closes it when it ends */
    else {
        s->busy = s->open_post = false;
        session_release(s);
    }
    Py_RETURN_NONE;
}

static PyObject *session_fileno(Session *s, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(s->page && s->generation == leaf_generation() ? s->sock : -1);
}

static PyObject *session_stats(Session *s, PyObject *unused)
{
    (void)unused;
    return Py_BuildValue("{sKsKsKsLsO}", "calls", s->calls, "rings", s->rings, "sleeps", s->sleeps, "spin_ns",
                         (long long)(s->spin.rest ? 0 : s->spin.most), "dead", s->dead ? Py_True : Py_False);
}

static PyObject *session_refusal(Session *s, void *closure)
{
    (void)closure;
    return PyUnicode_DecodeUTF8(s->inbox.refusal, (Py_ssize_t)strlen(s->inbox.refusal), "replace");
}

static PyObject *session_dead(Session *s, void *closure)
{
    (void)closure;
    return PyBool_FromLong(s->dead || !s->page || s->generation != leaf_generation());
}

static PyObject *session_busy(Session *s, void *closure)
{
    (void)closure;
    return PyBool_FromLong(s->busy);
}

static void session_dealloc(Session *s)
{
    PyTypeObject *type = Py_TYPE((PyObject *)s);
    session_release(s);
    PyObject_Free(s);
    Py_DECREF(type);
}

struct page *session_page(PyObject *session)
{
    if (Py_TYPE(session) != session_type || !((Session *)session)->page ||
        ((Session *)session)->generation != leaf_generation()) {
        PyErr_SetString(PyExc_TypeError, "an open Session is needed");
        return NULL;
    }
    return ((Session *)session)->page;
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))session_call, METH_FASTCALL, "call(label, words, data, items, fds, timeout_ns, flags)"},
    {"post", (PyCFunction)(void (*)(void))session_post, METH_FASTCALL, "post(label, words, data, items, fds) -> status"},
    {"look", (PyCFunction)session_look, METH_NOARGS, "look() -> answer, status, or None: not yet"},
    {"withdraw", (PyCFunction)session_withdraw, METH_NOARGS, "withdraw() -> bool: give a posted request up"},
    {"close", (PyCFunction)session_close, METH_NOARGS, "close(); deferred while a call runs"},
    {"fileno", (PyCFunction)session_fileno, METH_NOARGS, "fileno() -> the session socket, -1 when closed"},
    {"stats", (PyCFunction)session_stats, METH_NOARGS, "stats() -> dict of counts"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"refusal", (getter)session_refusal, NULL, "why the server refused the session", NULL},
    {"dead", (getter)session_dead, NULL, "never to be used again", NULL},
    {"busy", (getter)session_busy, NULL, "a call runs on it", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, session_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, getset}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "l4re._native.leaf.Session",
    .basicsize = sizeof(Session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

static PyMethodDef functions[] = {
    {"open_session", open_session, METH_VARARGS, "open_session(port, watch) -> Session, or None when the port is full"},
    {NULL, NULL, 0, NULL},
};

int leaf_session_init(PyObject *module)
{
    static const struct { const char *name; int value; } constants[] = {
        {"GONE", GONE}, {"SEND_TIMEOUT", SEND_TIMEOUT}, {"RECEIVE_TIMEOUT", RECEIVE_TIMEOUT}, {"BUSY", BUSY},
        {"STALE", STALE}, {"BROKEN", BROKEN}, {"REFUSED", REFUSED}, {"FULL", FULL}, {"CLOSED", CLOSED}, {"FORKED", FORKED},
        {"ONE_WAY", ONE_WAY}, {"PAGE_BYTES", PAGE_BYTES}, {"PAGE_LONG", PAGE_LONG},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    session_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!session_type || PyModule_AddType(module, session_type) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
