/* The native leaf: what Python cannot say, and what bench/ shows to be hot.
 *
 * Each .c file holds one noun and adds its names to the module through an
 * init function named here. Nothing in the leaf knows a capability or a right:
 * Python checks meaning, C checks what could crash. */
#ifndef L4RE_LEAF_H
#define L4RE_LEAF_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A moment at which the other side may do anything, and this one may die. Nothing in any build but the one of
 * `make debug`, which waits here, sometimes and at random, or stops for good (debug.c). */
#ifdef L4RE_DEBUG
void debug_point(const char *name);
#define L4RE_POINT(name) debug_point(name)
#else
#define L4RE_POINT(name) ((void)0)
#endif

/* fork.c: descriptors a forked child must not keep */
int leaf_fork_init(PyObject *module);
void leaf_guard(int fd);                 /* close this one in a forked child */
void leaf_unguard(int fd);
void leaf_close_guarded(int fd);         /* unguard, then close */
uint32_t leaf_generation(void);          /* forks between this process and the first */

/* fd.c: descriptors with one owner */
int leaf_fd_init(PyObject *module);
PyObject *leaf_owner(PyTypeObject *type, int fd, const char *what);     /* takes it, unguarded, whatever happens */
int leaf_owner_fd(PyObject *owner);      /* lent; -1 without an exception: it owns none, or is no owner */
bool leaf_owns(PyTypeObject *type);      /* derives from Owner */

/* io.c: datagrams with descriptors, pipes, what a descriptor is */
int leaf_io_init(PyObject *module);

/* region.c: mappings that export a buffer */
int leaf_region_init(PyObject *module);
/* Zeroed memory of exactly this size, sealed against shrinking and growing; -1 with errno. */
int leaf_memfd(const char *name, off_t size);

/* session.c, loop.c: the two halves of a call; caller.c, handler.c: what Python's ends of it do most often */
int leaf_session_init(PyObject *module);
int leaf_caller_init(PyObject *module);
int leaf_handler_init(PyObject *module);
int leaf_loop_init(PyObject *module);

/* timer.c: a descriptor that is readable once a time has come */
int leaf_timer_init(PyObject *module);
int leaf_watch_init(PyObject *module);

/* word.c: words in shared memory, in an order that others see */
int leaf_word_init(PyObject *module);

/* memory.c: capabilities to memory in messages */
int leaf_memory_init(PyObject *module);

/* process.c: starting a program with exactly the descriptors named */
int leaf_process_init(PyObject *module);

#endif
