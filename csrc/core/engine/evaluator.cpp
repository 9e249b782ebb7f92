#include "core/engine/evaluator.hpp"

#include <algorithm>
#include <cmath>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

// Order of the nine components: xx, yy, zz, xy, xz, yz, yx, zx, zy.
constexpr int kCentroidRow[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
constexpr int kCentroidColumn[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};

}  // namespace

struct Evaluator::Lane {
  std::unique_ptr<Worker> worker;
  EdgeBuffer edges;
  std::vector<double> edge_gradients;
  std::vector<double> forces, virials, centroid_virials;  // of threads other than the first
  Span<double> force_target, virial_target, centroid_target;
  double energy = 0.0, virial[6] = {};
};

Evaluator::Evaluator(std::shared_ptr<const Model> model, const EvaluatorOptions& options, AllSum all_sum)
    : model_(std::move(model)),
      all_sum_(all_sum ? std::move(all_sum) : [](Span<double>) {}),
      threads_(std::max(1, options.num_threads)),
      verlet_(model_->file().cutoff, options.skin) {
  // A potential that wants the whole graph at once brings its own threads.
  const int lanes = model_->potential().tile() ? threads_.size() : 1;
  for (int t = 0; t < lanes; ++t) {
    lanes_.push_back(std::make_unique<Lane>());
    lanes_.back()->worker = model_->potential().make_worker(options.double_precision);
  }
}

Evaluator::~Evaluator() = default;

void Evaluator::check(const Domain& domain) const {
  const int num_species = static_cast<int>(model_->file().species.size());
  for (std::size_t i = 0; i < domain.species.size(); ++i)
    if (domain.species[i] < -1 || domain.species[i] >= num_species)
      throw Error(ErrorKind::argument, "atom " + std::to_string(i) + " (counted from 0) has species number " +
                                           std::to_string(domain.species[i]) + ", expected -1 to " +
                                           std::to_string(num_species - 1) + " of this model");
  // One sum finds any value that is not finite.
  double sum = 0.0;
  for (const double x : domain.positions) sum += x * 0.0;
  if (sum != 0.0 || std::isnan(sum))
    throw Error(ErrorKind::numeric,
                "a position is not a finite number: the simulation has become unstable, or the "
                "input is damaged; check the time step and the starting geometry");
}

void Evaluator::evaluate(Span<const double> positions, Span<const int> species, Cell cell, Results& results) {
  // Rows of open directions may hold anything; they must not reach an edge as 0 · NaN.
  for (int a = 0; a < 3; ++a)
    if (!cell.pbc[a]) std::fill_n(cell.vectors.begin() + 3 * a, 3, 0.0);
  const Domain domain{species.size(), positions, species};
  check(domain);
  const NeighborList& list = verlet_.update(positions, cell, threads_);
  owned_.clear();
  for (std::size_t i = 0; i < species.size(); ++i)
    if (species[i] >= 0) owned_.push_back(static_cast<int>(i));
  run(
      domain, owned_, {},
      [&](EdgeBuffer& edges, int i) { edges.append(domain, model_->file().cutoff, i, list, cell); }, results);
}

void Evaluator::evaluate(const Domain& domain, const HostList& list, Results& results) {
  check(domain);
  owned_.clear();
  ghosts_.clear();
  for (const int i : list.centers) {
    if (domain.species[i] < 0) continue;
    if (static_cast<std::size_t>(i) < domain.num_owned)
      owned_.push_back(i);
    else if (model_->file().num_interactions > 1)
      ghosts_.push_back(i);
  }
  run(
      domain, owned_, ghosts_,
      [&](EdgeBuffer& edges, int i) { edges.append(domain, model_->file().cutoff, i, list); }, results);
}

