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
  FunctionTables<T> tables;
  int num_rows;
  std::int64_t num_places;
  T *values, *slopes;  // [rows of shapes][places] of angular functions, sorted: w and w'/(w r)
};

/// A center as its warp sees it; arrays begin at its first neighbor.
template <class T>
struct Center {
  const Problem<T>& p;
  const FunctionTables<T>& tables;
  const CenterTable table;
  int row;
  const Vec4<T>* places;
  const std::int32_t* order;
  T *values, *slopes;

  __device__ Center(const Problem<T>& problem, int n)
      : p(problem), tables(p.tables), table(tables.centers[p.edges.species[p.edges.first_row + n]]), row(n) {
    const std::int64_t begin = p.edges.begin(p.edges.first_row + n);
    places = p.neighborhoods.places + begin;
    order = p.neighborhoods.order + begin;
    values = p.values + begin;
    slopes = p.slopes + begin;
  }
  __device__ ShellTable<T> shell(int number) const { return tables.shells[table.shells.first + number]; }
  __device__ Range neighbors(int species, int shell) const {
    return p.neighborhoods.shell(row, species, shell);
  }
  __device__ T* shape_values(int shape) const { return values + shape * p.num_places; }
  __device__ T* shape_slopes(int shape) const { return slopes + shape * p.num_places; }
};

enum class Pass { forward, reverse, tangent };

/// A warp's part of the shared memory. Made with a null `begin` it tells its size.
template <class T>
struct WarpRoom {
  double *features, *moments;
  T *cotangents, *adjoints, *sums, *terms, *tile;
  int* queue;
  std::size_t bytes;

  __host__ __device__ WarpRoom(const Room& room, Pass pass, unsigned char* begin) : bytes(0) {
    const bool reverse = pass == Pass::reverse, tangent = pass == Pass::tangent;
    features = take<double>(begin, reverse ? 0 : room.features);
    moments = take<double>(begin, (tangent ? 2 : 1) * room.moments);
    cotangents = take<T>(begin, reverse ? room.features : 0);
    adjoints = take<T>(begin, reverse && room.moments ? nearsight::acsf::kMaxMonomials : 0);
    sums = take<T>(begin, reverse ? 0 : room.functions * kColumn);
    terms = take<T>(begin, (reverse || tangent ? 2 : 1) * room.terms * kLanes);
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

/// Adds room.sums, one for each of these functions, to the features.
template <class T, class Function>
__device__ inline void add_features(const Function* functions, int count, const WarpRoom<T>& room) {
  for_sums(room.sums, count,
           [&](int i, double sum) { room.features[functions[i].out] += functions[i].factor * sum; });
}

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
