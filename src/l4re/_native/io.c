/* Datagrams that carry descriptors, notification pipes, and what a descriptor is.
 *
 * Nothing here blocks and nothing raises SIGPIPE: sends use MSG_DONTWAIT and
 * MSG_NOSIGNAL, pipes RWF_NOWAIT and RWF_NOSIGNAL (Linux 6.18) or a masked write. */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x00000100
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04                  /* Linux 6.5 */
#endif
#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif

int io_send(int fd, const void *data, size_t size, const int *fds, int count)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int) * IO_MAX_FDS)];
    } control;
    struct iovec iov = {(void *)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(head), fds, sizeof(int) * (size_t)count);
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

void io_close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        leaf_close_guarded(fds[i]);
}

ssize_t io_recv_flags(int fd, void *data, size_t size, int *fds, int *count, int flags)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int) * IO_MAX_FDS)];
    } control;
    struct iovec iov = {data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    bool sound = true;
    *count = 0;
    do                                  /* ECONNRESET is said once, before what the other side left in the queue */
        got = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    while (got < 0 && (errno == ECONNRESET || (errno == EINTR && (flags & MSG_DONTWAIT))));
    if (got < 0)
        return -errno;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || (head->cmsg_type != SCM_RIGHTS && head->cmsg_type != SCM_PIDFD))
            continue;
        sound &= head->cmsg_type == SCM_RIGHTS;         /* whoever made our end may have asked for pidfds */
        int n = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < n; i++) {
            int received;
            memcpy(&received, CMSG_DATA(head) + sizeof(int) * (size_t)i, sizeof received);
            if (*count < IO_MAX_FDS) {
                leaf_guard(received);
                fds[(*count)++] = received;
            } else
                close(received);
        }
    }
    if (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC) || !sound || (got == 0 && *count)) {
        io_close_all(fds, *count);
        *count = 0;
        return -EMSGSIZE;
    }
    return got;
}

ssize_t io_recv(int fd, void *data, size_t size, int *fds, int *count)
{
    return io_recv_flags(fd, data, size, fds, count, MSG_DONTWAIT);
}

