/* The module: nothing but a list of the nouns. */
#include "leaf.h"

static int exec_module(PyObject *module)
{
    return leaf_fork_init(module) || leaf_fd_init(module) || leaf_io_init(module) || leaf_region_init(module) ||
           leaf_session_init(module) || leaf_caller_init(module) || leaf_handler_init(module) ||
           leaf_loop_init(module) || leaf_memory_init(module) || leaf_timer_init(module) || leaf_watch_init(module) ||
           leaf_word_init(module) || leaf_process_init(module) ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "l4re._native.leaf",
    .m_doc = "Session pages, descriptor passing, mappings, processes: the C leaf of l4re.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_leaf(void)
{
    return PyModuleDef_Init(&definition);
}
