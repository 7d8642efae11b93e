#include "leaf.h"
int leaf_region_init(PyObject *module) { (void)module; return 0; }
