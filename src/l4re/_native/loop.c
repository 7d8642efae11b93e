/* The server half: one loop over session pages and descriptors.
 *
 * A session is *hot* from the moment its client rang until the loop next sleeps:
 * its asleep flag is down, its page is looked at, and its client need not ring.
 * Cold sessions cost nothing. Before sleeping the loop raises every flag, fences
 * and looks once more; the same holds whenever it returns to foreign code that
 * may block (settle()). On waking the order is: clear the flag, drain the socket,
 * look at the page. What is readable is handled before an end is believed.
 *
 * The loop drops the GIL while it spins or sleeps, and a garbage collection may
 * run wherever it makes an object. Either may close a source that the loop looks
 * at: inside next() its mapping and memory stay until nobody can. */
#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <structmember.h>
#include <unistd.h>

enum {
    BATCH = 64,                         /* events of one epoll_wait */
    HOT = 64,
    ROUNDS_PER_EPOLL = 16,
    LOOKS_PER_TRIGGER = 16,             /* at the pages, if there are any */
    TRIGGERS_PER_EPOLL = 4,             /* looks at the pipe that was triggered last */
    QUICK_TRIGGERS = 8,                 /* before the clock is read: each is a system call */
    YIELD_AFTER = 32,                   /* requests, to clients that wait for our CPU */
    YIELD_REST = 256,                   /* requests without, once somebody else kept it */
    OTHERS_GAP_NS = 50000,              /* for those who call, between messages to ports */
};

typedef struct loop Loop;

/* A watched descriptor; with a page it is a session. */
typedef struct source {
    PyObject_HEAD
    Loop *loop;                         /* NULL once closed */
    struct source *next, *previous;     /* the loop's list, which owns a reference */
    PyObject *owner;
    PyObject *serve, *low;              /* of a session: its owner's function, and that one's first argument;
                                         * of a pipe: what a trigger runs, or NULL */
    int fd;
    bool pipe;                          /* of notifications: emptied and closed here */
    struct drained held;                /* what it held, until somebody asks */
    struct page *page;
    struct inbox inbox;
    uint64_t sequence;                  /* of the request being served */
    unsigned peer_cpu;
    int hot;                            /* index in the loop's hot list, or -1 */
    bool taken, one_way, broken;
    bool parked;                        /* descriptors lie in the socket, their request is not posted */
    uint64_t requests;
} Source;

struct loop {
    PyObject_HEAD
    int epoll;
    uint32_t generation;
    bool inside;                        /* in next() or run() */
    bool calling;                       /* inside, but in the hands of a handler */
    int haste;                          /* how soon run() is wanted back */
    Source *serving;                    /* whose request a handler has; borrowed from serve(), as the request is */
    struct incoming *request;
    Source *sources, *graves;           /* graves: closed inside next() */
    Source *hot[HOT];
    int hot_count, cursor, rounds;
    struct epoll_event events[BATCH];
    int event_count, event_next;
    bool pages_first;                   /* what look_once() looks at first, in turns */
    bool other;                         /* somebody else's descriptor was ready, and is being seen to */
    int64_t others_at;                  /* when the next such has its turn, while sessions are hot */
    int pipes;                          /* how many are watched */
    bool warm;                          /* one was triggered since we last slept: the next may come soon */
    unsigned trigger_cpu;               /* where that was done */
    unsigned looks, looks_per_trigger;
    Source *last;                       /* whose trigger came last; borrowed, good until bury() */
    bool ahead;                         /* its pipe was emptied while we spun, and held: */
    struct drained held;
    int served_beside;                  /* requests since a client that waits for this very CPU was answered, from 1 */
    int found;                          /* events that came while we spun */
    struct spin spin;
    uint64_t requests, notified, sleeps, polls, rings;
};

enum haste { AT_LEISURE, LOOK_ONLY, AT_ONCE };

static PyTypeObject *loop_type, *source_type;

static void cool(Source *s)
{
    Loop *l = s->loop;
    if (s->hot < 0)
        return;
    Source *last = l->hot[--l->hot_count];
    l->hot[s->hot] = last;
    last->hot = s->hot;
    s->hot = -1;
    atomic_store_explicit(&s->page->server_asleep, 1, memory_order_relaxed);
}

static void heat(Source *s)
{
    Loop *l = s->loop;
    if (s->hot >= 0 || l->hot_count == HOT)             /* full: this one goes on ringing, its flag never came down */
        return;
    atomic_store_explicit(&s->page->server_asleep, 0, memory_order_relaxed);
    s->hot = l->hot_count;
    l->hot[l->hot_count++] = s;
}

static void source_unmap(Source *s)
{
    bool ours = s->page || s->pipe;
    if (s->page)
        munmap(s->page, PAGE_BYTES);
    s->page = NULL;
    inbox_clear(&s->inbox);
    if (s->fd >= 0 && ours)
        leaf_close_guarded(s->fd);
    s->fd = -1;
}

static inline void drained_add(struct drained *sum, struct drained more)
{
    sum->control |= more.control;
    sum->end |= more.end;
    sum->cpu |= more.cpu;
}

