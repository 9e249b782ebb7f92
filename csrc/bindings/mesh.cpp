#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/named_device.hpp"
#include "bindings/thread_ranks.hpp"
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

std::vector<double> full_virial(const Coulomb& result) {
  std::vector<double> virial;
  for (const int component : {0, 3, 4, 3, 1, 5, 4, 5, 2}) virial.push_back(result.virial[component]);
  return virial;
}

py::dict to_dict(const Coulomb& result, const Charges& charges) {
  const auto n = static_cast<py::ssize_t>(charges.size());
  std::vector<double> forces = result.fields;
  for (std::size_t k = 0; k < forces.size(); ++k) forces[k] *= charges.values[k / 3];
  py::dict dict;
  dict["energy"] = result.energy;
  dict["potentials"] = copy(result.potentials, {n});
  dict["fields"] = copy(result.fields, {n, 3});
  dict["forces"] = copy(forces, {n, 3});
  dict["virial"] = copy(full_virial(result), {3, 3});
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

PmeOptions read_options(double rtol, double cutoff, int order, const std::string& precision,
                        const std::string& device) {
  if (precision != "single" && precision != "double")
    throw Error(ErrorKind::argument,
                "precision of the mesh is '" + precision + "', expected single or double");
  const NamedDevice found(device);
  return {rtol, {cutoff, order}, precision == "single", {}, found.device, found.index};
}

std::unique_ptr<Pme> make_pme(const Doubles& positions, const Doubles& values, const Doubles& vectors,
                              const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths,
                              double rtol, double cutoff, int order, const std::string& precision,
                              int num_threads, const std::string& device) {
  const PmeOptions options = read_options(rtol, cutoff, order, precision, device);
  const Charges charges = read_charges(positions, values, widths);
  const Cell cell = read_cell(vectors, pbc);
  const py::gil_scoped_release release;
  ThreadPool threads(num_threads);
  return std::make_unique<Pme>(charges, cell, options, threads);
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

py::array_t<double> find_potentials(Pme& pme, const Doubles& positions, const Doubles& values,
                                    const Doubles& vectors, const std::array<bool, 3>& pbc,
                                    const std::optional<Doubles>& widths, int num_threads) {
  const Charges charges = read_charges(positions, values, widths);
  const Cell cell = read_cell(vectors, pbc);
  Coulomb result;
  {
    py::gil_scoped_release release;
    ThreadPool threads(num_threads);
    pme.find_potentials(charges, cell, threads, result);
  }
  return copy(result.potentials, {static_cast<py::ssize_t>(charges.size())});
}

bool fits(Pme& pme, const Doubles& positions, const Doubles& values, const Doubles& vectors,
          const std::array<bool, 3>& pbc) {
  return pme.fits(read_charges(positions, values, std::nullopt), read_cell(vectors, pbc));
}

py::array_t<double> box(Pme& pme, const Doubles& positions, const Doubles& vectors,
                        const std::array<bool, 3>& pbc, const std::optional<Doubles>& widths) {
  const std::vector<double> nothing(positions.ndim() == 2 ? positions.shape(0) : 0);
  Charges charges{read_positions(positions), nothing, {}};
  if (widths) charges.widths = read_values("widths", *widths);
  const Mat3 found = pme.box(charges, read_cell(vectors, pbc)).vectors;
  return copy({found.begin(), found.end()}, {3, 3});
}

py::dict describe(const PmeParameters& found) {
  py::dict dict;
  dict["splitting"] = found.splitting;
  dict["cutoff"] = found.cutoff;
  dict["order"] = found.order;
  dict["mesh"] = found.mesh;
  dict["force_error"] = found.force_error;
  return dict;
}

/// [steps, n], the rank that owns each charge in each evaluation.
using Owners = py::array_t<int, py::array::c_style | py::array::forcecast>;

void check_owners(const Owners& owners, std::size_t num_charges, int ranks) {
  if (owners.ndim() != 2 || static_cast<std::size_t>(owners.shape(1)) != num_charges || owners.shape(0) < 1)
    wrong_shape("owners", "(steps, n)", owners);
  for (py::ssize_t k = 0; k < owners.size(); ++k)
    if (owners.data()[k] < 0 || owners.data()[k] >= ranks)
      throw Error(ErrorKind::argument, "charge " + std::to_string(k % owners.shape(1)) + " belongs to rank " +
                                           std::to_string(owners.data()[k]) + ", but there are " +
                                           std::to_string(ranks) +
                                           " ranks, counted from 0: correct the owners");
}

/// Charges that a rank owns.
struct Share {
  std::vector<std::size_t> indices;
  std::vector<double> positions, values, widths;

  Share(const Charges& all, const int* owners, int rank) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (owners[i] != rank) continue;
      indices.push_back(i);
      positions.insert(positions.end(), all.positions.begin() + 3 * i, all.positions.begin() + 3 * i + 3);
      values.push_back(all.values[i]);
      if (!all.widths.empty()) widths.push_back(all.widths[i]);
    }
  }
  Charges charges() const { return {positions, values, widths}; }
};

