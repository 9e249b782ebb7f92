#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "core/mesh/ewald.hpp"
#include "core/mesh/pme.hpp"

using namespace nearsight;

namespace {

Span<const double> read_values(const char* name, const Doubles& values) {
  if (values.ndim() != 1) wrong_shape(name, "(n,)", values);
  return {values.data(), static_cast<std::size_t>(values.size())};
}

Charges read_charges(const Doubles& positions, const Doubles& values, const std::optional<Doubles>& widths) {
  Charges charges{read_positions(positions), read_values("charges", values), {}};
  if (widths) charges.widths = read_values("widths", *widths);
  return charges;
}

py::array_t<double> copy(const std::vector<double>& values, std::vector<py::ssize_t> shape) {
  py::array_t<double> result(shape);
  std::copy(values.begin(), values.end(), result.mutable_data());
  return result;
}

py::dict to_dict(const Coulomb& result, const Charges& charges) {
  const auto n = static_cast<py::ssize_t>(charges.size());
  std::vector<double> forces = result.fields, virial(9);
  for (std::size_t k = 0; k < forces.size(); ++k) forces[k] *= charges.values[k / 3];
  constexpr int component[9] = {0, 3, 4, 3, 1, 5, 4, 5, 2};
  for (int k = 0; k < 9; ++k) virial[k] = result.virial[component[k]];
  py::dict dict;
  dict["energy"] = result.energy;
  dict["potentials"] = copy(result.potentials, {n});
  dict["fields"] = copy(result.fields, {n, 3});
  dict["forces"] = copy(forces, {n, 3});
  dict["virial"] = copy(virial, {3, 3});
  return dict;
}

py::dict run_ewald(const Doubles& positions, const Doubles& values, const Doubles& vectors,
                   const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths, double splitting,
                   int num_threads) {
  const Charges charges = read_charges(positions, values, widths);
  const Cell cell = read_cell(vectors, pbc);
  Coulomb result;
  {
    py::gil_scoped_release release;
    ThreadPool threads(num_threads);
    ewald(charges, cell, splitting, threads, result);
  }
  return to_dict(result, charges);
}

std::unique_ptr<Pme> make_pme(const Doubles& positions, const Doubles& values, const Doubles& vectors,
                              const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths,
                              double rtol, double cutoff, int order, const std::string& precision,
                              int num_threads) {
  if (precision != "single" && precision != "double")
    throw Error(ErrorKind::argument,
                "precision of the mesh is '" + precision + "', expected single or double");
  const Charges charges = read_charges(positions, values, widths);
  const Cell cell = read_cell(vectors, pbc);
  const py::gil_scoped_release release;
  ThreadPool threads(num_threads);
  return std::make_unique<Pme>(charges, cell, PmeOptions{rtol, {cutoff, order}, precision == "single"},
                               threads);
}

py::dict run_pme(Pme& pme, const Doubles& positions, const Doubles& values, const Doubles& vectors,
                 const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths, int num_threads) {
  const Charges charges = read_charges(positions, values, widths);
  const Cell cell = read_cell(vectors, pbc);
  Coulomb result;
  {
    py::gil_scoped_release release;
    ThreadPool threads(num_threads);
    pme.evaluate(charges, cell, threads, result);
  }
  return to_dict(result, charges);
}

bool fits(const Pme& pme, const Doubles& positions, const Doubles& values, const Doubles& vectors,
          const std::array<bool, 3>& pbc) {
  return pme.fits(read_charges(positions, values, std::nullopt), read_cell(vectors, pbc));
}

py::array_t<double> box(const Pme& pme, const Doubles& positions, const Doubles& vectors,
                        const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths) {
  const std::vector<double> nothing(positions.ndim() == 2 ? positions.shape(0) : 0);
  Charges charges{read_positions(positions), nothing, {}};
  if (widths) charges.widths = read_values("widths", *widths);
  const Mat3 found = pme.box(charges, read_cell(vectors, pbc)).vectors;
  return copy({found.begin(), found.end()}, {3, 3});
}

py::dict describe(const Pme& pme) {
  const PmeParameters& found = pme.parameters();
  py::dict dict;
  dict["splitting"] = found.splitting;
  dict["cutoff"] = found.cutoff;
  dict["order"] = found.order;
  dict["mesh"] = found.mesh;
  dict["force_error"] = found.force_error;
  dict["force_scale"] = pme.force_scale();
  return dict;
}

}  // namespace

void bind_mesh(py::module_& m) {
  m.def("ewald", &run_ewald, py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
        py::arg("widths") = py::none(), py::arg("splitting") = 0.0, py::arg("threads") = 1,
        "Electrostatics of charges [n] e by Ewald's sum in double, an oracle; open systems by the direct "
        "sum.\n\n"
        "Periodic in 3, 2 (slab, the third vector is ignored) or 0 directions. widths [n] Å: standard "
        "deviations\n"
        "of Gaussian charges, 0 for points. A net charge has a neutralizing background where three "
        "directions are\n"
        "periodic. splitting 1/Å, 0: automatic. Returns a dict of energy eV (without each charge's own),\n"
        "potentials [n] = dE/dq V, fields [n, 3] V/Å, forces [n, 3] eV/Å at constant charges, virial [3, 3] "
        "eV.");
  py::class_<Pme>(m, "Pme",
                  "Smooth particle-mesh Ewald, with parameters from the first configuration and\n"
                  "rtol = |ΔF|₂ / |F|₂. cutoff Å and order 4..8 of the splines; 0: automatic. precision of\n"
                  "the mesh: single or double. For one thread at a time.")
      .def(py::init(&make_pme), py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           py::arg("widths") = py::none(), py::arg("rtol") = 1e-6, py::arg("cutoff") = 0.0,
           py::arg("order") = 0, py::arg("precision") = "double", py::arg("threads") = 1)
      .def("evaluate", &run_pme, py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           py::arg("widths") = py::none(), py::arg("threads") = 1, "Arguments and results of ewald.")
      .def("fits", &fits, py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           "Whether the parameters are good for these charges, too: as many, in a cell that differs by at\n"
           "most a tenth.")
      .def("box", &box, py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("widths") = py::none(),
           "Lattice vectors [3, 3] Å of the sum that evaluate makes, periodic in 3 directions; a slab has\n"
           "vacuum along its normal.")
      .def_property_readonly(
          "parameters", &describe,
          "splitting 1/Å, cutoff Å, order, mesh; estimated force_error and the force_scale "
          "that rtol refers to, eV/Å");
}
