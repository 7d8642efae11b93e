#include "leaf.h"
int leaf_loop_init(PyObject *module) { (void)module; return 0; }