/* Take a source out of its loop. Its descriptor is closed if it is a session's or a pipe. */
static void source_drop(Source *s)
{
    Loop *l = s->loop;
    if (!l)
        return;
    bool foreign = l->generation != leaf_generation();
    if (foreign) {                                      /* the fork closed and unmapped everything */
        s->page = NULL;
        s->fd = -1;
        s->inbox.count = 0;
    } else {
        /* Explicitly: the open file may live on in a process that kept a copy. */
        epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, NULL);
        if (s->page && s->hot >= 0)
            cool(s);
    }
    for (int i = l->event_next; i < l->event_count; i++)
        if (l->events[i].data.ptr == s)
            l->events[i].data.ptr = NULL;
    l->pipes -= s->pipe;
    if (l->last == s) {
        if (l->ahead)                                   /* for whoever takes the pipe over */
            drained_add(&s->held, l->held);
        l->last = NULL;
        l->ahead = false;
    }
    if (s->previous)
        s->previous->next = s->next;
    else
        l->sources = s->next;
    if (s->next)
        s->next->previous = s->previous;
    s->previous = s->next = NULL;
    s->loop = NULL;
    if (l->inside && !l->calling && !foreign) {                        /* the loop may be looking at it right now */
        s->next = l->graves;
        l->graves = s;
        return;
    }
    source_unmap(s);
    Py_DECREF(s);
}

static void bury(Loop *l)
{
    while (l->graves) {
        Source *s = l->graves;
        l->graves = s->next;
        s->next = NULL;
        for (int i = l->event_next; i < l->event_count; i++)
            if (l->events[i].data.ptr == s)
                l->events[i].data.ptr = NULL;
        source_unmap(s);
        Py_DECREF(s);
    }
}

static bool stale(Loop *l)
{
    if (l->generation == leaf_generation() && l->epoll >= 0)
        return false;
    PyErr_SetString(PyExc_ValueError, l->epoll < 0 ? "this loop is closed" : "this loop belongs to the process before the fork");
    return true;
}

static Source *source_new(Loop *l, int fd, PyObject *owner, struct page *page, bool pipe)
{
    Source *s = PyObject_GC_New(Source, source_type);
    if (!s)
        return NULL;
    memset((char *)s + sizeof(PyObject), 0, sizeof *s - sizeof(PyObject));
    s->fd = fd;
    s->hot = -1;
    s->page = page;
    s->owner = Py_NewRef(owner);
    if (page && (!(s->serve = PyObject_GetAttrString(owner, "serve")) || !(s->low = PyObject_GetAttrString(owner, "low"))))
        PyErr_Clear();                                  /* its requests are for whoever calls next() */
    if (pipe && !(s->serve = PyObject_GetAttrString(owner, "triggered")))
        PyErr_Clear();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        s->page = NULL;
        s->fd = -1;
        Py_DECREF(s);
        return NULL;
    }
    s->loop = l;
    s->pipe = pipe;
    l->pipes += pipe;
    s->next = l->sources;
    if (l->sources)
        l->sources->previous = s;
    l->sources = (Source *)Py_NewRef((PyObject *)s);
    PyObject_GC_Track(s);
    return s;
}

/* ---- requests ---- */

static void watch_as(Source *s, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = s};
    epoll_ctl(s->loop->epoll, EPOLL_CTL_MOD, s->fd, &event);
}

/* Take the request in the page, if there is one. False: there is none, or the session is broken. */
static bool take(Source *s, struct head *head)
{
    uint64_t word = atomic_load_explicit(&s->page->state, memory_order_acquire);
    if ((word & 0xff) != POSTED)
        return false;
    uint64_t sequence = word >> 8;
    L4RE_POINT("take: seen, not yet taken");
    if (!atomic_compare_exchange_strong(&s->page->state, &word, word_of(sequence, TAKEN)))
        return false;                                   /* withdrawn this instant */
    L4RE_POINT("take: taken, not yet read");
    if (!page_read(s->page, head) || (head->fds ? !inbox_claim(&s->inbox, s->fd, sequence, head->fds) : s->inbox.count)) {
        s->broken = true;
        return false;
    }
    if (s->parked) {
        s->parked = false;
        watch_as(s, EPOLLIN);
    }
    s->sequence = sequence;
    s->peer_cpu = head->cpu;
    s->one_way = head->flags & ONE_WAY;
    s->taken = !s->one_way;
    s->requests++;
    s->loop->requests++;
    return true;
}

/* Copy a request that was taken; one that nobody waits for leaves the page free. */
static bool copy_out(Source *s, const struct head *head, struct incoming *request)
{
    L4RE_POINT("copy_out: descriptors are here");
    bool read = incoming_read(request, s->page, head, &s->inbox);
    if (s->one_way && s->page) {                        /* a finalizer may just have closed it */
        atomic_store_explicit(&s->page->state, word_of(s->sequence, FREE), memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        L4RE_POINT("copy_out: released, before the ring");
        if (atomic_load_explicit(&s->page->client_asleep, memory_order_relaxed))
            io_send(s->fd, "w", 1, NULL, 0);
    }
    return read;
}

/* (owner, session, label, words, data, caps); takes the request. */
static PyObject *request_event(Source *s, struct incoming *request)
{
    PyObject *event = PyTuple_Pack(6, s->owner, (PyObject *)s, request->label, request->words, request->data, request->caps);
    incoming_release(request);
    return event;
}

static bool stale(Loop *l);
static int reply(Source *s, struct outgoing *message);
static bool awaits_reply(Source *s);

/* Answer with (label, words, data, caps), of capabilities to memory if any; false: it is not that, does not fit a
 * message, or cannot be sent. */
static bool reply_plainly(Source *s, PyObject *answer)
{
    if (!PyTuple_CheckExact(answer) || PyTuple_Size(answer) != 4)
        return false;
    PyObject *label = PyTuple_GetItem(answer, 0), *words = PyTuple_GetItem(answer, 1), *data = PyTuple_GetItem(answer, 2);
    PyObject *caps = PyTuple_GetItem(answer, 3);
    struct outgoing message;
    if (!PyLong_CheckExact(label) || !PyBytes_CheckExact(words) || !PyBytes_CheckExact(data) || !PyTuple_CheckExact(caps))
        return false;
    if (!outgoing_take(&message, label, words, data) || (PyTuple_Size(caps) && !memory_export(caps, &message))) {
        outgoing_release(&message);
        PyErr_Clear();
        return false;
    }
    if (awaits_reply(s))                                /* its handler may have closed it, or forked */
        return reply(s, &message) >= 0;
    outgoing_release(&message);
    return true;
}

static PyObject *exception_raised(void)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}

