// Python bindings: the only code with Python.h. The Python package checks symbols and shapes of users; here
// only sizes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/named_device.hpp"
#include "core/engine/error.hpp"
#include "core/engine/evaluator.hpp"

namespace py = pybind11;
using namespace nearsight;

void bind_descriptor(py::module_& m);
void bind_dispersion(py::module_& m);
void bind_mesh(py::module_& m);
void bind_neighbors(py::module_& m);

namespace {

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

EvaluatorOptions options_of(const std::string& precision, int threads, double skin,
                            const std::string& device) {
  const NamedDevice found(device);
  return {is_double(precision), threads, skin, found.device, found.index};
}

Doubles zeros(std::vector<py::ssize_t> shape) {
  Doubles a(shape);
  std::fill_n(a.mutable_data(), a.size(), 0.0);
  return a;
}

Span<double> span_of(Doubles& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

/// (species, label, count, lowest, highest, minimum, maximum) of each feature that left its range.
py::list describe(const std::vector<Feature>& features, const std::vector<long long>& counts,
                  const std::vector<double>& lowest, const std::vector<double>& highest) {
  py::list found;
  for (std::size_t k = 0; k < features.size(); ++k) {
    const Feature& f = features[k];
    if (counts[k])
      found.append(
          py::make_tuple(f.species, f.label, counts[k], lowest[k], highest[k], f.minimum, f.maximum));
  }
  return found;
}

py::dict describe(const PmeTimes& times) {
  py::dict dict;
  dict["total"] = times.total;
  dict["pairs"] = times.pairs;
  dict["charges"] = times.charges;
  dict["transforms"] = times.transforms;
  return dict;
}

class PyEvaluator {
 public:
  PyEvaluator(const std::string& path, const std::string& backend, const std::string& precision, int threads,
              double skin, const std::string& device)
      : evaluator_(Model::load(path, backend_of(backend)), options_of(precision, threads, skin, device)) {}

  py::dict evaluate(const Doubles& positions, const Ints& species, const Doubles& cell,
                    const std::array<bool, 3>& pbc, std::optional<double> charge,
                    const std::array<double, 3>& efield, bool born_charges, bool centroid, bool members,
                    bool extrapolations, const std::optional<Ints>& molecules,
                    const std::optional<Doubles>& molecule_charges) {
    const auto n = species.size();
    if (positions.size() != 3 * n || cell.size() != 9)
      throw Error(ErrorKind::argument, "positions must be [n, 3], species [n] and cell [3, 3]");
    Cell c;
    std::copy_n(cell.data(), 9, c.vectors.begin());
    c.pbc = pbc;
    Outside outside{charge, efield};
    if (molecules.has_value() != molecule_charges.has_value() || (molecules && molecules->size() != n))
      throw Error(ErrorKind::argument, "molecules [n] and molecule_charges must be given together");
    if (molecules) {
      outside.molecules = Span<const int>(molecules->data(), n);
      outside.molecule_charges = Span<const double>(molecule_charges->data(), molecule_charges->size());
    }
    const bool by_atom = model().has_atom_virials();
    auto forces = zeros({n, 3}), energies = zeros({n}), virials = zeros({by_atom ? n : 0, 6});
    Results r;
    r.forces = Span<double>(forces.mutable_data(), 3 * n);
    r.energies = Span<double>(energies.mutable_data(), n);
    if (by_atom) r.virials = Span<double>(virials.mutable_data(), 6 * n);
    const py::ssize_t channels = model().num_charges();
    auto charges = zeros({channels ? n : 0, channels}), potentials = zeros({channels ? n : 0, channels});
    if (channels) {
      r.charges = Span<double>(charges.mutable_data(), n * channels);
      r.potentials = Span<double>(potentials.mutable_data(), n * channels);
    }
    auto born = zeros({born_charges ? n : 0, 3, 3});
    if (born_charges) r.born_charges = Span<double>(born.mutable_data(), 9 * n);
    auto centroid_virials = zeros({centroid ? n : 0, 9});
    if (centroid) r.centroid_virials = Span<double>(centroid_virials.mutable_data(), 9 * n);
    const py::ssize_t num_members = model().num_members();
    auto member_energies = zeros({num_members});
    auto member_forces = zeros({members ? num_members : 0, n, 3});
    auto member_virials = zeros({members ? num_members : 0, 6});
    if (num_members > 1) r.member_energies = Span<double>(member_energies.mutable_data(), num_members);
    if (members) {
      r.member_forces = Span<double>(member_forces.mutable_data(), num_members * 3 * n);
      r.member_virials = Span<double>(member_virials.mutable_data(), num_members * 6);
    }
    const auto& features = model().potential().features();
    std::vector<long long> counts(features.size() + 1, 0);  // never a null span, which is "not wanted"
    std::vector<double> lowest, highest;
    for (const Feature& feature : features) {
      lowest.push_back(feature.minimum);
      highest.push_back(feature.maximum);
    }
    if (extrapolations) r.extrapolations = {{counts.data(), features.size()}, lowest, highest};
    {
      const Span<const double> x(positions.data(), 3 * n);
      const Span<const int> s(species.data(), n);
      py::gil_scoped_release release;
      evaluator_.evaluate(x, s, c, outside, r);
    }
    py::dict result;
    result["energy"] = r.energy;
    result["energies"] = energies;
    result["forces"] = forces;
    result["virial"] = symmetric_matrix(r.virial);
    if (by_atom) result["virials"] = virials;
    if (channels) {
      result["electrostatic_energy"] = r.electrostatic;
      result["charges"] = charges;
      result["potentials"] = potentials;
      result["equilibration_steps"] = r.steps;
      result["electrostatic_seconds"] = describe(r.times);
    }
    if (model().adds_dispersion()) result["dispersion_energy"] = r.dispersion;
    if (born_charges) result["born_charges"] = born;
    if (centroid) result["centroid_virials"] = centroid_virials;
    if (num_members > 1) result["member_energies"] = member_energies;
    if (members) {
      result["member_forces"] = member_forces;
      result["member_virials"] = member_virials;
    }
    if (extrapolations) result["extrapolations"] = describe(features, counts, lowest, highest);
    return result;
  }

  py::dict evaluate_batch(const Doubles& positions, const Ints& species,
                          const std::vector<std::size_t>& first_atoms, const Doubles& cells,
                          const std::vector<std::array<bool, 3>>& pbc, bool members) {
    const auto n = species.size();
    const auto systems = static_cast<py::ssize_t>(pbc.size());
    if (positions.size() != 3 * n || cells.size() != 9 * systems || first_atoms.size() != pbc.size() + 1 ||
        first_atoms[0] != 0 || first_atoms.back() != static_cast<std::size_t>(n) ||
        !std::is_sorted(first_atoms.begin(), first_atoms.end()))
      throw Error(
          ErrorKind::argument,
          "positions must be [n, 3], species [n], cells [s, 3, 3], pbc [s, 3], and first_atoms [s + 1] "
          "rise from 0 to n");
    std::vector<Cell> boxes(systems);
    for (py::ssize_t s = 0; s < systems; ++s) {
      std::copy_n(cells.data() + 9 * s, 9, boxes[s].vectors.begin());
      boxes[s].pbc = pbc[s];
    }
    const py::ssize_t num_members = model().num_members(), wanted = members ? num_members : 0;
    auto energies = zeros({systems}), virial = zeros({systems, 6}), forces = zeros({n, 3});
    auto atom_energies = zeros({n}), atom_virials = zeros({n, 6});
    auto member_energies = zeros({systems, num_members > 1 ? num_members : 0});
    auto member_forces = zeros({wanted, n, 3}), member_virials = zeros({systems, wanted, 6});
    BatchResults r;
    r.energies = span_of(energies);
    r.virials = span_of(virial);
    r.forces = span_of(forces);
    r.atom_energies = span_of(atom_energies);
    r.atom_virials = span_of(atom_virials);
    if (num_members > 1) r.member_energies = span_of(member_energies);
    if (members) {
      r.member_forces = span_of(member_forces);
      r.member_virials = span_of(member_virials);
    }
    {
      const Batch batch{Span<const double>(positions.data(), 3 * n), Span<const int>(species.data(), n),
                        first_atoms, boxes};
      py::gil_scoped_release release;
      evaluator_.evaluate(batch, r);
    }
    py::dict result;
    result["energy"] = energies;
    result["virial"] = virial;
    result["forces"] = forces;
    result["energies"] = atom_energies;
    result["virials"] = atom_virials;
    if (num_members > 1) result["member_energies"] = member_energies;
    if (members) {
      result["member_forces"] = member_forces;
      result["member_virials"] = member_virials;
    }
    return result;
  }

  const Model& model() const { return evaluator_.model(); }
  long num_list_builds() const { return evaluator_.num_list_builds(); }

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
  bind_dispersion(m);
  bind_mesh(m);
  bind_neighbors(m);

  m.def("num_cuda_devices", &num_cuda_devices, "NVIDIA GPUs of this machine.");
  m.def(
      "cuda_peaks",
      [](int device_index) {
        const DevicePeaks peaks = measure_cuda_peaks(device_index);
        py::dict dict;
        dict["name"] = peaks.name;
        dict["bandwidth"] = peaks.bandwidth;
        dict["fp32"] = peaks.fp32;
        dict["fp64"] = peaks.fp64;
        return dict;
      },
      py::arg("device_index") = -1,
      "A GPU's name, and what it reaches with nothing else to do: bytes/s of copies, FP32 and FP64 "
      "operations/s of multiply-adds from registers.");
  py::class_<PyEvaluator>(m, "Evaluator", "forward - couple - reverse of a model file, in one process")
      .def(py::init<const std::string&, const std::string&, const std::string&, int, double,
                    const std::string&>(),
           py::arg("path"), py::arg("backend") = "auto", py::arg("precision") = "double",
           py::arg("threads") = 1, py::arg("skin") = 0.0, py::arg("device") = "cpu")
      .def(
          "evaluate", &PyEvaluator::evaluate, py::arg("positions"), py::arg("species"), py::arg("cell"),
          py::arg("pbc"), py::arg("charge") = py::none(), py::arg("efield") = std::array<double, 3>{},
          py::arg("born_charges") = false, py::arg("centroid") = false, py::arg("members") = false,
          py::arg("extrapolations") = false, py::arg("molecules") = py::none(),
          py::arg("molecule_charges") = py::none(),
          "dict of energy (eV), energies [n], forces [n, 3], virial [3, 3], of models without charges "
          "virials "
          "[n, 6] in xx yy zz xy xz yz, of those with electrostatic_energy eV, charges [n, C] e and "
          "potentials [n, C] V, equilibration_steps and electrostatic_seconds, of those with dispersion "
          "dispersion_energy eV, of a committee member_energies [M], and if asked for: born_charges [n, 3, "
          "3] "
          "e; centroid_virials [n, 9] in xx yy zz xy xz yz yx zx zy; member_forces [M, n, 3], member_virials "
          "[M, 6]; extrapolations, a list of "
          "(species, label, count, lowest, highest, minimum, maximum)")
      .def("evaluate_batch", &PyEvaluator::evaluate_batch, py::arg("positions"), py::arg("species"),
           py::arg("first_atoms"), py::arg("cells"), py::arg("pbc"), py::arg("members") = false,
           "The same of s systems with n atoms in all, those of system k from first_atoms[k] to "
           "first_atoms[k + 1], if has_batches: dict of energy [s], virial [s, 6] in xx yy zz xy xz yz, "
           "forces [n, 3], energies [n], virials [n, 6], of a committee member_energies [s, M], and if asked "
           "for member_forces [M, n, 3], member_virials [s, M, 6]")
      .def_property_readonly("has_batches", [](const PyEvaluator& e) { return e.model().has_batches(); })
      .def_property_readonly("species", [](const PyEvaluator& e) { return e.model().file().species; })
      .def_property_readonly("cutoff", [](const PyEvaluator& e) { return e.model().file().cutoff; })
      .def_property_readonly("num_interactions",
                             [](const PyEvaluator& e) { return e.model().file().num_interactions; })
      .def_property_readonly("num_charges", [](const PyEvaluator& e) { return e.model().num_charges(); })
      .def_property_readonly("has_born_charges",
                             [](const PyEvaluator& e) { return e.model().has_born_charges(); })
      .def_property_readonly("num_members", [](const PyEvaluator& e) { return e.model().num_members(); })
      .def_property_readonly("backend", [](const PyEvaluator& e) { return e.model().backend(); })
      .def_property_readonly("metadata", [](const PyEvaluator& e) { return e.model().file().metadata; })
      .def_property_readonly("num_list_builds", &PyEvaluator::num_list_builds);
}
