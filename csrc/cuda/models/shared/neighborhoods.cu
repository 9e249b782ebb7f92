#include <algorithm>

#include "cuda/models/shared/neighborhoods.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// Species and smallest shell of a neighbor; behind the last bin no shell holds it.
template <class T>
__device__ inline int bin_of(const Edges<T>& edges, std::int64_t place, const T* radii, int num_species,
                             int num_shells) {
  const T r = edges.vectors[place].w;
  int shell = 0;
  while (shell < num_shells && !(r < radii[shell])) ++shell;
  if (shell == num_shells) return num_species * num_shells;
  return edges.species[edges.neighbors[place]] * num_shells + shell;
}

/// A warp for each row fills one bin after the other; lanes keep the bins of the first neighbors.
template <class T>
__global__ void sort_neighbors(Edges<T> edges, int num_rows, const T* radii, int num_species, int num_shells,
                               Vec4<T>* places, std::int32_t* order, std::int32_t* first) {
  constexpr int kLanes = static_cast<int>(kWarp), kKept = 4;
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= num_rows) return;
  const int row = edges.first_row + n, count = edges.counts[row], num_bins = num_species * num_shells;
  const std::int64_t begin = edges.begin(row);
  const T* const own = radii + edges.species[row] * num_shells;
  const auto find = [&](int e) {
    return e < count ? bin_of(edges, begin + e, own, num_species, num_shells) : -1;
  };
  int kept[kKept];
  NEARSIGHT_UNROLL
  for (int k = 0; k < kKept; ++k) kept[k] = find(k * kLanes + lane);
  int filled = 0;
  const auto fill = [&](int e, bool here) {
    const unsigned votes = __ballot_sync(kAllLanes, here);
    if (here) {
      const std::int64_t place = begin + filled + __popc(votes & ((1u << lane) - 1));
      places[place] = edges.vectors[begin + e];
      order[place] = e;
    }
    filled += __popc(votes);
  };
  for (int bin = 0; bin <= num_bins; ++bin) {
    if (lane == 0) first[n * (num_bins + 1) + bin] = filled;
    NEARSIGHT_UNROLL
    for (int k = 0; k < kKept; ++k)
      if (k * kLanes < count) fill(k * kLanes + lane, kept[k] == bin);
    for (int e = kKept * kLanes + lane; e - lane < count; e += kLanes) fill(e, find(e) == bin);
  }
}

}  // namespace

template <class T>
NeighborSorter<T>::NeighborSorter(const Stream& stream, const std::vector<std::vector<double>>& radii)
    : num_species_(static_cast<int>(radii.size())), num_shells_(0) {
  for (const auto& own : radii) num_shells_ = std::max(num_shells_, static_cast<int>(own.size()));
  std::vector<T> all;
  for (const auto& own : radii)
    for (int shell = 0; shell < num_shells_; ++shell)  // those it has not are as large as the last
      all.push_back(own.empty() ? T(0) : static_cast<T>(own[std::min<std::size_t>(shell, own.size() - 1)]));
  radii_ = tables_.keep(stream, all);
}

template <class T>
void NeighborSorter<T>::sort(const Stream& stream, const Graph<T>& graph) {
  places_.resize(graph.num_places);
  order_.resize(graph.num_places);
  first_.resize(static_cast<std::size_t>(graph.num_rows) * (num_species_ * num_shells_ + 1));
  launch(stream, warp_each(graph.num_rows), sort_neighbors<T>, graph.edges, graph.num_rows, radii_,
         num_species_, num_shells_, places_.data(), order_.data(), first_.data());
}

template class NeighborSorter<float>;
template class NeighborSorter<double>;

}  // namespace cuda
}  // namespace nearsight
