#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "bindings/arrays.hpp"
#include "core/engine/device.hpp"
#include "core/neighbors/cell.hpp"

using namespace nearsight;

namespace {

/// Hands the shifts over to Python without a copy.
py::array_t<std::int32_t> shift_array(std::vector<Shift> shifts) {
  auto owned = std::make_unique<std::vector<Shift>>(std::move(shifts));
  const std::array<py::ssize_t, 2> shape{static_cast<py::ssize_t>(owned->size()), 3};
  if (owned->empty()) return py::array_t<std::int32_t>(shape);
  const std::int32_t* data = owned->front().data();
  const py::capsule owner(owned.release(), [](void* p) { delete static_cast<std::vector<Shift>*>(p); });
  return py::array_t<std::int32_t>(shape, data, owner);
}

/// Arrays of one list, filled without the interpreter's lock.
py::tuple to_arrays(NeighborList list, Span<const double> positions, const Cell& cell, ThreadPool& threads) {
  const py::ssize_t num_pairs = list.neighbors.size();
  py::array_t<std::int64_t> index({py::ssize_t{2}, num_pairs});
  py::array_t<double> vectors({num_pairs, py::ssize_t{3}});
  std::int64_t* center = index.mutable_data();
  std::int64_t* neighbor = center + num_pairs;
  double* vector = vectors.mutable_data();
  {
    py::gil_scoped_release release;
    threads.split(list.offsets.size() - 1, [&](int, std::size_t first, std::size_t last) {
      for (std::size_t i = first; i < last; ++i) {
        for (std::int64_t k = list.offsets[i]; k < list.offsets[i + 1]; ++k) {
          center[k] = static_cast<std::int64_t>(i);
          neighbor[k] = list.neighbors[k];
          const Vec3 r = pair_vector(positions, i, list.neighbors[k], list.shifts[k], cell.vectors);
          std::copy_n(r.data(), 3, vector + 3 * k);
        }
      }
    });
  }
  return py::make_tuple(index, shift_array(std::move(list.shifts)), vectors);
}

py::tuple neighbor_list(const Doubles& positions, const Doubles& vectors, const std::array<bool, 3>& pbc,
                        double cutoff, int num_threads) {
  const Span<const double> r = read_positions(positions);
  const Cell cell = read_cell(vectors, pbc);
  NeighborList list;
  ThreadPool threads(num_threads);
  {
    py::gil_scoped_release release;
    build_cell_list(r, cell, cutoff, threads, list);
  }
  return to_arrays(std::move(list), r, cell, threads);
}

py::tuple brute_force(const Doubles& positions, const Doubles& vectors, const std::array<bool, 3>& pbc,
                      double cutoff) {
  const Span<const double> r = read_positions(positions);
  const Cell cell = read_cell(vectors, pbc);
  NeighborList list;
  ThreadPool threads(1);
  {
    py::gil_scoped_release release;
    build_brute_force(r, cell, cutoff, list);
  }
  return to_arrays(std::move(list), r, cell, threads);
}

py::tuple update(VerletList& verlet, const Doubles& positions, const Doubles& vectors,
                 const std::array<bool, 3>& pbc, int num_threads) {
  const Span<const double> r = read_positions(positions);
  const Cell cell = read_cell(vectors, pbc);
  ThreadPool threads(num_threads);
  const NeighborList* list;
  {
    py::gil_scoped_release release;
    list = &verlet.update(r, cell, threads);
  }
  return to_arrays(*list, r, cell, threads);
}

py::tuple find_on_device(DeviceList& device, const Doubles& positions, const Doubles& vectors,
                         const std::array<bool, 3>& pbc) {
  const Span<const double> r = read_positions(positions);
  const Cell cell = read_cell(vectors, pbc);
  NeighborList list;
  ThreadPool threads(1);
  {
    py::gil_scoped_release release;
    device.find(r, cell, list);
  }
  return to_arrays(std::move(list), r, cell, threads);
}

}  // namespace

void bind_neighbors(py::module_& m) {
  const std::string returns =
      "\n\nReturns edge_index [2, E] int64 (center, neighbor; sorted by center), shifts [E, 3] int32 and\n"
      "edge_vectors [E, 3] = r_j - r_i + shifts @ cell, Å. positions [n, 3] Å need not be wrapped; rows of "
      "cell\n"
      "[3, 3] Å are lattice vectors, those of non-periodic directions are ignored.";
  m.def("neighbor_list", &neighbor_list, py::arg("positions"), py::arg("cell"), py::arg("pbc"),
        py::arg("cutoff"), py::arg("threads") = 1,
        ("All directed pairs with |r_ij| < cutoff, by linked cells." + returns).c_str());
  m.def("brute_force", &brute_force, py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("cutoff"),
        ("neighbor_list by trying every image of every pair: an oracle." + returns).c_str());
  py::class_<VerletList>(
      m, "VerletList",
      "A neighbor list with a skin, kept while no pair can be missing. For one thread at a time.")
      .def(py::init<double, double>(), py::arg("cutoff"), py::arg("skin"))
      .def("update", &update, py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("threads") = 1,
           ("All pairs within the cutoff, and others up to about cutoff + skin." + returns).c_str())
      .def_property_readonly("num_builds", &VerletList::num_builds);
  py::class_<DeviceList>(m, "CudaList", "A neighbor list with a skin, made and kept on a GPU.")
      .def(py::init(&make_cuda_list), py::arg("cutoff"), py::arg("skin") = 0.0, py::arg("device_index") = -1)
      .def("find", &find_on_device, py::arg("positions"), py::arg("cell"), py::arg("pbc"),
           ("All pairs within the cutoff." + returns).c_str())
      .def_property_readonly("num_builds", &DeviceList::num_builds);
}
