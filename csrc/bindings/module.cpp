// Python bindings: the only code with Python.h. The Python package checks symbols and shapes of users; here
// only sizes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/engine/error.hpp"
#include "core/engine/evaluator.hpp"

namespace py = pybind11;
using namespace nearsight;

void bind_descriptor(py::module_& m);
void bind_neighbors(py::module_& m);

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

Backend backend_of(const std::string& name) {
  if (name == "auto") return Backend::automatic;
  if (name == "native") return Backend::native;
  if (name == "torchscript") return Backend::torchscript;
  throw Error(ErrorKind::argument, "backend is '" + name + "', expected auto, native or torchscript");
}

bool is_double(const std::string& precision) {
  if (precision != "double" && precision != "mixed")
    throw Error(ErrorKind::argument, "precision is '" + precision + "', expected mixed or double");
  return precision == "double";
}

Doubles zeros(std::vector<py::ssize_t> shape) {
  Doubles a(shape);
  std::fill_n(a.mutable_data(), a.size(), 0.0);
  return a;
}

class PyEvaluator {
 public:
  PyEvaluator(const std::string& path, const std::string& backend, const std::string& precision, int threads,
              double skin)
      : evaluator_(Model::load(path, backend_of(backend)),
                   EvaluatorOptions{is_double(precision), threads, skin}) {}

  py::dict evaluate(const Doubles& positions, const Ints& species, const Doubles& cell,
                    const std::array<bool, 3>& pbc, bool centroid) {
    const auto n = species.size();
    if (positions.size() != 3 * n || cell.size() != 9)
      throw Error(ErrorKind::argument, "positions must be [n, 3], species [n] and cell [3, 3]");
    Cell c;
    std::copy_n(cell.data(), 9, c.vectors.begin());
    c.pbc = pbc;
    auto forces = zeros({n, 3}), energies = zeros({n}), virials = zeros({n, 6});
    Results r;
    r.forces = Span<double>(forces.mutable_data(), 3 * n);
    r.energies = Span<double>(energies.mutable_data(), n);
    r.virials = Span<double>(virials.mutable_data(), 6 * n);
    auto centroid_virials = zeros({centroid ? n : 0, 9});
    if (centroid) r.centroid_virials = Span<double>(centroid_virials.mutable_data(), 9 * n);
    {
      const Span<const double> x(positions.data(), 3 * n);
      const Span<const int> s(species.data(), n);
      py::gil_scoped_release release;
      evaluator_.evaluate(x, s, c, r);
    }
    auto virial = zeros({3, 3});
    const int row[6] = {0, 1, 2, 0, 0, 1}, column[6] = {0, 1, 2, 1, 2, 2};
    for (int a = 0; a < 6; ++a)
      virial.mutable_at(row[a], column[a]) = virial.mutable_at(column[a], row[a]) = r.virial[a];
    py::dict result;
    result["energy"] = r.energy;
    result["energies"] = energies;
    result["forces"] = forces;
    result["virial"] = virial;
    result["virials"] = virials;
    if (centroid) result["centroid_virials"] = centroid_virials;
    return result;
  }

  const Model& model() const { return evaluator_.model(); }
  long num_list_builds() const { return evaluator_.verlet_list().num_builds(); }

 private:
  Evaluator evaluator_;
};

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of nearsight. Units: Å, eV; virial = -dE/dstrain.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      // Files have their own class, which the command line prints as one sentence.
      const auto errors = py::module_::import("nearsight.errors");
      const char* name = e.kind() == ErrorKind::file ? "ModelFileError" : "EvaluationError";
      py::set_error(errors.attr(name), e.what());
    }
  });
  m.def("instruction_set", &instruction_set,
        "Instruction set of the native kernels: avx512, avx2 or baseline.");
  bind_descriptor(m);
  bind_neighbors(m);

  py::class_<PyEvaluator>(m, "Evaluator", "forward - couple - reverse of a model file, in one process")
      .def(py::init<const std::string&, const std::string&, const std::string&, int, double>(),
           py::arg("path"), py::arg("backend") = "auto", py::arg("precision") = "double",
           py::arg("threads") = 1, py::arg("skin") = 0.0)
      .def("evaluate", &PyEvaluator::evaluate, py::arg("positions"), py::arg("species"), py::arg("cell"),
           py::arg("pbc"), py::arg("centroid") = false,
           "dict of energy (eV), energies [n], forces [n, 3], virial [3, 3], virials [n, 6] in xx yy zz xy "
           "xz yz, and if asked for centroid_virials [n, 9] in xx yy zz xy xz yz yx zx zy")
      .def_property_readonly("species", [](const PyEvaluator& e) { return e.model().file().species; })
      .def_property_readonly("cutoff", [](const PyEvaluator& e) { return e.model().file().cutoff; })
      .def_property_readonly("num_interactions",
                             [](const PyEvaluator& e) { return e.model().file().num_interactions; })
      .def_property_readonly("backend", [](const PyEvaluator& e) { return e.model().backend(); })
      .def_property_readonly("metadata", [](const PyEvaluator& e) { return e.model().file().metadata; })
      .def_property_readonly("num_list_builds", &PyEvaluator::num_list_builds);
}
