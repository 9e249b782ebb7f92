#pragma once
#include "cuda/models/acsf/functions.hpp"
#include "cuda/models/acsf/shapes.hpp"
#include "cuda/models/shared/neighborhoods.hpp"
#include "cuda/models/shared/pairs.hpp"
#include "cuda/models/shared/warps.hpp"

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

  __host__ __device__ WarpRoom(const Room& room, Pass pass, unsigned char* begin) {
    SharedParts parts{begin};
    const bool reverse = pass == Pass::reverse, tangent = pass == Pass::tangent;
    features = parts.take<double>(reverse ? 0 : room.features);
    moments = parts.take<double>((tangent ? 2 : 1) * room.moments);
    cotangents = parts.take<T>(reverse ? room.features : 0);
    adjoints = parts.take<T>(reverse && room.moments ? nearsight::acsf::kMaxMonomials : 0);
    sums = parts.take<T>(reverse ? 0 : room.functions * kColumn);
    terms = parts.take<T>((reverse || tangent ? 2 : 1) * room.terms * kLanes);
    tile = parts.take<T>(reverse && room.has_pairs ? PairTile<T>::kNumbers : 0);
    queue = parts.take<int>(room.has_pairs ? kQueue : 0);
    bytes = parts.bytes;
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
