#pragma once
#include <vector>

#include "core/models/shared/range.hpp"
#include "cuda/engine/graph.hpp"
#include "cuda/models/shared/tables.hpp"

namespace nearsight {
namespace cuda {

/// Neighbors of the rows of a graph, sorted by species, and of each species by the smallest shell, a sphere
/// around the center, that holds them: a shell's neighbors of a species stand one after another. Row n is the
/// n-th of the graph.
template <class T>
struct Neighborhoods {
  int num_species, num_shells;
  const Vec4<T>* places;      // [places of the graph] vector and length, by rows
  const std::int32_t* order;  // [places] number of the edge among the row's
  const std::int32_t* first;  // [rows][num_species * num_shells + 1]; behind the last no shell holds them

  __host__ __device__ Range shell(int row, int species, int shell) const {
    const std::int32_t* const f = first + row * (num_species * num_shells + 1) + species * num_shells;
    return {f[0], f[shell + 1]};
  }
};

/// Sorts the neighbors of a graph.
template <class T>
class NeighborSorter {
 public:
  /// `radii`: of each species of centers its shells' in ascending order, Å.
  NeighborSorter(const Stream& stream, const std::vector<std::vector<double>>& radii);

  void sort(const Stream& stream, const Graph<T>& graph);
  /// Of the last sort().
  Neighborhoods<T> view() const {
    return {num_species_, num_shells_, places_.data(), order_.data(), first_.data()};
  }
  static std::size_t bytes_per_neighbor() { return sizeof(Vec4<T>) + sizeof(std::int32_t); }

 private:
  int num_species_, num_shells_;
  Tables tables_;
  const T* radii_;  // [species][num_shells]
  Buffer<Vec4<T>> places_;
  Buffer<std::int32_t> order_, first_;
};

}  // namespace cuda
}  // namespace nearsight
