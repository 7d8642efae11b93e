/* Words of 64 bits in memory that is shared: what Python cannot say is in which order others see them. */
#include "leaf.h"

#include <stdatomic.h>

/* The aligned word at `offset` of a buffer; NULL with an exception. */
static _Atomic int64_t *word_at(const Py_buffer *buffer, Py_ssize_t offset)
{
    uintptr_t at = (uintptr_t)buffer->buf + (uintptr_t)offset;
    if (offset < 0 || buffer->len < 8 || offset > buffer->len - 8 || at % 8) {
        PyErr_Format(PyExc_ValueError, "no aligned word at offset %zd of %zd bytes", offset, buffer->len);
        return NULL;
    }
    return (_Atomic int64_t *)at;
}

/* load_word(buffer, offset) -> int
 * Acquire order: what its writer wrote before it stored this word is seen by whoever reads on. */
static PyObject *load_word(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer buffer;
    Py_ssize_t offset;
    if (!PyArg_ParseTuple(args, "y*n:load_word", &buffer, &offset))
        return NULL;
    const _Atomic int64_t *word = word_at(&buffer, offset);
    long long value = word ? atomic_load_explicit(word, memory_order_acquire) : 0;
    PyBuffer_Release(&buffer);
    return word ? PyLong_FromLongLong(value) : NULL;
}

/* store_word(buffer, offset, value)
 * Release order: nothing that was read or written before slips behind it. */
static PyObject *store_word(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer buffer;
    Py_ssize_t offset;
    long long value;
    if (!PyArg_ParseTuple(args, "w*nL:store_word", &buffer, &offset, &value))
        return NULL;
    _Atomic int64_t *word = word_at(&buffer, offset);
    if (word)
        atomic_store_explicit(word, value, memory_order_release);
    PyBuffer_Release(&buffer);
    if (!word)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"load_word", load_word, METH_VARARGS, "load_word(buffer, offset) -> the word there, with acquire order"},
    {"store_word", store_word, METH_VARARGS, "store_word(buffer, offset, value): with release order"},
    {NULL, NULL, 0, NULL},
};

int leaf_word_init(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