int io_trigger(int fd, char byte)
{
    static _Atomic int plain;           /* set once the kernel has refused the flags */
    struct iovec iov = {&byte, 1};
    L4RE_POINT("trigger: not yet written");
    if (!plain) {
        if (pwritev2(fd, &iov, 1, -1, RWF_NOWAIT | RWF_NOSIGNAL) == 1)
            return 0;
        if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
            return -errno;
        plain = 1;
    }
    /* An older kernel: our end is O_NONBLOCK; keep SIGPIPE from being delivered. */
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    int error = write(fd, &byte, 1) == 1 ? 0 : errno;
    if (error == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe_only, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

/* ---- Python ---- */

int io_fds_from(PyObject *sequence, int *fds)
{
    Py_ssize_t count = PySequence_Size(sequence);
    if (count < 0)
        return -1;
    if (count > IO_MAX_FDS) {
        PyErr_Format(PyExc_ValueError, "at most %d descriptors in one message, not %zd", IO_MAX_FDS, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        long fd = item ? PyLong_AsLong(item) : -1;
        Py_XDECREF(item);
        if (fd == -1 && PyErr_Occurred())
            return -1;
        fds[i] = (int)fd;
    }
    return (int)count;
}

PyObject *io_fds_tuple(const int *fds, int count)
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; tuple && i < count; i++) {
        PyObject *number = PyLong_FromLong(fds[i]);
        if (!number || PyTuple_SetItem(tuple, i, number) < 0)
            Py_CLEAR(tuple);
    }
    if (!tuple)
        io_close_all(fds, count);
    return tuple;
}

static PyObject *raise_errno(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *py_channel(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    leaf_guard(pair[1]);
    L4RE_POINT("channel: made, nobody has an end");
    return Py_BuildValue("ii", pair[0], pair[1]);
}

static PyObject *py_pipe(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    int pair[2];
    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    leaf_guard(pair[0]);
    L4RE_POINT("pipe: made, nobody has an end");
    return Py_BuildValue("ii", pair[0], pair[1]);
}

static PyObject *py_send(PyObject *self, PyObject *args)
{
    (void)self;
    int fd, fds[IO_MAX_FDS], count = 0;
    Py_buffer data;
    PyObject *sequence = NULL;
    if (!PyArg_ParseTuple(args, "iy*|O:send", &fd, &data, &sequence))
        return NULL;
    if (sequence && (count = io_fds_from(sequence, fds)) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    L4RE_POINT("send: not yet sent");
    int result = io_send(fd, data.buf, (size_t)data.len, fds, count);
    L4RE_POINT("send: sent, our copies still open");
    PyBuffer_Release(&data);
    if (result == -EAGAIN)
        Py_RETURN_FALSE;
    if (result < 0)
        return raise_errno(-result);
    Py_RETURN_TRUE;
}

static PyObject *py_recv(PyObject *self, PyObject *arg)
{
    (void)self;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    char data[IO_MAX_DATAGRAM];
    int fds[IO_MAX_FDS], count;
    ssize_t got = io_recv((int)fd, data, sizeof data, fds, &count);
    if (got > 0)
        L4RE_POINT("recv: here, not yet obeyed");
    if (got == -EAGAIN)
        Py_RETURN_NONE;
    if (got < 0)
        return raise_errno((int)-got);
    PyObject *tuple = io_fds_tuple(fds, count);
    return tuple ? Py_BuildValue("y#N", data, (Py_ssize_t)got, tuple) : NULL;
}

static PyObject *py_trigger(PyObject *self, PyObject *args)
{
    (void)self;
    int fd, byte = 1;
    if (!PyArg_ParseTuple(args, "i|i:trigger", &fd, &byte))
        return NULL;
    int result = io_trigger(fd, (char)byte);
    if (result == -EAGAIN)
        Py_RETURN_FALSE;
    if (result < 0)
        return raise_errno(-result);
    Py_RETURN_TRUE;
}

int io_drain(int fd, struct drained *found)
{
    char bytes[4096];
    struct iovec iov = {bytes, sizeof bytes};
    ssize_t got = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        int there = 0;
        struct pollfd end = {.fd = fd, .events = POLLIN};
        if (ioctl(fd, FIONREAD, &there) == 0 && !there && poll(&end, 1, 0) == 1 && !(end.revents & POLLHUP))
            return -EAGAIN;
        got = read(fd, bytes, sizeof bytes);
    }
    if (got < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    *found = (struct drained){.end = got == 0, .control = got == 0 || got == sizeof bytes};
    for (ssize_t i = 0; i < got; i++) {
        if (bytes[i] == IO_DERIVE_BYTE)
            found->control = true;
        else
            found->cpu = (unsigned char)bytes[i];
    }
    return 0;
}

/* take_token(fd) -> bool: read one byte without waiting, whatever flags the open file has; None: its end. */
static PyObject *py_take_token(PyObject *self, PyObject *arg)
{
    (void)self;
    char byte;
    struct iovec iov = {&byte, 1};
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    ssize_t got = preadv2((int)fd, &iov, 1, -1, RWF_NOWAIT);
    if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {      /* an older kernel: ours is O_NONBLOCK when made */
        struct pollfd look = {.fd = (int)fd, .events = POLLIN};
        if (poll(&look, 1, 0) == 0)
            Py_RETURN_FALSE;
        got = read((int)fd, &byte, 1);
    }
    if (got == 0)
        Py_RETURN_NONE;
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        return raise_errno(errno);
    return PyBool_FromLong(got == 1);
}

static PyObject *py_drain(PyObject *self, PyObject *arg)
{
    (void)self;
    struct drained held;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    int result = io_drain((int)fd, &held);
    return result < 0 && result != -EAGAIN ? raise_errno(-result) : Py_NewRef(Py_None);
}

/* wait(fds, timeout_ns) -> index of one that is readable, at its end or broken; -1 on timeout.
 * POLLOUT is asked of a descriptor given as ~fd. */
static PyObject *py_wait(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *sequence;
    long long timeout;
    int fds[IO_MAX_FDS];
    if (!PyArg_ParseTuple(args, "OL:wait", &sequence, &timeout))
        return NULL;
    int count = io_fds_from(sequence, fds);
    if (count < 0)
        return NULL;
    struct pollfd polls[IO_MAX_FDS];
    for (int i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = fds[i] < 0 ? ~fds[i] : fds[i], .events = fds[i] < 0 ? POLLOUT : POLLIN};
    int64_t deadline = timeout < 0 ? -1 : io_now() + timeout;
    for (;;) {
        int64_t left = timeout < 0 ? -1 : deadline - io_now();
        struct timespec span = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
        int ready, error;
        if (PyErr_CheckSignals() < 0)
            return NULL;
        Py_BEGIN_ALLOW_THREADS
        ready = ppoll(polls, (nfds_t)count, timeout < 0 ? NULL : &span, NULL);
        error = errno;
        Py_END_ALLOW_THREADS
        if (ready > 0)
            break;
        if (ready < 0 && error != EINTR)
            return raise_errno(error);
        if (ready == 0)
            return PyLong_FromLong(-1);
    }
    for (int i = 0; i < count; i++)
        if (polls[i].revents)
            return PyLong_FromLong(i);
    return PyLong_FromLong(-1);
}

static PyObject *py_memfd_info(PyObject *self, PyObject *arg)
{
    (void)self;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct stat about;
    struct statfs system;
    if (fstat((int)fd, &about) < 0 || fstatfs((int)fd, &system) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    int seals = S_ISREG(about.st_mode) && system.f_type == TMPFS_MAGIC ? fcntl((int)fd, F_GET_SEALS) : -1;
    int flags = fcntl((int)fd, F_GETFL);
    if (seals < 0 || flags < 0 || (flags & O_PATH))
        return raise_errno(EINVAL);
    return Py_BuildValue("Lii", (long long)about.st_size, seals, flags & O_ACCMODE);
}

/* what(fd) -> "seqpacket", "pipe-read", "pipe-write" or "other", as the kernel says. */
static PyObject *py_what(PyObject *self, PyObject *arg)
{
    (void)self;
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct stat about;
    if (fstat((int)fd, &about) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    const char *kind = "other";
    int value = 0;
    socklen_t size = sizeof value;
    if (S_ISSOCK(about.st_mode)) {                      /* getsockopt refuses an O_PATH descriptor */
        if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 && value == SOCK_SEQPACKET &&
            getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &value, &size) == 0 && value == AF_UNIX &&
            getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && !value)
            kind = "seqpacket";
    } else if (S_ISFIFO(about.st_mode)) {
        struct statfs system;
        int flags = fcntl((int)fd, F_GETFL);
        if (!(flags & O_PATH) && fstatfs((int)fd, &system) == 0 && system.f_type == PIPEFS_MAGIC)
            kind = (flags & O_ACCMODE) == O_RDONLY ? "pipe-read" : (flags & O_ACCMODE) == O_WRONLY ? "pipe-write" : "other";
    }
    return PyUnicode_FromString(kind);
}

static PyMethodDef methods[] = {
    {"channel", py_channel, METH_NOARGS, "channel() -> (client, server): a SOCK_SEQPACKET pair; the server end is guarded."},
    {"pipe", py_pipe, METH_NOARGS, "pipe() -> (read, write): both O_NONBLOCK; the read end is guarded."},
    {"send", py_send, METH_VARARGS, "send(fd, data, fds=()) -> bool: False when the queue is full."},
    {"recv", py_recv, METH_O, "recv(fd) -> (data, fds) or None; (b'', ()) at the end. Descriptors arrive guarded."},
    {"trigger", py_trigger, METH_VARARGS, "trigger(fd, byte=1) -> bool: False when the pipe is full."},
    {"drain", py_drain, METH_O, "drain(fd): empty a notification pipe."},
    {"take_token", py_take_token, METH_O, "take_token(fd) -> bool: read one byte, if there is one; None at the end."},
    {"wait", py_wait, METH_VARARGS, "wait(fds, timeout_ns) -> int: index of a ready one, -1 on timeout."},
    {"memfd_info", py_memfd_info, METH_O, "memfd_info(fd) -> (size, seals, access mode); OSError if it is no memfd on tmpfs."},
    {"what", py_what, METH_O, "what(fd) -> str: seqpacket, pipe-read, pipe-write or other."},
    {NULL, NULL, 0, NULL},
};

int leaf_io_init(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "MAX_FDS", IO_MAX_FDS) < 0 ||
        PyModule_AddIntConstant(module, "DERIVE_BYTE", IO_DERIVE_BYTE) < 0)
        return -1;
    return PyModule_AddFunctions(module, methods);
}