/* Let the owner serve a request, which is released. NULL: it was answered, or an exception is set; else
 * (owner, session, outcome): what is left to do, an answer out of the ordinary or an exception. */
static PyObject *serve(Loop *l, Source *s, struct incoming *request)
{
    Source *before = l->serving;
    struct incoming *outer = l->request;
    bool nested = l->calling;
    Py_INCREF((PyObject *)s);
    l->serving = s;
    l->request = request;
    l->calling = true;
    PyObject *args[] = {s->low, request->label, request->words, request->data, request->caps};
    PyObject *outcome = handler_call(s->serve, args, 5);
    l->calling = nested;
    l->serving = before;
    l->request = outer;
    incoming_release(request);
    PyObject *event = NULL;
    if (outcome ? outcome != Py_None && !reply_plainly(s, outcome) : true) {
        if (!outcome)
            outcome = exception_raised();
        event = PyTuple_Pack(3, s->owner, (PyObject *)s, outcome);
    }
    Py_XDECREF(outcome);
    Py_DECREF((PyObject *)s);
    return event;
}

/* What becomes of a request that was taken: an event, or NULL if it was answered here. */
static PyObject *dispatch(Source *s, const struct head *head, bool serving)
{
    struct incoming request;
    Loop *l = s->loop;
    Py_INCREF((PyObject *)s);                           /* it may be closed while objects are made */
    PyObject *event = NULL;
    if (copy_out(s, head, &request)) {
        bool ours = serving && s->low;
        int plain = !ours ? 0 : head->items || head->fds ? memory_import(&request.words, &request.caps) : 1;
        if (plain < 0)
            incoming_release(&request);
        else
            event = plain ? serve(l, s, &request) : request_event(s, &request);
    }
    Py_DECREF((PyObject *)s);
    return event;
}

/* A trigger came: run what is to run, or say that its owner's descriptor is ready. */
static PyObject *notify(Source *s, bool serving)
{
    Loop *l = s->loop;
    bool nested = l->calling;
    if (!serving) {
        s->held.cpu = l->trigger_cpu;
        return PyTuple_Pack(2, s->owner, Py_None);
    }
    PyObject *function = Py_NewRef(s->serve);           /* it may close its own source, which then is no more */
    PyObject *owner = Py_NewRef(s->owner);
    l->calling = true;
    l->notified++;
    PyObject *result = PyObject_CallNoArgs(function);
    if (!result) {                                      /* raises again what is to end the program */
        PyObject *error = exception_raised(), *failed = PyObject_GetAttrString(owner, "failed");
        result = failed ? PyObject_CallFunctionObjArgs(failed, error, NULL) : NULL;
        Py_XDECREF(failed);
        Py_XDECREF(error);
    }
    l->calling = nested;
    Py_DECREF(owner);
    Py_DECREF(function);
    Py_XDECREF(result);
    return NULL;
}

static inline bool posted(Source *s)
{
    return (atomic_load_explicit(&s->page->state, memory_order_acquire) & 0xff) == POSTED;
}

/* The next hot request in turn is taken; or a session is found broken. NULL: neither. */
static Source *scan(Loop *l, struct head *head)
{
    for (int i = 0; i < l->hot_count; i++) {
        int at = l->cursor + i < l->hot_count ? l->cursor + i : (l->cursor + i) % l->hot_count;
        Source *s = l->hot[at];
        if (!posted(s))
            continue;
        if (take(s, head) || s->broken) {
            l->cursor = at + 1;
            return s;
        }
    }
    return NULL;
}

/* Whether more descriptors wait here for their request than honest clients bring: those of one that came
 * between our look at a request and its client's taking that one back. */
static bool crowded(Loop *l)
{
    int count = 0;
    for (Source *s = l->sources; s; s = s->next)
        count += s->inbox.count;
    return count > 4 * IO_MAX_FDS;
}

enum found { NOTHING, REQUEST, TRIGGERED, READY, ENDED };

/* What a notification pipe held. Triggers of a loop that serves them need nobody else's look, all the rest does. */
static enum found emptied(Source *s, struct drained held)
{
    if (held.cpu) {
        s->loop->warm = true;
        s->loop->last = s;
        s->loop->trigger_cpu = held.cpu;
    }
    if (s->serve && !held.control)
        return TRIGGERED;
    drained_add(&s->held, held);
    return READY;
}

