#include "leaf.h"
int leaf_process_init(PyObject *module) { (void)module; return 0; }
