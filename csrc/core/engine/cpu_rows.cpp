#include "core/engine/cpu_rows.hpp"

#include <algorithm>
#include <utility>

#include "core/engine/edge_virial.hpp"

namespace nearsight {
namespace {

/// Centers that workers remember between forward() and reverse(); for others they run forward twice. Edges
/// and features take some KB for each.
constexpr std::size_t kMostKept = 16384;
constexpr std::size_t kNoTile = static_cast<std::size_t>(-1);

/// Adds the edges' shares.
void scatter(const Graph& graph, const std::vector<double>& edge_gradients, const EdgeSums& sums) {
  double* const forces = sums.forces.data();
  double* const virials = sums.virials.data();
  double* const centroid = sums.centroid_virials.data();
  double total[6] = {};
  for (std::size_t c = 0; c < graph.centers.size(); ++c) {
    const int i = graph.centers[c];
    double own[3] = {};
    for (auto e = graph.offsets[c]; e < graph.offsets[c + 1]; ++e) {
      const double* const r = &graph.vectors[3 * e];
      const double* const g = &edge_gradients[3 * e];
      const int j = graph.neighbors[e];
      // dE/dr_i = -g and dE/dr_j = +g, since r_ij = r_j - r_i.
      if (forces)
        for (int a = 0; a < 3; ++a) own[a] += g[a], forces[3 * j + a] -= g[a];
      double w[6];
      edge_virial(r, g, w);
      for (int a = 0; a < 6; ++a) total[a] += w[a];
      if (virials)
        for (int a = 0; a < 6; ++a) virials[6 * i + a] += 0.5 * w[a], virials[6 * j + a] += 0.5 * w[a];
      if (centroid)
        for (int k = 0; k < 9; ++k) centroid[9 * j + k] -= r[kCentroidRow[k]] * g[kCentroidColumn[k]];
    }
    if (forces)
      for (int a = 0; a < 3; ++a) forces[3 * i + a] += own[a];
  }
  for (int a = 0; a < 6; ++a) sums.virial[a] += total[a];
}

/// Arrays like those that are wanted, zero.
struct OwnSums {
  std::vector<double> forces, virials, centroid_virials, virial;

  EdgeSums open(const EdgeSums& wanted) {
    const auto like = [](std::vector<double>& own, const Span<double>& array) -> Span<double> {
      own.assign(array.size(), 0.0);
      return array ? Span<double>(own) : Span<double>();
    };
    return {like(forces, wanted.forces), like(virials, wanted.virials),
            like(centroid_virials, wanted.centroid_virials), like(virial, wanted.virial)};
  }
};

void add(Span<double> to, Span<double> from) {
  for (std::size_t k = 0; k < from.size(); ++k) to[k] += from[k];
}

}  // namespace

/// A worker, and the tile that it remembers between forward and reverse.
struct CpuRows::Memory {
  std::unique_ptr<Worker> worker;
  EdgeBuffer edges;
  std::size_t tile = kNoTile;
};

struct CpuRows::Lane {
  std::vector<Memory> memories;  // of its first tiles; all others share the last one
  std::vector<double> edge_gradients, cotangents;
  std::vector<OwnSums> own;    // of each pull
  std::vector<EdgeSums> sums;  // likewise: in the first thread those of the host, but for the virial
  Extrapolations found;        // likewise
  std::vector<double> lowest, highest;
  std::vector<long long> counts;

  Lane(const Potential& potential, const WorkerOptions& options) {
    memories.push_back({potential.make_worker(options), {}, kNoTile});
  }

  void keep(std::size_t tiles) {
    while (memories.size() < tiles) {
      auto worker = memories[0].worker->sibling();
      if (!worker) return;
      memories.push_back({std::move(worker), {}, kNoTile});
    }
  }