static enum found empty(Source *s)
{
    struct drained held;
    int result = io_drain(s->fd, &held);
    if (result == -EAGAIN)
        return NOTHING;
    if (result < 0)                                     /* not a pipe that can be read without waiting: worth nothing */
        held = (struct drained){.control = true, .end = true};
    return emptied(s, held);
}

/* What an epoll event means. A request is taken. */
static enum found handle(Source *s, uint32_t events, struct head *head)
{
    if (!s->page)
        return s->pipe ? empty(s) : READY;
    heat(s);
    for (int packets = 0; packets < BATCH; packets++) { /* wake-ups of requests that were withdrawn */
        char kind = 0;
        bool there = posted(s);
        if (!there && !(events & (EPOLLHUP | EPOLLERR)) && recv(s->fd, &kind, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
            break;                                      /* do not read: descriptors of a request to come may come now */
        if (kind == 'C') {
            /* Descriptors ahead of their request stay where they are, in the account of whoever sent them:
             * a client that never posts must not fill our table. Look again when something new comes. */
            if (!s->parked)
                watch_as(s, EPOLLIN | EPOLLET);
            s->parked = true;
            return NOTHING;
        }
        L4RE_POINT("handle: looked, not yet drained");
        if (!inbox_drain(&s->inbox, s->fd, false) || there)
            break;
    }
    if (take(s, head))
        return REQUEST;
    s->broken |= s->inbox.broken || (s->inbox.count && crowded(s->loop));
    if (!s->broken && !s->inbox.end)
        return NOTHING;
    cool(s);
    return ENDED;
}

/* A message to a port may take as long as fifty calls: to open a session, say. Whoever floods us with them must not
 * keep those waiting who call already, so they go first for a while. It is asked again: plain sources are watched by
 * level. */
static inline bool postponed(Loop *l, Source *s)
{
    if (s->page || s->pipe || !l->hot_count)
        return false;
    if (!l->other && l->others_at && io_now() < l->others_at)
        return true;
    l->other = true;
    return false;
}

/* What a look at everything finds first, without waiting; `source` is whose it is. Pages and events take turns: who
 * waits for an answer does not wait until everybody who left is cleared away. */
static enum found look_once(Loop *l, Source **source, struct head *head)
{
    if (l->ahead) {
        l->ahead = false;
        return emptied(*source = l->last, l->held);
    }
    if ((l->pages_first = !l->pages_first) && l->event_next < l->event_count && (*source = scan(l, head)))
        return (*source)->broken ? ENDED : REQUEST;
    if (l->other && l->event_next == l->event_count) {  /* all that were ready had their turn, not only the first */
        l->other = false;
        l->others_at = io_now() + OTHERS_GAP_NS;
    }
    while (l->event_next < l->event_count) {
        struct epoll_event *event = &l->events[l->event_next++];
        Source *s = event->data.ptr;
        if (!s || postponed(l, s))
            continue;
        enum found found = handle(*source = s, event->events, head);
        if (found)
            return found;
    }
    if (!(*source = scan(l, head)))
        return NOTHING;
    return (*source)->broken ? ENDED : REQUEST;
}

static bool any_posted(Loop *l)
{
    for (int i = 0; i < l->hot_count; i++)
        if (posted(l->hot[i]))
            return true;
    return false;
}

/* Raise every flag, fence, look once more; true: something was there. */
static bool raise_flags(Loop *l)
{
    for (int i = 0; i < l->hot_count; i++)
        atomic_store_explicit(&l->hot[i]->page->server_asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    L4RE_POINT("raise_flags: raised, not yet looked");
    return any_posted(l);
}

static void lower_flags(Loop *l)
{
    for (int i = 0; i < l->hot_count; i++)
        atomic_store_explicit(&l->hot[i]->page->server_asleep, 0, memory_order_relaxed);
}

static int fetch(Loop *l, int64_t timeout)
{
    int ready, error;
    l->event_next = 0;
    l->event_count = 0;
    l->rounds = 0;
    l->polls++;
    if (timeout == 0) {
        ready = epoll_wait(l->epoll, l->events, BATCH, 0);
        l->event_count = ready > 0 ? ready : 0;
        return 0;
    }
    struct timespec span = {timeout / 1000000000, timeout % 1000000000};
    l->sleeps++;
    Py_BEGIN_ALLOW_THREADS
    ready = (int)syscall(SYS_epoll_pwait2, l->epoll, l->events, BATCH, timeout < 0 ? NULL : &span, NULL, 0);
    error = errno;
    if (ready < 0 && error == ENOSYS) {                 /* before Linux 5.11 */
        ready = epoll_wait(l->epoll, l->events, BATCH, timeout < 0 ? -1 : (int)((timeout + 999999) / 1000000));
        error = errno;
    }
    Py_END_ALLOW_THREADS
    l->event_count = ready > 0 ? ready : 0;
    bury(l);
    if (ready < 0 && error != EINTR) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* Try the pipe that was triggered last, which costs less than to ask for all. */
static inline bool triggered_again(Loop *l)
{
    Source *last = l->last;
    return last && (l->ahead = io_drain(last->fd, &l->held) == 0);
}

/* A source that was closed meanwhile ends the spin: its page must not be looked at for long. Triggers show at
 * the descriptors only, which takes a system call: now and then if there are pages to look at. */
static inline int look_around(void *loop)
{
    Loop *l = loop;
    if (any_posted(l))
        return 1;
    if (l->graves)
        return -1;
    if (!l->pipes || ++l->looks % l->looks_per_trigger)
        return 0;
    if (l->last && l->looks / l->looks_per_trigger % TRIGGERS_PER_EPOLL)
        return triggered_again(l);
    l->found = epoll_wait(l->epoll, l->events, BATCH, 0);
    return l->found > 0;
}

/* Look at the hot pages, and for triggers, for as long as it pays; true: there is something. */
static bool spin(Loop *l, int64_t timeout, int64_t *idle_since)
{
    bool beside = true;
    unsigned cpu = this_cpu();
    bury(l);
    for (int i = 0; i < l->hot_count; i++)
        beside &= l->hot[i]->peer_cpu == cpu;
    if (l->warm)
        beside &= l->trigger_cpu == (cpu - 1) % IO_CPUS + 1;
    l->found = 0;
    l->looks_per_trigger = l->hot_count ? LOOKS_PER_TRIGGER : 1;
    int seen = spin_until(&l->spin, beside, l->hot_count ? QUICK_LOOKS : QUICK_TRIGGERS, timeout, idle_since, look_around, l);
    l->ahead &= l->last != NULL;                        /* it may have been closed while its pipe was read */
    l->event_next = 0;                                  /* all were handled, or we would not be here */
    l->event_count = l->found > 0 ? l->found : 0;
    if (!l->graves)
        return seen > 0;
    bury(l);
    return l->event_count || l->ahead || any_posted(l);
}

/* Wait, at most for `timeout`, for something to be looked at; 1, 0 when there is nothing, or -1. */
static int await_anything(Loop *l, int64_t timeout, int64_t *idle_since)
{
    if (timeout && l->warm && !l->hot_count && triggered_again(l))
        return 1;
    if (timeout && (l->hot_count || l->warm) && spin(l, timeout, idle_since))
        return 1;
    if (PyErr_CheckSignals() < 0 || stale(l))           /* a signal handler may fork */
        return -1;
    if (timeout) {
        if (raise_flags(l)) {
            lower_flags(l);
            return 1;
        }
        while (l->hot_count)                            /* flags stay up: they are cold now */
            l->hot[--l->hot_count]->hot = -1;
        l->warm = false;
        L4RE_POINT("next: looked, not yet asleep");
    }
    if (fetch(l, timeout) < 0)
        return -1;
    if (timeout && l->event_count && *idle_since)
        spin_slept(&l->spin, io_now() - *idle_since);
    return l->event_count > 0;
}

/* A client that was answered on this CPU goes on only when we leave it, which a loop that others keep busy would not
 * do before its time is up. Unless whoever comes then keeps the CPU: that is no client of ours. */
static inline void let_clients_run(Loop *l)
{
    if (l->served_beside && ++l->served_beside > YIELD_AFTER)
        l->served_beside = yield_to_others() ? -YIELD_REST : 0;
}

/* The next thing that Python is to see; NULL without an exception: nothing, or enough was served. With `serving`
 * requests that bring no capabilities are served here, `most` of them; -1: any number. */
static PyObject *next_event(Loop *l, int64_t timeout, bool serving, long most)
{
    int64_t deadline = timeout > 0 ? io_now() + timeout : 0, idle_since = 0;
    Source *s;
    struct head head;
    while (!serving || l->haste != AT_ONCE) {
        if (l->event_next == l->event_count && ++l->rounds > ROUNDS_PER_EPOLL &&
            (PyErr_CheckSignals() < 0 || stale(l) || fetch(l, 0) < 0))
            return NULL;
        let_clients_run(l);
        enum found found = look_once(l, &s, &head);
        if (found == READY || found == ENDED)
            return PyTuple_Pack(2, s->owner, found == READY ? Py_None : (PyObject *)s);
        if (found == REQUEST || found == TRIGGERED) {
            PyObject *event = found == REQUEST ? dispatch(s, &head, serving) : notify(s, serving);
            if (event || PyErr_Occurred() || stale(l) || --most == 0)
                return event;
            if (most > 0)
                timeout = 0;                            /* something was done: no need to wait any more */
            idle_since = 0;
            continue;
        }
        int64_t left = serving && l->haste ? 0 : timeout <= 0 ? timeout : deadline - io_now();
        if (timeout > 0 && left < 0)
            left = 0;
        int there = await_anything(l, left, &idle_since);
        if (there < 0 || (!there && left == 0))
            return NULL;
    }
    return NULL;
}

static PyObject *enter(Loop *l, int64_t timeout, bool serving, long most)
{
    if (stale(l))
        return NULL;
    if (l->inside) {
        PyErr_SetString(PyExc_RuntimeError, "another thread runs this loop");
        return NULL;
    }
    l->inside = true;
    PyObject *event = next_event(l, timeout, serving, most);
    bury(l);
    l->inside = false;
    if (!event && !PyErr_Occurred())
        Py_RETURN_NONE;
    return event;
}

/* next(timeout_ns) -> (owner, session, label, words, data, caps): a request;
 * (owner, None): its descriptor is ready; (owner, session): that session ended or
 * broke the protocol; None: nothing within the time. */
static PyObject *loop_next(Loop *l, PyObject *arg)
{
    long long timeout = PyLong_AsLongLong(arg);
    return timeout == -1 && PyErr_Occurred() ? NULL : enter(l, timeout, false, -1);
}

/* run(timeout_ns, most) -> what next() gives, but for requests without capabilities: those are served by their
 * owner's serve(), and only (owner, session, outcome) is returned, of an answer that is not plain or an exception.
 * None: nothing within the time, `most` were served, or there is haste. */
static PyObject *loop_run(Loop *l, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "run takes a timeout and how many to serve");
        return NULL;
    }
    long long timeout = PyLong_AsLongLong(args[0]);
    long most = PyLong_AsLong(args[1]);
    return PyErr_Occurred() ? NULL : enter(l, timeout, true, most);
}

/* serve(session, label, words, data, caps) -> None, or what run() returns of it: the owner serves this request. */
static PyObject *loop_serve(Loop *l, PyObject *const *args, Py_ssize_t count)
{
    if (count != 5 || Py_TYPE(args[0]) != source_type || !((Source *)args[0])->low) {
        PyErr_SetString(PyExc_TypeError, "serve takes a session, label, words, data and capabilities");
        return NULL;
    }
    struct incoming request = {Py_NewRef(args[1]), Py_NewRef(args[2]), Py_NewRef(args[3]), Py_NewRef(args[4])};
    PyObject *event = serve(l, (Source *)args[0], &request);
    if (!event && !PyErr_Occurred())
        Py_RETURN_NONE;
    return event;
}

/* settle() -> bool: leave every flag raised; True when something is there all the same. */
static PyObject *loop_settle(Loop *l, PyObject *unused)
{
    (void)unused;
    if (l->generation != leaf_generation() || l->epoll < 0)
        Py_RETURN_FALSE;
    bool there = raise_flags(l) || l->event_next < l->event_count || l->ahead;
    if (there)
        lower_flags(l);
    else
        while (l->hot_count)
            l->hot[--l->hot_count]->hot = -1;
    return PyBool_FromLong(there);
}

/* idle() -> bool: nothing waits, and nobody runs the loop or wants it back; whoever looks often asks this first. */
static PyObject *loop_idle(Loop *l, PyObject *unused)
{
    (void)unused;
    if (l->inside || l->haste == AT_ONCE || l->hot_count || l->ahead || l->event_next < l->event_count || l->epoll < 0 ||
        l->generation != leaf_generation())
        Py_RETURN_FALSE;
    fetch(l, 0);
    return PyBool_FromLong(!l->event_count);
}

/* ---- sources ---- */

static PyObject *loop_watch(Loop *l, PyObject *args)
{
    int fd;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "iO:watch", &fd, &owner) || stale(l))
        return NULL;
    return (PyObject *)source_new(l, fd, owner, NULL, false);
}

