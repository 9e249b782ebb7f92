#include "core/engine/evaluator.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/couple/polarization.hpp"
#include "core/engine/error.hpp"

namespace nearsight {
namespace {

/// Centers that workers remember while a couple waits for the readouts of all; for others they run forward
/// twice. Edges and features take some KB for each.
constexpr std::size_t kMostKept = 16384;
constexpr std::size_t kNoTile = static_cast<std::size_t>(-1);

/// The arrays that every thread adds to, whatever its atoms.
std::array<Span<double>*, 6> shared_arrays(Results& r) {
  return {&r.forces, &r.virials, &r.centroid_virials, &r.member_forces, &r.member_virials, &r.charge_flows};
}

/// Adds the edges' shares to arrays of atoms, null where not wanted, and to virial[6].
void scatter(const Graph& graph, const std::vector<double>& edge_gradients, double* forces, double* virials,
             double* centroid, double* virial) {
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
  for (int a = 0; a < 6; ++a) virial[a] += total[a];
}

}  // namespace

/// A worker, and the tile that it remembers between forward and reverse.
struct Evaluator::Memory {
  std::unique_ptr<Worker> worker;
  EdgeBuffer edges;
  std::size_t tile = kNoTile;
};

struct Evaluator::Lane {
  std::vector<Memory> memories;  // of its first tiles; all others share the last one
  std::vector<double> edge_gradients, cotangents;
  Results results;  // the arrays are the host's in the first thread, else those below
  std::vector<double> arrays[6], lowest, highest;
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
};

Evaluator::Evaluator(std::shared_ptr<const Model> model, const EvaluatorOptions& options, Host host)
    : model_(std::move(model)),
      couple_(make_couple(model_->file().couple, model_->file().species,
                          {options.double_precision, options.device, options.device_index})),
      dispersion_(model_->adds_dispersion()
                      ? make_dispersion(*model_->dispersion(), options.double_precision, host.ranks)
                      : nullptr),
      host_(std::move(host)),
      exchanges_(host_.exchange && model_->potential().exchange_width() > 0),
      threads_(std::max(1, options.num_threads)),
      verlet_(model_->file().cutoff, options.skin) {
  if (options.device == Device::cuda) {
    device_ = make_cuda_worker(model_->file(), {options.double_precision, options.device_index, options.skin,
                                                exchanges_ ? &host_.exchange : nullptr});
    return;
  }
  // A potential that wants the whole graph at once brings its own threads.
  const int lanes = model_->potential().tile() ? threads_.size() : 1;
  const WorkerOptions of_workers{options.double_precision, lanes == 1 ? threads_.size() : 1,
                                 exchanges_ ? &host_.exchange : nullptr};
  for (int t = 0; t < lanes; ++t) lanes_.push_back(std::make_unique<Lane>(model_->potential(), of_workers));
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

void Evaluator::evaluate(Span<const double> positions, Span<const int> species, Cell cell,
                         const Outside& outside, Results& results) {
  evaluate_system(positions, nullptr, species, cell, outside, results);
}

void Evaluator::evaluate(const DeviceArrays& arrays, Span<const int> species, const Cell& cell,
                         const Outside& outside, Results& results) {
  if (!device_)
    throw Error(ErrorKind::argument,
                "a system in the memory of a GPU was given, but this evaluator was made for device cpu: make "
                "it for device cuda, or give a system in the host's memory");
  const bool is_seen = couple_->channels() > 0 || dispersion_;  // by what is evaluated on the host
  host_positions_.resize(is_seen ? 3 * species.size() : 0);
  host_forces_.assign(arrays.forces ? host_positions_.size() : 0, 0.0);
  if (is_seen) device_->read_positions(arrays, host_positions_);
  results.forces = host_forces_.empty() ? Span<double>() : host_forces_;
  evaluate_system(host_positions_, &arrays, species, cell, outside, results);
  if (results.forces) device_->add_forces(results.forces, arrays);
}

void Evaluator::evaluate_system(Span<const double> positions, const DeviceArrays* arrays,
                                Span<const int> species, Cell cell, const Outside& outside,
                                Results& results) {
  // Rows of open directions may hold anything; they must not reach an edge as 0 · NaN.
  for (int a = 0; a < 3; ++a)
    if (!cell.pbc[a]) std::fill_n(cell.vectors.begin() + 3 * a, 3, 0.0);
  if (!std::equal(species.begin(), species.end(), last_species_.begin(), last_species_.end())) {
    last_species_.assign(species.begin(), species.end());
    last_memory_.assign(species.size() * couple_->memory(), 0.0);
  }
  const Domain domain{species.size(), positions, species, cell, outside, last_memory_, arrays};
  check(domain);
  owned_.clear();
  for (std::size_t i = 0; i < species.size(); ++i)
    if (species[i] >= 0) owned_.push_back(static_cast<int>(i));
  run(domain, owned_, results, [&] {
    if (device_) return run_on_device(domain, cell, owned_, {}, results);
    const NeighborList& list = verlet_.update(positions, cell, threads_);
    run_here(
        domain, owned_, {},
        [&](EdgeBuffer& edges, int i) { edges.append(domain, model_->file().cutoff, i, list, cell); },
        results);
  });
}

void Evaluator::evaluate(const Domain& domain, const HostList& list, Results& results) {
  check(domain);
  owned_.clear();
  ghosts_.clear();
  for (const int i : list.centers) {
    if (domain.species[i] < 0) continue;
    if (static_cast<std::size_t>(i) < domain.num_owned)
      owned_.push_back(i);
    else if (model_->file().num_interactions > 1 && !exchanges_)
      ghosts_.push_back(i);
  }
  run(domain, owned_, results, [&] {
    if (device_) return run_on_device(domain, {}, owned_, ghosts_, results);
    run_here(
        domain, owned_, ghosts_,
        [&](EdgeBuffer& edges, int i) { edges.append(domain, model_->file().cutoff, i, list); }, results);
  });
}

void Evaluator::check(const Results& wanted) const {
  if ((wanted.virials || wanted.centroid_virials) && !model_->has_atom_virials())
    throw Error(
        ErrorKind::unsupported,
        "virials of atoms are not defined for the electrostatics of this model, of which the mesh knows "
        "only the sum: ask for the total virial");
  if (wanted.centroid_virials && !model_->has_centroid_virials())
    throw Error(
        ErrorKind::unsupported,
        "virials in centroid form (heat flux) need a model with one interaction layer whose energy is "
        "a sum over atoms without dispersion, and this model is none: use virials with half of each edge to "
        "each end");
  if ((wanted.charges || wanted.potentials) && couple_->channels() == 0)
    throw Error(ErrorKind::unsupported,
                "'" + model_->file().path + "' has no charges: ask for them of a model with long_range");
  if (wanted.born_charges && couple_->channels() > 0 && !couple_->has_born_charges())
    throw Error(
        ErrorKind::unsupported,
        "Born effective charges of equilibrated charges, which depend on all atoms, are not computed: "
        "take forces in a field");
  if (wanted.born_charges && (couple_->channels() == 0 || model_->file().num_interactions > 1))
    throw Error(ErrorKind::unsupported,
                "Born effective charges need a model with charges and one interaction "
                "layer, and '" +
                    model_->file().path + "' is none: take forces in a field");
  if (wanted.born_charges && host_.ranks.size > 1)
    throw Error(ErrorKind::unsupported,
                "Born effective charges are computed in one process: ask for them with one rank");
  if ((wanted.member_energies || wanted.member_forces || wanted.member_virials) && model_->num_members() < 2)
    throw Error(ErrorKind::unsupported, "'" + model_->file().path +
                                            "' is no committee, so there are no results of its members: "
                                            "merge several models with `nearsight committee`");
  if (wanted.extrapolations.counts && device_)
    throw Error(ErrorKind::unsupported,
                "extrapolations are found on the CPU only: use device cpu, or do not ask for them");
  if (wanted.extrapolations.counts && model_->potential().features().empty())
    throw Error(ErrorKind::unsupported,
                "'" + model_->file().path + "' with backend " + model_->backend() +
                    " knows no ranges of its features in the training set, so extrapolations cannot be "
                    "found: take backend native and a model that was trained with them");
}

void Evaluator::check(const Outside& outside, const Results& wanted) const {
  const bool has_field = norm(outside.field) > 0.0;
  if (couple_->channels() == 0 && (outside.total_charge || outside.has_molecules() || has_field))
    throw Error(ErrorKind::argument, std::string(outside.total_charge      ? "a total charge"
                                                 : outside.has_molecules() ? "the charge of a molecule"
                                                                           : "an electric field") +
                                         " was given, but '" + model_->file().path +
                                         "' has no electrostatics: leave it out");
  if (!outside.has_molecules()) return;
  if (outside.total_charge)
    throw Error(ErrorKind::argument,
                "a total charge and charges of molecules were both given: leave one of them out, since the "
                "molecules add up to the total");
  if (wanted.born_charges)
    throw Error(ErrorKind::unsupported,
                "Born effective charges are not computed where molecules have charges of their own: take "
                "forces in a field, or give a total charge instead");
}

/// `parts` are the three steps, on the CPU or a device.
void Evaluator::run(const Domain& domain, Span<const int> owned, Results& results,
                    const std::function<void()>& parts) {
  check(results);
  check(domain.outside, results);
  const std::size_t columns = couple_->columns(), rows = owned.size();
  readouts_.resize(rows * columns);
  cotangents_.resize(rows * columns);
  energies_.resize(rows);
  if (couple_->channels() > 0 || dispersion_) gather_owned(domain, owned);
  if (results.born_charges) {
    charge_flows_.assign(12 * domain.species.size(), 0.0);
    results.charge_flows = charge_flows_;
  }
  parts();
  if (results.born_charges) {
    const Span<double> flows(charge_flows_.data(), 9 * domain.species.size());
    const Span<double> gradients(flows.end(), 3 * domain.species.size());
    add_born_charges({owned, domain.positions, charges_, shares_, flows, gradients}, domain.cell,
                     results.born_charges);
  }
  add_energies(domain, owned, results);
  if (dispersion_) add_dispersion(domain, owned, results);
}

void Evaluator::run_here(const Domain& domain, Span<const int> owned, Span<const int> ghosts,
                         const Append& append, Results& results) {
  const std::size_t columns = couple_->columns(), rows = owned.size();
  const std::size_t tile =
      model_->potential().tile() ? model_->potential().tile() : std::max<std::size_t>(rows, 1);
  const std::size_t num_tiles = std::max<std::size_t>(1, (rows + tile - 1) / tile);
  open_lanes(results);

  // The same three steps on any tile, a range of rows.
  struct Part {
    std::size_t tile, first, count;
  };
  const auto forward = [&](Memory& memory, const Part& part) {
    memory.edges.clear();
    for (std::size_t row = part.first; row < part.first + part.count; ++row) append(memory.edges, owned[row]);
    for (const int i : ghosts) append(memory.edges, i);
    memory.worker->forward(memory.edges.graph(domain),
                           {readouts_.data() + part.first * columns, part.count * columns});
    memory.tile = part.tile;
  };
  const auto reverse = [&](Lane& lane, Memory& memory, const Part& part) {
    Results& r = lane.results;
    const Graph graph = memory.edges.graph(domain);
    if (r.extrapolations.counts) memory.worker->find_extrapolations(r.extrapolations);
    lane.edge_gradients.resize(3 * graph.num_edges());
    memory.worker->reverse(graph, {cotangents_.data() + part.first * columns, part.count * columns},
                           lane.edge_gradients);
    scatter(graph, lane.edge_gradients, r.forces.data(), r.virials.data(), r.centroid_virials.data(),
            r.virial);
    if (r.member_forces || r.member_virials) reverse_members(lane, memory, graph, part.count);
    if (r.born_charges && !couple_->is_additive()) reverse_charges(lane, memory, graph, part.first);
  };
  // Calls body(lane, memory, part) for every tile; a thread always has the same tiles.
  const bool at_once = couple_->is_local() || couple_->is_additive();
  const std::size_t most_kept = at_once ? 1 : std::max<std::size_t>(1, kMostKept / tile / lanes_.size());
  const auto for_tiles = [&](const std::function<void(Lane&, Memory&, const Part&)>& body) {
    const auto work = [&](int thread, std::size_t first, std::size_t last) {
      Lane& lane = *lanes_[thread];
      lane.keep(std::min(last - first, most_kept));
      for (std::size_t k = first; k < last; ++k) {
        Memory& memory = lane.memories[std::min(k - first, lane.memories.size() - 1)];
        body(lane, memory, {k, k * tile, std::min(tile, rows - k * tile)});
      }
    };
    if (lanes_.size() == 1)
      work(0, 0, num_tiles);
    else
      threads_.split(num_tiles, work);
  };

  if (at_once) {
    if (couple_->is_additive()) std::fill(cotangents_.begin(), cotangents_.end(), 1.0);
    for_tiles([&](Lane& lane, Memory& memory, const Part& part) {
      forward(memory, part);
      if (couple_->is_local()) join(domain, owned, part.first, part.count, results);
      reverse(lane, memory, part);
    });
    if (couple_->is_additive()) join(domain, owned, 0, rows, results);
  } else {
    for_tiles([&](Lane&, Memory& memory, const Part& part) { forward(memory, part); });
    join(domain, owned, 0, rows, results);
    for_tiles([&](Lane& lane, Memory& memory, const Part& part) {
      if (memory.tile != part.tile) forward(memory, part);
      reverse(lane, memory, part);
    });
  }
  close_lanes(results);
}

/// Members of a committee and Born charges need further reverses, as on the CPU.
void Evaluator::run_on_device(const Domain& domain, const Cell& cell, Span<const int> owned,
                              Span<const int> ghosts, Results& results) {
  const std::size_t columns = couple_->columns(), rows = owned.size(), members = model_->num_members();
  EdgeSums sums{results.forces, results.virials, results.centroid_virials, {results.virial, 6}};
  if (domain.arrays) {
    sums.forces = {};
    sums.device_forces = domain.arrays->forces;
    device_->load(*domain.arrays, domain.species, cell, owned);
  } else {
    device_->load(domain.positions, domain.species, cell, owned, ghosts);
  }
  const bool again =
      results.member_forces || results.member_virials || (results.born_charges && !couple_->is_additive());
  if ((couple_->is_local() || couple_->is_additive()) && !again) {
    const std::vector<double> cotangents(columns, 1.0 / members);
    device_->evaluate(cotangents, readouts_, sums);
    join(domain, owned, 0, rows, results);
    return;
  }
  device_->forward(readouts_);
  join(domain, owned, 0, rows, results);
  device_->reverse(cotangents_, sums);
  double unwanted[6] = {};
  for (std::size_t m = 0; again && members > 1 && m < members; ++m) {
    const std::size_t width = results.member_forces.size() / members;
    std::fill(cotangents_.begin(), cotangents_.end(), 0.0);
    for (std::size_t row = 0; row < rows; ++row) cotangents_[row * members + m] = 1.0;
    const Span<double> virials = results.member_virials;
    device_->reverse(cotangents_, {width ? results.member_forces.subspan(m * width, width) : Span<double>(),
                                   {},
                                   {},
                                   {virials ? virials.data() + 6 * m : unwanted, 6}});
  }
  if (results.born_charges && !couple_->is_additive()) {
    const std::size_t atoms = domain.species.size();
    device_->reverse(charge_cotangents_, {{charge_flows_.data() + 9 * atoms, 3 * atoms},
                                          {},
                                          {charge_flows_.data(), 9 * atoms},
                                          {unwanted, 6}});
  }
}

/// The couple of a range of rows.
void Evaluator::join(const Domain& domain, Span<const int> owned, std::size_t first, std::size_t count,
                     Results& results) {
  if (couple_->channels() > 0) return join_charges(domain, owned, results);
  const std::size_t columns = couple_->columns();
  const Coupled system{
      Span<const double>(readouts_.data() + first * columns, count * columns), {}, {}, {}, {}, {}};
  Joined joined;
  joined.cotangents = Span<double>(cotangents_.data() + first * columns, count * columns);
  joined.energies = Span<double>(energies_.data() + first, count);
  couple_->evaluate(system, host_.ranks, threads_, joined);
}

/// The couple of all rows, which adds forces and a virial of its own.
void Evaluator::join_charges(const Domain& domain, Span<const int> owned, Results& results) {
  const std::size_t rows = owned.size(), channels = couple_->channels(), width = couple_->memory();
  memory_.assign(width * rows, 0.0);
  for (std::size_t row = 0; row < rows && domain.memory; ++row)
    std::copy_n(domain.memory.data() + width * owned[row], width, memory_.data() + width * row);
  direct_.assign(3 * rows, 0.0);
  charges_.resize(rows * channels);
  potentials_.resize(rows * channels);
  Joined joined;
  joined.cotangents = cotangents_;
  joined.energies = energies_;
  joined.forces = direct_;
  joined.virial = Span<double>(results.virial, 6);
  joined.charges = charges_;
  joined.potentials = potentials_;
  if (results.born_charges) {
    charge_cotangents_.resize(cotangents_.size());
    shares_.resize(rows);
    joined.charge_cotangents = charge_cotangents_;
    joined.shares = shares_;
  }
  Outside outside = domain.outside;
  outside.molecules = molecules_;
  couple_->evaluate({readouts_, positions_, species_, domain.cell, outside, memory_}, host_.ranks, threads_,
                    joined);
  results.electrostatic += joined.electrostatic;
  results.steps = joined.steps;
  results.times = joined.times;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = owned[row];
    if (results.forces)
      for (int a = 0; a < 3; ++a) results.forces[3 * i + a] += direct_[3 * row + a];
    if (domain.memory) std::copy_n(memory_.data() + width * row, width, domain.memory.data() + width * i);
    for (std::size_t c = 0; c < channels; ++c) {
      if (results.charges) results.charges[i * channels + c] += charges_[row * channels + c];
      if (results.potentials) results.potentials[i * channels + c] += potentials_[row * channels + c];
    }
  }
}

void Evaluator::open_lanes(const Results& results) {
  for (std::size_t t = 0; t < lanes_.size(); ++t) {
    Lane& lane = *lanes_[t];
    lane.results = results;
    std::fill(std::begin(lane.results.virial), std::end(lane.results.virial), 0.0);
    if (t == 0) continue;
    const auto arrays = shared_arrays(lane.results);
    for (std::size_t k = 0; k < arrays.size(); ++k) {
      if (!*arrays[k]) continue;
      lane.arrays[k].assign(arrays[k]->size(), 0.0);
      *arrays[k] = lane.arrays[k];
    }
    Extrapolations& found = lane.results.extrapolations;
    if (!found.counts) continue;
    lane.counts.assign(found.counts.size(), 0);
    lane.lowest.assign(found.lowest.begin(), found.lowest.end());
    lane.highest.assign(found.highest.begin(), found.highest.end());
    found = {lane.counts, lane.lowest, lane.highest};
  }
}

/// Members share everything but the cotangents, which are 1 in the member's own column.
void Evaluator::reverse_members(Lane& lane, Memory& memory, const Graph& graph, std::size_t rows) const {
  const std::size_t members = model_->num_members();
  const Span<double> forces = lane.results.member_forces, virials = lane.results.member_virials;
  const std::size_t width = forces.size() / members;
  for (std::size_t m = 0; m < members; ++m) {
    lane.cotangents.assign(rows * members, 0.0);
    for (std::size_t row = 0; row < rows; ++row) lane.cotangents[row * members + m] = 1.0;
    memory.worker->reverse(graph, lane.cotangents, lane.edge_gradients);
    double unwanted[6] = {};
    scatter(graph, lane.edge_gradients, forces ? forces.data() + m * width : nullptr, nullptr, nullptr,
            virials ? virials.data() + 6 * m : unwanted);
  }
}

/// How the charges of centers move with their neighbors; see MovingCharges.
void Evaluator::reverse_charges(Lane& lane, Memory& memory, const Graph& graph, std::size_t first) const {
  const std::size_t columns = couple_->columns(), atoms = charge_flows_.size() / 12;
  const Span<const double> cotangents(charge_cotangents_.data() + first * columns, graph.num_rows * columns);
  memory.worker->reverse(graph, cotangents, lane.edge_gradients);
  double* const flows = lane.results.charge_flows.data();
  double unwanted[6] = {};
  scatter(graph, lane.edge_gradients, flows + 9 * atoms, nullptr, flows, unwanted);
}

void Evaluator::close_lanes(Results& results) const {
  const auto targets = shared_arrays(results);
  for (std::size_t t = 0; t < lanes_.size(); ++t) {
    Results& part = lanes_[t]->results;
    for (int a = 0; a < 6; ++a) results.virial[a] += part.virial[a];
    if (t == 0) continue;
    const auto arrays = shared_arrays(part);
    for (std::size_t n = 0; n < arrays.size(); ++n)
      for (std::size_t k = 0; k < arrays[n]->size(); ++k) (*targets[n])[k] += (*arrays[n])[k];
    Extrapolations &found = results.extrapolations, &more = part.extrapolations;
    for (std::size_t k = 0; k < more.counts.size(); ++k) {
      found.counts[k] += more.counts[k];
      found.lowest[k] = std::min(found.lowest[k], more.lowest[k]);
      found.highest[k] = std::max(found.highest[k], more.highest[k]);
    }
  }
}

void Evaluator::add_energies(const Domain& domain, Span<const int> owned, Results& results) const {
  const std::size_t members = results.member_energies.size();
  double energy = 0.0;
  for (std::size_t row = 0; row < owned.size(); ++row) {
    const double reference = model_->file().reference_energies[domain.species[owned[row]]];
    const double share = energies_[row] + reference;
    energy += share;
    if (results.energies) results.energies[owned[row]] += share;
    for (std::size_t m = 0; m < members; ++m)
      results.member_energies[m] += readouts_[row * members + m] + reference;
  }
  results.energy += energy;
  if (!std::isfinite(energy))
    throw Error(ErrorKind::numeric,
                "the energy is not a finite number: the structure is far outside what the model "
                "was trained on, or the simulation has become unstable");
}

void Evaluator::gather_owned(const Domain& domain, Span<const int> owned) {
  positions_.resize(3 * owned.size());
  species_.resize(owned.size());
  for (std::size_t row = 0; row < owned.size(); ++row) {
    std::copy_n(domain.positions.data() + 3 * owned[row], 3, positions_.data() + 3 * row);
    species_[row] = domain.species[owned[row]];
  }
  molecules_.clear();
  if (!domain.outside.has_molecules()) return;
  const int num_molecules = static_cast<int>(domain.outside.molecule_charges.size());
  for (const int i : owned) {
    molecules_.push_back(domain.outside.molecules[i]);
    if (molecules_.back() < 0 || molecules_.back() >= num_molecules)
      throw Error(ErrorKind::argument, "atom " + std::to_string(i) +
                                           " (counted from 0) has molecule number " +
                                           std::to_string(molecules_.back()) + ", expected 0 to " +
                                           std::to_string(num_molecules - 1) + " of the " +
                                           std::to_string(num_molecules) + " molecules with charges");
  }
}

/// Members of a committee all get the same.
void Evaluator::add_dispersion(const Domain& domain, Span<const int> owned, Results& results) {
  const std::size_t rows = owned.size();
  direct_.assign(3 * rows, 0.0);
  energies_.assign(rows, 0.0);
  virials_.assign(6 * rows, 0.0);
  Dispersed found;
  found.forces = direct_;
  found.energies = energies_;
  found.virials = virials_;
  dispersion_->evaluate(positions_, species_, domain.cell, threads_, found);
  results.energy += found.energy;
  results.dispersion += found.energy;
  for (int a = 0; a < 6; ++a) results.virial[a] += found.virial[a];
  for (std::size_t m = 0; m < results.member_energies.size(); ++m) results.member_energies[m] += found.energy;
  for (std::size_t k = 0; k < results.member_virials.size(); ++k)
    results.member_virials[k] += found.virial[k % 6];
  const std::size_t width = 3 * domain.species.size();
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = owned[row];
    if (results.energies) results.energies[i] += energies_[row];
    for (int a = 0; a < 6 && results.virials; ++a) results.virials[6 * i + a] += virials_[6 * row + a];
    for (int a = 0; a < 3; ++a) {
      if (results.forces) results.forces[3 * i + a] += direct_[3 * row + a];
      for (std::size_t m = 0; m * width < results.member_forces.size(); ++m)
        results.member_forces[m * width + 3 * i + a] += direct_[3 * row + a];
    }
  }
}

}  // namespace nearsight