/// Evaluations on ranks that are threads, and the results of the last one.
struct RankRun {
  Charges charges;  // of all ranks
  std::vector<Cell> cells;
  const int* owners;
  std::size_t steps;
  std::vector<double> drift;  // [3n] Å, between steps
  PmeOptions options;
  std::vector<double> energies, virials, communication, transforms, potentials, fields, alone;
  PmeParameters parameters;

  void start() {
    for (auto* values : {&energies, &communication, &transforms}) values->resize(cells.size());
    virials.resize(9 * cells.size());
    potentials.resize(charges.size());
    alone.resize(charges.size());
    fields.resize(3 * charges.size());
    ThreadRanks(static_cast<int>(cells.size())).run([this](const Communicator& ranks) { run_rank(ranks); });
  }

  void run_rank(const Communicator& communicator) {
    const int rank = communicator.rank;
    const Cell& cell = cells[rank];
    ThreadPool threads(1);
    const Share first(charges, owners, rank);
    Pme pme(first.charges(), cell, options, threads, communicator);
    std::vector<double> positions(charges.positions.begin(), charges.positions.end());
    for (std::size_t step = 0; step < steps; ++step) {
      for (std::size_t k = 0; step && k < drift.size(); ++k) positions[k] += drift[k];
      const Share own({positions, charges.values, charges.widths}, owners + step * charges.size(), rank);
      Coulomb result;
      pme.evaluate(own.charges(), cell, threads, result);
      energies[rank] = result.energy;
      const std::vector<double> virial = full_virial(result);
      std::copy(virial.begin(), virial.end(), virials.begin() + 9 * rank);
      for (std::size_t k = 0; k < own.indices.size(); ++k) {
        potentials[own.indices[k]] = result.potentials[k];
        std::copy_n(result.fields.begin() + 3 * k, 3, fields.begin() + 3 * own.indices[k]);
      }
      if (step + 1 == steps) find_potentials(pme, own, cell, threads);
    }
    communication[rank] = pme.times().communication;
    transforms[rank] = pme.times().transforms;
    if (rank == 0) parameters = pme.parameters();
  }

  /// The last ones once more, with pairs that are remembered.
  void find_potentials(Pme& pme, Share own, const Cell& cell, ThreadPool& threads) {
    Coulomb result;
    pme.find_potentials(own.charges(), cell, threads, result);
    for (double& value : own.values) value *= 2.0;
    pme.find_potentials(own.charges(), cell, threads, result);
    for (std::size_t k = 0; k < own.indices.size(); ++k) alone[own.indices[k]] = 0.5 * result.potentials[k];
  }
};