/* watch_pipe(fd, owner) -> Source: a notification pipe, which is taken if it succeeds, and emptied here. run() answers
 * plain triggers with owner.triggered(), if there is one, and says to owner.failed() what that raised; in all other
 * cases the owner is to look, and held() says why. */
static PyObject *loop_watch_pipe(Loop *l, PyObject *args)
{
    int fd;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "iO:watch_pipe", &fd, &owner) || stale(l))
        return NULL;
    leaf_guard(fd);
    return (PyObject *)source_new(l, fd, owner, NULL, true);
}

/* accept(socket, memfd, owner) -> session source; takes the socket if it succeeds, never the memfd. */
static PyObject *loop_accept(Loop *l, PyObject *args)
{
    int sock, memfd;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "iiO:accept", &sock, &memfd, &owner) || stale(l))
        return NULL;
    struct page *page = page_map(memfd);
    if (!page)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (atomic_load(&page->version) != PAGE_VERSION) {
        munmap(page, PAGE_BYTES);
        PyErr_SetString(PyExc_ValueError, "the session page is of another version");
        return NULL;
    }
    L4RE_POINT("accept: mapped, not yet watched");
    leaf_guard(sock);
    Source *s = source_new(l, sock, owner, page, false);
    if (!s)
        munmap(page, PAGE_BYTES);
    return (PyObject *)s;
}