void Evaluator::run(const Domain& domain, Span<const int> owned, Span<const int> ghosts, const Append& append,
                    Results& results) {
  if (results.centroid_virials && !model_->has_centroid_virials())
    throw Error(
        ErrorKind::unsupported,
        "virials in centroid form (heat flux) need a model with one interaction layer whose energy is "
        "a sum over atoms, and this model is none: use virials with half of each edge to each end");
  const Couple& couple = model_->couple();
  const std::size_t columns = couple.columns(), rows = owned.size();
  const std::size_t tile =
      model_->potential().tile() ? model_->potential().tile() : std::max<std::size_t>(rows, 1);
  const std::size_t num_tiles = std::max<std::size_t>(1, (rows + tile - 1) / tile);
  readouts_.resize(rows * columns);
  cotangents_.resize(rows * columns);
  energies_.resize(rows);

  for (std::size_t t = 0; t < lanes_.size(); ++t) {
    Lane& lane = *lanes_[t];
    lane.energy = 0.0;
    std::fill(std::begin(lane.virial), std::end(lane.virial), 0.0);
    lane.force_target = results.forces;
    lane.virial_target = results.virials;
    lane.centroid_target = results.centroid_virials;
    if (t == 0) continue;
    lane.forces.assign(results.forces.size(), 0.0);
    lane.virials.assign(results.virials.size(), 0.0);
    lane.centroid_virials.assign(results.centroid_virials.size(), 0.0);
    lane.force_target = lane.forces;
    lane.virial_target = lane.virials;
    lane.centroid_target = lane.centroid_virials;
  }

  // The same three steps on any range of rows.
  const auto forward = [&](Lane& lane, std::size_t first, std::size_t count) {
    lane.edges.clear();
    for (std::size_t row = first; row < first + count; ++row) append(lane.edges, owned[row]);
    for (const int i : ghosts) append(lane.edges, i);
    const Graph graph = lane.edges.graph(domain);
    lane.worker->forward(graph, Span<double>(readouts_.data() + first * columns, count * columns));
    return graph;
  };
  const auto evaluate_couple = [&](std::size_t first, std::size_t count) {
    couple.evaluate(Span<const double>(readouts_.data() + first * columns, count * columns), all_sum_,
                    Span<double>(cotangents_.data() + first * columns, count * columns),
                    Span<double>(energies_.data() + first, count));
  };
  const auto reverse = [&](Lane& lane, const Graph& graph, std::size_t first, std::size_t count) {
    lane.edge_gradients.resize(3 * graph.num_edges());
    lane.worker->reverse(graph, Span<const double>(cotangents_.data() + first * columns, count * columns),
                         lane.edge_gradients);
    scatter(lane, graph, results);
  };
  // Calls body(lane, first row, rows) for every tile; a thread always has the same tiles.
  const auto for_tiles = [&](const std::function<void(Lane&, std::size_t, std::size_t)>& body) {
    if (lanes_.size() == 1) {
      for (std::size_t k = 0; k < num_tiles; ++k) body(*lanes_[0], k * tile, std::min(tile, rows - k * tile));
      return;
    }
    threads_.split(num_tiles, [&](int thread, std::size_t first, std::size_t last) {
      for (std::size_t k = first; k < last; ++k)
        body(*lanes_[thread], k * tile, std::min(tile, rows - k * tile));
    });
  };

  if (couple.is_local()) {
    for_tiles([&](Lane& lane, std::size_t first, std::size_t count) {
      const Graph graph = forward(lane, first, count);
      evaluate_couple(first, count);
      reverse(lane, graph, first, count);
    });
  } else {
    for_tiles([&](Lane& lane, std::size_t first, std::size_t count) { forward(lane, first, count); });
    evaluate_couple(0, rows);
    for_tiles([&](Lane& lane, std::size_t first, std::size_t count) {
      // With a single tile the worker still remembers it.
      const Graph graph = num_tiles == 1 ? lane.edges.graph(domain) : forward(lane, first, count);
      reverse(lane, graph, first, count);
    });
  }

  for (std::size_t t = 0; t < lanes_.size(); ++t) {
    const Lane& lane = *lanes_[t];
    for (int a = 0; a < 6; ++a) results.virial[a] += lane.virial[a];
    if (t == 0) continue;
    for (std::size_t k = 0; k < lane.forces.size(); ++k) results.forces[k] += lane.forces[k];
    for (std::size_t k = 0; k < lane.virials.size(); ++k) results.virials[k] += lane.virials[k];
    for (std::size_t k = 0; k < lane.centroid_virials.size(); ++k)
      results.centroid_virials[k] += lane.centroid_virials[k];
  }
  double energy = 0.0;
  for (std::size_t row = 0; row < rows; ++row) {
    const double share = energies_[row] + model_->file().reference_energies[domain.species[owned[row]]];
    energy += share;
    if (results.energies) results.energies[owned[row]] += share;
  }
  results.energy += energy;
  if (!std::isfinite(energy))
    throw Error(ErrorKind::numeric,
                "the energy is not a finite number: the structure is far outside what the model "
                "was trained on, or the simulation has become unstable");
}

void Evaluator::scatter(Lane& lane, const Graph& graph, const Results& results) const {
  double* const forces = lane.force_target.data();
  double* const virials = results.virials ? lane.virial_target.data() : nullptr;
  double* const centroid = results.centroid_virials ? lane.centroid_target.data() : nullptr;
  double total[6] = {};
  for (std::size_t c = 0; c < graph.centers.size(); ++c) {
    const int i = graph.centers[c];
    double own[3] = {};
    for (auto e = graph.offsets[c]; e < graph.offsets[c + 1]; ++e) {
      const double* const r = &graph.vectors[3 * e];
      const double* const g = &lane.edge_gradients[3 * e];
      const int j = graph.neighbors[e];
      // dE/dr_i = -g and dE/dr_j = +g, since r_ij = r_j - r_i.
      if (forces)
        for (int a = 0; a < 3; ++a) own[a] += g[a], forces[3 * j + a] -= g[a];
      // Half of the mixed components from each order: symmetric also for a model that is not quite invariant.
      const double w[6] = {-r[0] * g[0],
                           -r[1] * g[1],
                           -r[2] * g[2],
                           -0.5 * (r[0] * g[1] + r[1] * g[0]),
                           -0.5 * (r[0] * g[2] + r[2] * g[0]),
                           -0.5 * (r[1] * g[2] + r[2] * g[1])};
      for (int a = 0; a < 6; ++a) total[a] += w[a];
      if (virials)
        for (int a = 0; a < 6; ++a) virials[6 * i + a] += 0.5 * w[a], virials[6 * j + a] += 0.5 * w[a];
      if (centroid)
        for (int k = 0; k < 9; ++k) centroid[9 * j + k] -= r[kCentroidRow[k]] * g[kCentroidColumn[k]];
    }
    if (forces)
      for (int a = 0; a < 3; ++a) forces[3 * i + a] += own[a];
  }
  for (int a = 0; a < 6; ++a) lane.virial[a] += total[a];
}

}  // namespace nearsight
