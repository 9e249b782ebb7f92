#include <pybind11/pybind11.h>
void bind_neighbors(pybind11::module_&) {}