static void loop_release(Loop *l)
{
    while (l->sources)
        source_drop(l->sources);
    if (l->epoll >= 0 && l->generation == leaf_generation())
        leaf_close_guarded(l->epoll);
    l->epoll = -1;
}

static PyObject *loop_close(Loop *l, PyObject *unused)
{
    (void)unused;
    if (l->inside && l->generation == leaf_generation()) {
        PyErr_SetString(PyExc_RuntimeError, "the loop runs; stop it first");
        return NULL;
    }
    loop_release(l);
    Py_RETURN_NONE;
}

static PyObject *loop_fileno(Loop *l, PyObject *unused)
{
    (void)unused;
    if (stale(l))
        return NULL;
    return PyLong_FromLong(l->epoll);
}

static PyObject *loop_stats(Loop *l, PyObject *unused)
{
    (void)unused;
    return Py_BuildValue("{sKsKsKsKsKsKsisL}", "requests", l->requests, "sleeps", l->sleeps, "polls", l->polls, "spins_paid",
                         l->spin.paid, "spins_failed", l->spin.failed, "rings", l->rings, "hot", l->hot_count, "spin_ns",
                         (long long)(l->spin.rest ? 0 : l->spin.most));
}

/* Send the answer to the request that was taken, and release it. 1: sent, 0: the client is past receiving it,
 * or -errno: our own trouble, another answer may follow. */
