/* Starting a program with exactly the descriptors named.
 *
 * The child borrows our memory until it executes (CLONE_VM | CLONE_VFORK), as
 * posix_spawn does: no page table is copied, and what fails in the child is
 * written straight into the plan. So child() runs on a stack of its own, makes
 * system calls, writes the plan, and touches nothing else; every signal is
 * blocked until it has put the handlers back to their defaults. */
#include "leaf.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#endif

enum { STACK = 64 * 1024, FIRST = 3, PID_DIGITS = 10, ALL_SEALS = 1 | 2 | 4 | 8 };
enum stage { STARTED, PARENT_GONE, GROUP, DESCRIPTORS, DIRECTORY, PAGE, EXECUTE, CPUS, CGROUP };

struct plan {
    const char *path, *cwd;
    char **argv, **envp;
    const int *fds;
    int *moved;                  /* count descriptors, out of the way of their places */
    int count, stdio[3];         /* -1: inherit ours */
    const char *cpus;            /* a mask of them; NULL: ours */
    Py_ssize_t cpus_size;
    int nice;                    /* how urgent on these */
    int cgroup;                  /* the cgroup.procs that it writes itself into; -1: our cgroup */
    long long pid_at;            /* where in fds[0] the pid goes; -1: nowhere */
    pid_t parent;
    enum stage stage;            /* what failed */
    int error;
};

static void give_up(struct plan *plan, enum stage stage)
{
    plan->error = errno;
    plan->stage = stage;
    _exit(127);
}

static void close_from(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
#endif
    struct rlimit limit = {0, 0};
    getrlimit(RLIMIT_NOFILE, &limit);
    for (rlim_t fd = first; fd < limit.rlim_cur && fd < (1 << 20); fd++)
        close((int)fd);
}

/* Put the descriptors in their places and close the rest: all are moved above
 * the places first, since a source may stand where another one goes. */
static bool place_descriptors(struct plan *plan)
{
    int above = FIRST + plan->count;
    for (int i = 0; i < 3; i++)
        if (plan->stdio[i] >= 0 && (plan->stdio[i] = fcntl(plan->stdio[i], F_DUPFD_CLOEXEC, above)) < 0)
            return false;
    for (int i = 0; i < plan->count; i++)
        if ((plan->moved[i] = fcntl(plan->fds[i], F_DUPFD_CLOEXEC, above)) < 0)
            return false;
    for (int i = 0; i < 3; i++)
        if (plan->stdio[i] >= 0 && dup2(plan->stdio[i], i) < 0)
            return false;
    for (int i = 0; i < plan->count; i++)
        if (dup2(plan->moved[i], FIRST + i) < 0)
            return false;
    close_from((unsigned)above);
    return true;
}

/* Name the addressee; after this nobody can change the page, not even we. */
static bool seal_page(long long pid_at)
{
    char digits[PID_DIGITS];
    long pid = syscall(SYS_getpid);
    for (int i = PID_DIGITS; i-- > 0; pid /= 10)
        digits[i] = (char)('0' + pid % 10);
    return pwrite(FIRST, digits, PID_DIGITS, (off_t)pid_at) == PID_DIGITS && fcntl(FIRST, F_ADD_SEALS, ALL_SEALS) == 0;
}

static int child(void *argument)
{
    struct plan *plan = argument;
    struct sigaction action;
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL) {
            memset(&action, 0, sizeof action);
            sigaction(number, &action, NULL);
        }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (syscall(SYS_getppid) != plan->parent)
        give_up(plan, PARENT_GONE);
    if (setpgid(0, 0) < 0)
        give_up(plan, GROUP);
    if (plan->cgroup >= 0 && write(plan->cgroup, "0", 1) != 1)
        give_up(plan, CGROUP);
    if (plan->cpus) {
        if (sched_setaffinity(0, (size_t)plan->cpus_size, (const cpu_set_t *)plan->cpus) < 0)
            give_up(plan, CPUS);
        setpriority(PRIO_PROCESS, 0, plan->nice);   /* or as we are: whoever asks for more knows what we may */
    }
    if (!place_descriptors(plan))
        give_up(plan, DESCRIPTORS);
    if (plan->cwd && chdir(plan->cwd) < 0)
        give_up(plan, DIRECTORY);
    if (plan->pid_at >= 0 && !seal_page(plan->pid_at))
        give_up(plan, PAGE);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(plan->path, plan->argv, plan->envp);
    give_up(plan, EXECUTE);
    return 127;
}

