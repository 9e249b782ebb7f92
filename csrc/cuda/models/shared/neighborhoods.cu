#include <algorithm>

#include "cuda/models/shared/neighborhoods.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// A warp for each row. Bins are filled one after the other: there are few, and the edges stay in the L1
/// cache.
template <class T>
__global__ void sort_neighbors(Edges<T> edges, int num_rows, const T* radii, int num_species, int num_shells,
                               Vec4<T>* places, std::int32_t* order, std::int32_t* first) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= num_rows) return;
  const int row = edges.first_row + n, count = edges.counts[row], num_bins = num_species * num_shells;
  const std::int64_t begin = edges.begin(row);
  const T* const own = radii + edges.species[row] * num_shells;
  int filled = 0;
  for (int bin = 0; bin <= num_bins; ++bin) {
    if (lane == 0) first[n * (num_bins + 1) + bin] = filled;
    for (int e0 = 0; e0 < count; e0 += static_cast<int>(kWarp)) {
      const int e = e0 + lane;
      bool here = false;
      if (e < count) {
        const T r = edges.vectors[begin + e].w;
        int shell = 0;
        while (shell < num_shells && !(r < own[shell])) ++shell;
        const int species = edges.species[edges.neighbors[begin + e]];
        here = bin == (shell == num_shells ? num_bins : species * num_shells + shell);
      }
      const unsigned votes = __ballot_sync(kAllLanes, here);
      if (here) {
        const std::int64_t place = begin + filled + __popc(votes & ((1u << lane) - 1));
        places[place] = edges.vectors[begin + e];
        order[place] = e;
      }
      filled += __popc(votes);
    }
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