static int reply(Source *s, struct outgoing *message)
{
    int result = 0;
    s->taken = false;
    L4RE_POINT("reply: nothing is sent");
    if (message->count) {
        struct packet packet = {.kind = 'C', .sequence = s->sequence};
        result = io_send(s->fd, &packet, offsetof(struct packet, text), message->fds, message->count);
    }
    if (result == 0) {
        L4RE_POINT("reply: descriptors are ahead");
        page_write(s->page, message->label, message->words, message->word_bytes, message->items, message->data,
                   message->size, (unsigned)message->count, 0);
        L4RE_POINT("reply: written, not yet published");
        atomic_store_explicit(&s->page->state, word_of(s->sequence, DONE), memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&s->page->client_asleep, memory_order_relaxed)) {
            L4RE_POINT("reply: before the ring");
            s->loop->rings++;
            io_send(s->fd, "w", 1, NULL, 0);
        }
        result = 1;
        if (s->peer_cpu == this_cpu() && !s->loop->served_beside)
            s->loop->served_beside = 1;
    } else if (result == -EAGAIN) {                     /* a client that lets its queue fill gets nothing */
        s->broken = true;
        shutdown(s->fd, SHUT_RDWR);
        result = 0;
    } else if (result == -EPIPE || result == -ECONNRESET)
        result = 0;
    else
        s->taken = true;
    outgoing_release(message);
    return result;
}

static bool awaits_reply(Source *s) { return s->loop && s->page && s->loop->generation == leaf_generation() && s->taken; }

/* reply(label, words, data, items, fds) -> bool: False when the client is past receiving it. */
static PyObject *source_reply(Source *s, PyObject *const *args, Py_ssize_t count)
{
    struct outgoing message;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "reply takes label, words, data, items and fds");
        return NULL;
    }
    if (!awaits_reply(s))
        Py_RETURN_FALSE;
    if (!outgoing_parse(&message, args)) {
        outgoing_release(&message);
        return NULL;
    }
    if (!awaits_reply(s)) {                             /* the parsing may have run foreign code */
        outgoing_release(&message);
        Py_RETURN_FALSE;
    }
    int result = reply(s, &message);
    if (result >= 0)
        return PyBool_FromLong(result);
    errno = -result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *source_close(Source *s, PyObject *unused)
{
    (void)unused;
    source_drop(s);
    Py_RETURN_NONE;
}

/* held() -> (triggered, look at the socket beside it, nobody holds the other side): what was taken from a pipe. */
static PyObject *source_held(Source *s, PyObject *unused)
{
    (void)unused;
    struct drained held = s->held;
    s->held = (struct drained){0};
    return PyTuple_Pack(3, held.cpu ? Py_True : Py_False, held.control ? Py_True : Py_False, held.end ? Py_True : Py_False);
}

/* mirrors(session) -> bool: this is the server half of that session. */
static PyObject *source_mirrors(Source *s, PyObject *session)
{
    static _Atomic uint64_t nonce = 1;
    struct page *page = session_page(session);
    if (!page)
        return NULL;
    uint64_t probe = (uint64_t)(uintptr_t)s ^ atomic_fetch_add(&nonce, 1) << 48;
    atomic_store(&page->probe, probe);
    return PyBool_FromLong(s->loop && s->page && s->loop->generation == leaf_generation() &&
                           atomic_load(&s->page->probe) == probe);
}

static PyObject *source_owner(Source *s, void *closure)
{
    (void)closure;
    return Py_NewRef(s->owner ? s->owner : Py_None);
}

static PyObject *source_broken(Source *s, void *closure)
{
    (void)closure;
    return PyBool_FromLong(s->broken);
}

static PyObject *source_requests(Source *s, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(s->requests);
}

static int source_traverse(Source *s, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)s));
    Py_VISIT(s->owner);
    Py_VISIT(s->serve);
    Py_VISIT(s->low);
    return 0;
}

static int source_clear(Source *s)
{
    Py_CLEAR(s->owner);
    Py_CLEAR(s->serve);
    Py_CLEAR(s->low);
    return 0;
}

static void source_dealloc(Source *s)
{
    PyTypeObject *type = Py_TYPE((PyObject *)s);
    PyObject_GC_UnTrack(s);
    source_clear(s);
    PyObject_GC_Del(s);
    Py_DECREF(type);
}

static int loop_traverse(Loop *l, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)l));
    for (Source *s = l->sources; s; s = s->next)
        Py_VISIT(s);
    return 0;
}

static int loop_clear(Loop *l)
{
    loop_release(l);
    return 0;
}

static void loop_dealloc(Loop *l)
{
    PyTypeObject *type = Py_TYPE((PyObject *)l);
    PyObject_GC_UnTrack(l);
    loop_release(l);
    PyObject_GC_Del(l);
    Py_DECREF(type);
}

/* open_loop(spin_us) -> Loop; a negative number asks for L4RE_SPIN_US or the default. */
static PyObject *open_loop(PyObject *module, PyObject *arg)
{
    (void)module;
    double setting = PyFloat_AsDouble(arg);
    if (setting == -1 && PyErr_Occurred())
        return NULL;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Loop *l = PyObject_GC_New(Loop, loop_type);
    if (!l) {
        close(epoll);
        return NULL;
    }
    memset((char *)l + sizeof(PyObject), 0, sizeof *l - sizeof(PyObject));
    l->epoll = epoll;
    leaf_guard(epoll);
    l->generation = leaf_generation();
    int64_t most = setting < 0 ? spin_setting() : (int64_t)(setting * 1000);
    l->spin = (struct spin){.most = most};
    PyObject_GC_Track(l);
    return (PyObject *)l;
}

