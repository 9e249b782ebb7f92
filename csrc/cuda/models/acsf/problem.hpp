#pragma once
#include "cuda/models/acsf/functions.hpp"
#include "cuda/models/acsf/shapes.hpp"
#include "cuda/models/shared/neighborhoods.hpp"
#include "cuda/models/shared/pairs.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

/// What the kernels of symmetry functions read.
template <class T>
struct Problem {
  Edges<T> edges;
  Neighborhoods<T> neighborhoods;
  const CenterTable<T>* centers;  // [species]
  int num_rows;
  std::int64_t num_places;
  T *values, *slopes;  // [shapes][places] of angular functions, sorted: w and w'/(w r)
};

/// A center as its warp sees it; arrays begin at its first neighbor.
template <class T>
struct Center {
  const CenterTable<T>& table;
  const Neighborhoods<T>& neighborhoods;
  int row, count;
  const Vec4<T>* places;
  const std::int32_t* order;
  T *values, *slopes;
  std::int64_t num_places;

  __device__ Center(const Problem<T>& p, int n)
      : table(p.centers[p.edges.species[p.edges.first_row + n]]), neighborhoods(p.neighborhoods), row(n) {
    const std::int64_t begin = p.edges.begin(p.edges.first_row + n);
    count = p.edges.counts[p.edges.first_row + n];
    places = p.neighborhoods.places + begin;
    order = p.neighborhoods.order + begin;
    values = p.values + begin;
    slopes = p.slopes + begin;
    num_places = p.num_places;
  }
  __device__ ShellTable<T> shell_table(int number) const {
    ShellTable<T> shell = of_device(table.shells)[number];
    shell.shapes = of_device(shell.shapes);
    return shell;
  }
  __device__ Range shell(int species, int number) const { return neighborhoods.shell(row, species, number); }
  __device__ const T* shape_values(int shape) const { return values + shape * num_places; }
  __device__ const T* shape_slopes(int shape) const { return slopes + shape * num_places; }
};

/// A warp's part of the shared memory. Made with a null `begin` it tells its size.
template <class T>
struct WarpRoom {
  double *features, *moments;
  T *cotangents, *adjoints, *sums, *terms, *tile;
  int* queue;
  std::size_t bytes;

  __host__ __device__ WarpRoom(const Room& room, bool reverse, unsigned char* begin) : bytes(0) {
    features = take<double>(begin, reverse ? 0 : room.features);
    moments = take<double>(begin, room.moments);
    cotangents = take<T>(begin, reverse ? room.features : 0);
    adjoints = take<T>(begin, reverse && room.moments ? nearsight::acsf::kMaxMonomials : 0);
    sums = take<T>(begin, reverse ? 0 : room.functions * kColumn);
    terms = take<T>(begin, (reverse ? 2 : 1) * room.terms * kLanes);
    tile = take<T>(begin, reverse && room.has_pairs ? PairTile<T>::kNumbers : 0);
    queue = take<int>(begin, room.has_pairs ? kQueue : 0);
  }

 private:
  template <class U>
  __host__ __device__ U* take(unsigned char* begin, int count) {
    U* const here = reinterpret_cast<U*>(begin + bytes);
    bytes += (count * sizeof(U) + 15) / 16 * 16;
    return here;
  }
};

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
