#include "leaf.h"
int leaf_session_init(PyObject *module) { (void)module; return 0; }