static PyMethodDef source_methods[] = {
    {"reply", (PyCFunction)(void (*)(void))source_reply, METH_FASTCALL, "reply(label, words, data, items, fds) -> bool"},
    {"mirrors", (PyCFunction)source_mirrors, METH_O, "mirrors(session) -> bool: both halves are in this process"},
    {"held", (PyCFunction)source_held, METH_NOARGS, "held() -> (triggered, look at the socket, end): of a pipe"},
    {"close", (PyCFunction)source_close, METH_NOARGS, "close(): leave the loop; a session ends for its client"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef source_getset[] = {
    {"owner", (getter)source_owner, NULL, "what the source was registered for", NULL},
    {"broken", (getter)source_broken, NULL, "the client broke the protocol", NULL},
    {"requests", (getter)source_requests, NULL, "requests served", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef source_members[] = {
    {"taken", T_BOOL, offsetof(Source, taken), 0, "a request waits for its reply; who clears it sets it again to reply"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot source_slots[] = {
    {Py_tp_dealloc, source_dealloc}, {Py_tp_traverse, source_traverse}, {Py_tp_clear, source_clear},
    {Py_tp_methods, source_methods}, {Py_tp_members, source_members}, {Py_tp_getset, source_getset}, {0, NULL},
};

static PyType_Spec source_spec = {
    .name = "l4re._native.leaf.Source",
    .basicsize = sizeof(Source),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = source_slots,
};

static PyMethodDef loop_methods[] = {
    {"next", (PyCFunction)loop_next, METH_O, "next(timeout_ns) -> what happened, or None"},
    {"run", (PyCFunction)(void (*)(void))loop_run, METH_FASTCALL, "run(timeout_ns, most) -> what is left to do, or None"},
    {"serve", (PyCFunction)(void (*)(void))loop_serve, METH_FASTCALL, "serve(session, label, words, data, caps)"},
    {"idle", (PyCFunction)loop_idle, METH_NOARGS, "idle() -> bool: nothing is there; False: it may be, call run()"},
    {"settle", (PyCFunction)loop_settle, METH_NOARGS, "settle() -> bool: raise every flag; True: something is there"},
    {"watch", (PyCFunction)loop_watch, METH_VARARGS, "watch(fd, owner) -> Source"},
    {"watch_pipe", (PyCFunction)loop_watch_pipe, METH_VARARGS, "watch_pipe(fd, owner) -> Source; takes the pipe"},
    {"accept", (PyCFunction)loop_accept, METH_VARARGS, "accept(socket, memfd, owner) -> Source; takes the socket"},
    {"close", (PyCFunction)loop_close, METH_NOARGS, "close(): every session ends"},
    {"fileno", (PyCFunction)loop_fileno, METH_NOARGS, "fileno() -> the epoll descriptor"},
    {"stats", (PyCFunction)loop_stats, METH_NOARGS, "stats() -> dict of counts"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"haste", T_INT, offsetof(Loop, haste), 0, "0; 1: run() is not to wait; 2: run() is to return"},
    {NULL, 0, 0, 0, NULL},
};

/* Whose request is being served, or None. */
static PyObject *loop_serving(Loop *l, void *closure)
{
    (void)closure;
    return Py_NewRef(l->serving ? l->serving->owner : Py_None);
}

/* (session, label, words, data) of the request being served, or None. */
static PyObject *loop_request(Loop *l, void *closure)
{
    (void)closure;
    if (!l->serving)
        Py_RETURN_NONE;
    return PyTuple_Pack(4, (PyObject *)l->serving, l->request->label, l->request->words, l->request->data);
}

static PyObject *loop_served(Loop *l, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(l->requests + l->notified);
}

static PyObject *loop_closed(Loop *l, void *closure)
{
    (void)closure;
    return PyBool_FromLong(l->epoll < 0 || l->generation != leaf_generation());
}

static PyGetSetDef loop_getset[] = {
    {"served", (getter)loop_served, NULL, "requests and plain triggers so far", NULL},
    {"closed", (getter)loop_closed, NULL, "whether it was closed, or is a forked child's copy", NULL},
    {"serving", (getter)loop_serving, NULL, "the owner of the request that is being served, or None", NULL},
    {"request", (getter)loop_request, NULL, "(session, label, words, data) of that request, or None", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_dealloc, loop_dealloc}, {Py_tp_traverse, loop_traverse}, {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods}, {Py_tp_members, loop_members}, {Py_tp_getset, loop_getset}, {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "l4re._native.leaf.Loop",
    .basicsize = sizeof(Loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = loop_slots,
};

static PyMethodDef functions[] = {
    {"open_loop", open_loop, METH_O, "open_loop(spin_us) -> Loop; negative: L4RE_SPIN_US or the default"},
    {NULL, NULL, 0, NULL},
};

int leaf_loop_init(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "AT_LEISURE", AT_LEISURE) < 0 ||
        PyModule_AddIntConstant(module, "LOOK_ONLY", LOOK_ONLY) < 0 || PyModule_AddIntConstant(module, "AT_ONCE", AT_ONCE) < 0)
        return -1;
    loop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    source_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &source_spec, NULL);
    if (!loop_type || !source_type || PyModule_AddType(module, loop_type) < 0 || PyModule_AddType(module, source_type) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