py::dict pme_of_ranks(const Doubles& positions, const Doubles& values,
                      const std::vector<std::pair<Doubles, std::array<bool, 3>>>& cells, const Owners& owners,
                      const std::optional<Doubles>& widths, double rtol, double cutoff, int order,
                      const std::string& precision, const std::array<int, 2>& pencils,
                      const std::optional<Doubles>& drift, const std::string& device) {
  RankRun run;
  run.charges = read_charges(positions, values, widths);
  check_charges(run.charges);
  for (const auto& [vectors, pbc] : cells) run.cells.push_back(read_cell(vectors, pbc));
  check_owners(owners, run.charges.size(), static_cast<int>(cells.size()));
  if (drift) {
    const Span<const double> moves = read_positions(*drift);
    if (moves.size() != run.charges.positions.size()) wrong_shape("drift", "(n, 3)", *drift);
    run.drift.assign(moves.begin(), moves.end());
  }
  run.owners = owners.data();
  run.steps = owners.shape(0);
  run.options = read_options(rtol, cutoff, order, precision, device);
  run.options.pencils = pencils;
  {
    const py::gil_scoped_release release;
    run.start();
  }
  const auto n = static_cast<py::ssize_t>(run.charges.size()), size = static_cast<py::ssize_t>(cells.size());
  py::dict dict;
  dict["energies"] = copy(run.energies, {size});
  dict["virials"] = copy(run.virials, {size, 3, 3});
  dict["potentials"] = copy(run.potentials, {n});
  dict["fields"] = copy(run.fields, {n, 3});
  dict["potentials_alone"] = copy(run.alone, {n});
  dict["communication"] = copy(run.communication, {size});
  dict["transforms"] = copy(run.transforms, {size});
  dict["parameters"] = describe(run.parameters);
  return dict;
}

}  // namespace

void bind_mesh(py::module_& m) {
  m.def("pme_of_ranks", &pme_of_ranks, py::arg("positions"), py::arg("charges"), py::arg("cells"),
        py::arg("owners"), py::arg("widths") = py::none(), py::arg("rtol") = 1e-6, py::arg("cutoff") = 0.0,
        py::arg("order") = 0, py::arg("precision") = "double", py::arg("pencils") = std::array<int, 2>{0, 0},
        py::arg("drift") = py::none(), py::arg("device") = "cpu",
        "Pme on several ranks, which are threads that exchange arrays: an oracle for parallel runs.\n\n"
        "cells: (cell, pbc) of each rank; owners [steps, n]: the rank of each charge, in each of several\n"
        "evaluations, the first of which sets up; positions move by drift [n, 3] in between. pencils: the "
        "grid\n"
        "of ranks that transform, (0, 0) is automatic. Returns a dict of the last evaluation: energies "
        "[ranks] and virials [ranks, 3, 3], shares\n"
        "that add up to those of Pme; potentials [n], fields [n, 3]; potentials_alone [n] by "
        "Pme.find_potentials;\n"
        "parameters as those of Pme;\n"
        "communication and transforms [ranks] s, of all evaluations.");
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
                  "the mesh: single or double. device: cpu, cuda or cuda:N. For one thread at a time.")
      .def(py::init(&make_pme), py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           py::arg("widths") = py::none(), py::arg("rtol") = 1e-6, py::arg("cutoff") = 0.0,
           py::arg("order") = 0, py::arg("precision") = "double", py::arg("threads") = 1,
           py::arg("device") = "cpu")
      .def("evaluate", &run_pme, py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           py::arg("widths") = py::none(), py::arg("threads") = 1, "Arguments and results of ewald.")
      .def("find_potentials", &find_potentials, py::arg("positions"), py::arg("charges"), py::arg("cell"),
           py::arg("pbc"), py::arg("widths") = py::none(), py::arg("threads") = 1,
           "The potentials alone [n] V; fast for other charges at the places of the last call.")
      .def("fits", &fits, py::arg("positions"), py::arg("charges"), py::arg("cell"), py::arg("pbc"),
           "Whether the parameters are good for these charges, too: as many, in a cell that differs by at\n"
           "most a tenth.")
      .def("box", &box, py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("widths") = py::none(),
           "Lattice vectors [3, 3] Å of the sum that evaluate makes, periodic in 3 directions; a slab has\n"
           "vacuum along its normal.")
      .def_property_readonly(
          "times",
          [](const Pme& pme) {
            const PmeTimes& times = pme.times();
            py::dict dict;
            dict["communication"] = times.communication;
            dict["pairs"] = times.pairs;
            dict["charges"] = times.charges;
            dict["transforms"] = times.transforms;
            dict["lists"] = times.lists;
            return dict;
          },
          "s, of all evaluations: communication; pairs, with their lists; charges to the mesh and back;\n"
          "transforms. lists: how many lists of pairs were made")
      .def_property_readonly(
          "parameters",
          [](const Pme& pme) {
            py::dict dict = describe(pme.parameters());
            dict["force_scale"] = pme.force_scale();
            return dict;
          },
          "splitting 1/Å, cutoff Å, order, mesh; estimated force_error and the force_scale "
          "that rtol refers to, eV/Å");
}
