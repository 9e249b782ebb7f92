// D3 by itself, for labels of training sets and for tests.
#include "core/couple/dispersion.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/named_device.hpp"
#include "bindings/thread_ranks.hpp"

namespace nearsight {
namespace {

using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

/// Results of n atoms in the order of the caller.
struct Found {
  py::array_t<double> forces, energies, virials;
  double energy = 0;
  std::array<double, 6> virial{};

  explicit Found(py::ssize_t n) : forces({n, py::ssize_t(3)}), energies(n), virials({n, py::ssize_t(6)}) {
    for (auto* array : {&forces, &energies, &virials}) std::fill_n(array->mutable_data(), array->size(), 0.0);
  }

  py::dict dict() const {
    py::dict dict;
    dict["energy"] = energy;
    dict["energies"] = energies;
    dict["forces"] = forces;
    dict["virial"] = symmetric_matrix(virial.data());
    dict["virials"] = virials;
    return dict;
  }
};

void check_species(const Ints& species, py::ssize_t num_atoms, std::size_t num_species) {
  if (species.ndim() != 1 || species.size() != num_atoms) wrong_shape("species", "(n,)", species);
  for (py::ssize_t i = 0; i < species.size(); ++i)
    if (species.data()[i] < 0 || species.data()[i] >= static_cast<int>(num_species))
      throw Error(ErrorKind::argument, "atom " + std::to_string(i) + " has species number " +
                                           std::to_string(species.data()[i]) + ", expected 0 to " +
                                           std::to_string(num_species - 1));
}

class PyDispersion {
 public:
  PyDispersion(const std::string& record, std::size_t num_species, const std::string& precision, int threads,
               const NamedDevice& device)
      : record_(read_dispersion(record, num_species)),
        double_(precision == "double"),
        device_(device),
        threads_(threads),
        dispersion_(make_dispersion(record_, double_, {}, device.device, device.index)) {
    if (!double_ && precision != "mixed")
      throw Error(ErrorKind::argument, "precision is '" + precision + "', expected mixed or double");
  }

  py::dict evaluate(const Doubles& positions, const Ints& species, const Doubles& cell,
                    const std::array<bool, 3>& pbc) {
    const Span<const double> x = read_positions(positions);
    check_species(species, positions.shape(0), record_.num_species());
    Found found(positions.shape(0));
    Dispersed result;
    result.forces = {found.forces.mutable_data(), x.size()};
    result.energies = {found.energies.mutable_data(), x.size() / 3};
    result.virials = {found.virials.mutable_data(), 2 * x.size()};
    const Span<const int> kinds(species.data(), x.size() / 3);
    const Cell box = read_cell(cell, pbc);
    {
      const py::gil_scoped_release release;
      dispersion_->evaluate(x, kinds, box, threads_, result);
    }
    found.energy = result.energy;
    found.virial = result.virial;
    return found.dict();
  }

  /// On ranks that are threads; owners[n] of the atoms, twice with a drift in between so that lists are kept.
  py::dict of_ranks(const Doubles& positions, const Ints& species, const Doubles& cell,
                    const std::array<bool, 3>& pbc, const Ints& owners, int ranks, double drift) const {
    const Span<const double> x = read_positions(positions);
    const py::ssize_t n = positions.shape(0);
    check_species(species, n, record_.num_species());
    check_species(owners, n, ranks);
    Found found(n);
    double* const forces = found.forces.mutable_data();
    double* const energies = found.energies.mutable_data();
    const int *const kinds = species.data(), *const owner = owners.data();
    const Cell box = read_cell(cell, pbc);
    std::vector<Dispersed> shares(ranks);
    {
      const py::gil_scoped_release release;
      ThreadRanks(ranks).run([&](const Communicator& communicator) {
        const int rank = communicator.rank;
        std::vector<std::size_t> mine;
        for (py::ssize_t i = 0; i < n; ++i)
          if (owner[i] == rank) mine.push_back(i);
        std::vector<double> own(3 * mine.size()), pulls(3 * mine.size()), parts(mine.size());
        std::vector<int> own_kinds(mine.size());
        const auto dispersion =
            make_dispersion(record_, double_, communicator, device_.device, device_.index);
        ThreadPool threads(1);
        for (const double moved : {-drift, 0.0}) {
          for (std::size_t k = 0; k < mine.size(); ++k) {
            for (int a = 0; a < 3; ++a) own[3 * k + a] = x[3 * mine[k] + a] + moved * (mine[k] % 3);
            own_kinds[k] = kinds[mine[k]];
          }
          std::fill(pulls.begin(), pulls.end(), 0.0);
          std::fill(parts.begin(), parts.end(), 0.0);
          Dispersed result;
          result.forces = pulls;
          result.energies = parts;
          dispersion->evaluate(own, own_kinds, box, threads, result);
          shares[rank] = result;
        }
        for (std::size_t k = 0; k < mine.size(); ++k) {
          energies[mine[k]] = parts[k];
          std::copy_n(pulls.data() + 3 * k, 3, forces + 3 * mine[k]);
        }
      });
    }
    for (const Dispersed& share : shares) {
      found.energy += share.energy;
      for (int a = 0; a < 6; ++a) found.virial[a] += share.virial[a];
    }
    return found.dict();
  }

 private:
  DispersionRecord record_;
  bool double_;
  NamedDevice device_;
  ThreadPool threads_;
  std::unique_ptr<Dispersion> dispersion_;
};

}  // namespace
}  // namespace nearsight

using namespace nearsight;

void bind_dispersion(py::module_& m) {
  py::class_<PyDispersion>(
      m, "Dispersion",
      "D3 of a record of docs/file_format.md, as JSON text, for so many species; lists of "
      "pairs\nare kept while they hold.")
      .def(py::init([](const std::string& record, std::size_t num_species, const std::string& precision,
                       int threads, const std::string& device) {
             return std::make_unique<PyDispersion>(record, num_species, precision, threads,
                                                   NamedDevice(device));
           }),
           py::arg("record"), py::arg("num_species"), py::arg("precision") = "double", py::arg("threads") = 1,
           py::arg("device") = "cpu")
      .def("evaluate", &PyDispersion::evaluate, py::arg("positions"), py::arg("species"), py::arg("cell"),
           py::arg("pbc"),
           "dict of energy eV, energies [n], forces [n, 3] eV/Å, virial [3, 3] eV, virials [n, 6] in "
           "xx yy zz xy xz yz")
      .def("of_ranks", &PyDispersion::of_ranks, py::arg("positions"), py::arg("species"), py::arg("cell"),
           py::arg("pbc"), py::arg("owners"), py::arg("ranks"), py::arg("drift") = 0.0,
           "The same, without virials of atoms, on several ranks, which are threads: a test of parallel "
           "runs.\n"
           "owners [n]: the rank of each atom; these come from places up to twice `drift` Å away.");
}