/* The pid, or -errno; runs without the GIL and with a stack for the child. */
static int start(struct plan *plan, char *stack, int *pidfd)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, plan, pidfd);
    int error = errno;
    if (pid > 0 && plan->stage != STARTED) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        close(*pidfd);
        pid = *pidfd = -1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid < 0 && plan->stage == STARTED ? -error : pid;
}

/* A NULL-terminated array of strings that the tuple keeps alive. */
static char **strings_of(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    char **strings = calloc((size_t)count + 1, sizeof *strings);
    for (Py_ssize_t i = 0; strings && i < count; i++)
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(tuple, i), &strings[i], NULL) < 0) {
            free(strings);
            return NULL;
        }
    return strings ? strings : (char **)PyErr_NoMemory();
}

static int *numbers_of(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    int *numbers = calloc(2 * (size_t)count + 1, sizeof *numbers);      /* the second half is for `moved` */
    for (Py_ssize_t i = 0; numbers && i < count; i++) {
        long number = PyLong_AsLong(PyTuple_GetItem(tuple, i));
        if (number == -1 && PyErr_Occurred()) {
            free(numbers);
            return NULL;
        }
        numbers[i] = (int)number;
    }
    return numbers ? numbers : (int *)PyErr_NoMemory();
}

/* spawn(path, argv, envp, fds, stdio, cwd, pid_at, cpus, nice, cgroup) -> (pid, pidfd, stage, errno)
 * `fds` become 3, 4, ...; `cpus` is a mask of whole words or None, then `nice` does not count. Stage 0: it runs. Otherwise `errno` says why that stage
 * failed, nothing is left of the child, and pid and pidfd are -1. */
static PyObject *py_spawn(PyObject *self, PyObject *args)
{
    (void)self;
    struct plan plan = {.parent = getpid()};
    PyObject *argv, *envp, *fds, *cwd;
    if (!PyArg_ParseTuple(args, "yO!O!O!(iii)OLz#ii:spawn", &plan.path, &PyTuple_Type, &argv, &PyTuple_Type, &envp,
                          &PyTuple_Type, &fds, &plan.stdio[0], &plan.stdio[1], &plan.stdio[2], &cwd, &plan.pid_at,
                          &plan.cpus, &plan.cpus_size, &plan.nice, &plan.cgroup))
        return NULL;
    if (cwd != Py_None && PyBytes_AsStringAndSize(cwd, (char **)&plan.cwd, NULL) < 0)
        return NULL;
    int *numbers = numbers_of(fds), pidfd = -1, pid = -ENOMEM;
    plan.argv = numbers ? strings_of(argv) : NULL;
    plan.envp = plan.argv ? strings_of(envp) : NULL;
    char *stack = plan.envp ? aligned_alloc(16, STACK) : NULL;
    if (stack) {
        plan.count = (int)PyTuple_Size(fds);
        plan.fds = numbers;
        plan.moved = numbers + plan.count;
        L4RE_POINT("spawn: not yet started");
        Py_BEGIN_ALLOW_THREADS
        pid = start(&plan, stack, &pidfd);
        Py_END_ALLOW_THREADS
        L4RE_POINT("spawn: it runs, nobody holds it");
    }
    free(stack);
    free(plan.envp);
    free(plan.argv);
    free(numbers);
    if (PyErr_Occurred())
        return NULL;
    if (plan.stage == STARTED && pid < 0) {
        errno = -pid;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("iiii", pid, pidfd, (int)plan.stage, plan.error);
}

static PyMethodDef methods[] = {
    {"spawn", py_spawn, METH_VARARGS,
     "spawn(path, argv, envp, fds, stdio, cwd, pid_at, cpus, nice, cgroup) -> (pid, pidfd, stage, errno): "
     "run a program with fds at 3, 4, ..."},
    {NULL, NULL, 0, NULL},
};

int leaf_process_init(PyObject *module) { return PyModule_AddFunctions(module, methods); }