  void open(Span<const Pull> pulls, const Extrapolations& wanted, bool is_first) {
    own.resize(std::max(own.size(), pulls.size()));
    sums.clear();
    for (std::size_t p = 0; p < pulls.size(); ++p) {
      const EdgeSums& host = pulls[p].sums;
      if (is_first) {
        own[p].virial.assign(6, 0.0);
        sums.push_back({host.forces, host.virials, host.centroid_virials, own[p].virial});
      } else {
        sums.push_back(own[p].open(host));
      }
    }
    found = wanted;
    if (is_first || !wanted.counts) return;
    counts.assign(wanted.counts.size(), 0);
    lowest.assign(wanted.lowest.begin(), wanted.lowest.end());
    highest.assign(wanted.highest.begin(), wanted.highest.end());
    found = {counts, lowest, highest};
  }
};

CpuRows::CpuRows(const Potential& potential, int columns, bool double_precision, const Exchange* exchange,
                 ThreadPool& threads)
    : potential_(potential), columns_(columns), threads_(threads) {
  // A potential that wants the whole graph at once brings its own threads.
  const int lanes = potential.tile() ? threads.size() : 1;
  const WorkerOptions options{double_precision, lanes == 1 ? threads.size() : 1, exchange};
  for (int t = 0; t < lanes; ++t) lanes_.push_back(std::make_unique<Lane>(potential, options));
}

CpuRows::~CpuRows() = default;

void CpuRows::load(const Domain& domain, Span<const int> owned, Span<const int> ghosts, Append append,
                   const Extrapolations& found) {
  domain_ = domain;
  owned_ = owned;
  ghosts_ = ghosts;
  append_ = std::move(append);
  found_ = found;
}

/// A thread always has the same tiles.
void CpuRows::for_tiles(std::size_t most_kept, const Body& body) {
  const std::size_t rows = owned_.size();
  const std::size_t tile = potential_.tile() ? potential_.tile() : std::max<std::size_t>(rows, 1);
  const std::size_t num_tiles = std::max<std::size_t>(1, (rows + tile - 1) / tile);
  const std::size_t memories = std::max<std::size_t>(1, most_kept / tile / lanes_.size());
  const auto work = [&](int thread, std::size_t first, std::size_t last) {
    Lane& lane = *lanes_[thread];
    lane.keep(std::min(last - first, memories));
    for (std::size_t k = first; k < last; ++k) {
      Memory& memory = lane.memories[std::min(k - first, lane.memories.size() - 1)];
      body(lane, memory, {k, k * tile, std::min(tile, rows - k * tile)});
    }
  };
  if (lanes_.size() == 1)
    work(0, 0, num_tiles);
  else
    threads_.split(num_tiles, work);
}

void CpuRows::run_forward(Memory& memory, const Tile& tile, Span<double> readouts) const {
  memory.edges.clear();
  for (std::size_t row = tile.first; row < tile.first + tile.count; ++row) append_(memory.edges, owned_[row]);
  for (const int i : ghosts_) append_(memory.edges, i);
  memory.worker->forward(memory.edges.graph(domain_),
                         readouts.subspan(tile.first * columns_, tile.count * columns_));
  memory.tile = tile.number;
}

void CpuRows::run_reverse(Lane& lane, Memory& memory, Span<const double> cotangents,
                          const EdgeSums& sums) const {
  const Graph graph = memory.edges.graph(domain_);
  lane.edge_gradients.resize(3 * graph.num_edges());
  memory.worker->reverse(graph, cotangents, lane.edge_gradients);
  scatter(graph, lane.edge_gradients, sums);
}

void CpuRows::forward(Span<double> readouts) {
  for_tiles(kMostKept, [&](Lane&, Memory& memory, const Tile& tile) { run_forward(memory, tile, readouts); });
}

void CpuRows::reverse(Span<const Pull> pulls) {
  open(pulls);
  readouts_.resize(owned_.size() * columns_);
  for_tiles(kMostKept, [&](Lane& lane, Memory& memory, const Tile& tile) {
    if (memory.tile != tile.number) run_forward(memory, tile, readouts_);
    if (lane.found.counts) memory.worker->find_extrapolations(lane.found);
    for (std::size_t p = 0; p < pulls.size(); ++p)
      run_reverse(lane, memory, pulls[p].cotangents.subspan(tile.first * columns_, tile.count * columns_),
                  lane.sums[p]);
  });
  close(pulls);
}

void CpuRows::evaluate(Span<const Pull> pulls, Span<double> readouts) {
  open(pulls);
  for_tiles(1, [&](Lane& lane, Memory& memory, const Tile& tile) {
    run_forward(memory, tile, readouts);
    if (lane.found.counts) memory.worker->find_extrapolations(lane.found);
    lane.cotangents.resize(tile.count * columns_);
    for (std::size_t p = 0; p < pulls.size(); ++p) {
      for (std::size_t k = 0; k < lane.cotangents.size(); ++k)
        lane.cotangents[k] = pulls[p].cotangents[k % columns_];
      run_reverse(lane, memory, lane.cotangents, lane.sums[p]);
    }
  });
  close(pulls);
}

void CpuRows::open(Span<const Pull> pulls) {
  for (std::size_t t = 0; t < lanes_.size(); ++t) lanes_[t]->open(pulls, found_, t == 0);
}

void CpuRows::close(Span<const Pull> pulls) {
  for (std::size_t t = 0; t < lanes_.size(); ++t) {
    const Lane& lane = *lanes_[t];
    for (std::size_t p = 0; p < pulls.size(); ++p) {
      const EdgeSums &to = pulls[p].sums, &from = lane.sums[p];
      add(to.virial, from.virial);
      if (t == 0) continue;
      add(to.forces, from.forces);
      add(to.virials, from.virials);
      add(to.centroid_virials, from.centroid_virials);
    }
    if (t == 0) continue;
    for (std::size_t k = 0; k < lane.counts.size() && found_.counts; ++k) {
      found_.counts[k] += lane.counts[k];
      found_.lowest[k] = std::min(found_.lowest[k], lane.lowest[k]);
      found_.highest[k] = std::max(found_.highest[k], lane.highest[k]);
    }
  }
}

}  // namespace nearsight
