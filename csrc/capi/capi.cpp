#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>

#include "core/engine/error.hpp"
#include "core/engine/evaluator.hpp"
#include "nearsight.h"

using namespace nearsight;

struct ns_model {
  std::shared_ptr<const Model> model;
};
struct ns_evaluator {
  Evaluator evaluator;
};

namespace {

/// A buffer that never moves: callers may take its address before the call that fills it.
thread_local char last_error[4096] = "";

ns_status fail(ns_status status, const std::string& sentence) {
  std::snprintf(last_error, sizeof(last_error), "%s", sentence.c_str());
  return status;
}

/// The exception firewall: runs body, turns what it throws into a status and a sentence.
template <class Body>
ns_status guarded(const Body& body) {
  try {
    body();
    return fail(NS_OK, "");
  } catch (const Error& e) {
    return fail(static_cast<ns_status>(e.kind()), e.what());
  } catch (const std::bad_alloc&) {
    return fail(NS_ERROR_INTERNAL, "out of memory: use more ranks, or a smaller system");
  } catch (const std::exception& e) {
    return fail(NS_ERROR_INTERNAL, std::string("internal error, please report it: ") + e.what());
  } catch (...) {
    return fail(NS_ERROR_INTERNAL, "internal error of unknown kind, please report it");
  }
}

void require(bool condition, const char* message) {
  if (!condition) throw Error(ErrorKind::argument, message);
}

template <class Struct>
void require_struct(const Struct* s, const char* name) {
  if (!s || s->struct_size != sizeof(Struct))
    throw Error(ErrorKind::argument,
                std::string(name) +
                    " is missing or its struct_size is not sizeof: compile against the nearsight.h "
                    "of the library that is loaded");
}

Results wrap(const ns_results& r, const Model& model, std::size_t num_owned, std::size_t num_atoms) {
  const std::size_t members = model.num_members(), features = model.potential().features().size();
  require(!r.extrapolations == !r.lowest_features && !r.extrapolations == !r.highest_features,
          "ns_results: extrapolations, lowest_features and highest_features must be given together");
  Results results;
  if (r.member_energies) results.member_energies = Span<double>(r.member_energies, members);
  if (r.member_forces) results.member_forces = Span<double>(r.member_forces, members * 3 * num_atoms);
  if (r.member_virials) results.member_virials = Span<double>(r.member_virials, members * 6);
  if (r.extrapolations)
    results.extrapolations = {Span<long long>(r.extrapolations, features),
                              Span<double>(r.lowest_features, features),
                              Span<double>(r.highest_features, features)};
  if (r.forces) results.forces = Span<double>(r.forces, 3 * num_atoms);
  const std::size_t channels = model.num_charges();
  if (r.charges) results.charges = Span<double>(r.charges, num_owned * channels);
  if (r.potentials) results.potentials = Span<double>(r.potentials, num_owned * channels);
  if (r.born_charges) results.born_charges = Span<double>(r.born_charges, 9 * num_atoms);
  if (r.energies) results.energies = Span<double>(r.energies, num_owned);
  if (r.virials) results.virials = Span<double>(r.virials, 6 * num_atoms);
  if (r.centroid_virials) results.centroid_virials = Span<double>(r.centroid_virials, 9 * num_atoms);
  return results;
}

void require_system(const ns_system* system, const ns_results* results) {
  require_struct(system, "ns_system");
  require_struct(results, "ns_results");
  require(system->num_atoms == 0 || (system->num_atoms > 0 && system->positions && system->species),
          "ns_system: positions and species must not be NULL");
}

Cell read_cell(const double* vectors, const int* pbc, const char* name) {
  Cell cell;
  for (int a = 0; a < 3; ++a) cell.pbc[a] = pbc[a] != 0;
  if (vectors)
    std::copy(vectors, vectors + 9, cell.vectors.begin());
  else if (cell.pbc[0] || cell.pbc[1] || cell.pbc[2])
    throw Error(ErrorKind::argument, std::string(name) + ": periodic directions need a cell, found NULL");
  return cell;
}

/// What ns_system and ns_domain have in common; `num_atoms` have molecules.
template <class System>
Outside read_outside(const System& system, std::size_t num_atoms) {
  Outside outside;
  if (system.total_charge) outside.total_charge = *system.total_charge;
  if (system.efield) std::copy(system.efield, system.efield + 3, outside.field.begin());
  require(system.num_molecules > 0
              ? system.molecule_charges && (system.molecules || num_atoms == 0)
              : system.num_molecules == 0 && !system.molecules && !system.molecule_charges,
          "molecules, num_molecules (at least 1) and molecule_charges must be given together");
  outside.molecules = Span<const int>(system.molecules, num_atoms);
  outside.molecule_charges = Span<const double>(system.molecule_charges, system.num_molecules);
  return outside;
}

void give_back(const Results& from, ns_results& to) {
  to.energy = from.energy;
  to.electrostatic = from.electrostatic;
  to.electrostatic_seconds = from.times.total;
  to.communication_seconds = from.times.communication;
  to.transform_seconds = from.times.transforms;
  to.pair_seconds = from.times.pairs;
  to.spreading_seconds = from.times.charges;
  to.equilibration_steps = from.steps;
  to.dispersion = from.dispersion;
  std::copy(std::begin(from.virial), std::end(from.virial), to.virial);
}

void succeed(int status, const char* callback) {
  if (status != 0) throw Error(ErrorKind::internal, std::string("the host's ") + callback + " failed");
}

Host lend(const ns_host* host) {
  if (!host) return {};
  require_struct(host, "ns_host");
  require(!host->exchange_forward == !host->exchange_reverse,
          "ns_host: exchange_forward and exchange_reverse must be given together");
  require(!host->all_sum || (host->rank >= 0 && host->rank < host->num_ranks),
          "ns_host: all_sum needs num_ranks, at least 1, and rank below it");
  Host lent;
  lent.ranks.rank = host->rank;
  lent.ranks.size = std::max(1, host->num_ranks);
  if (host->all_sum)
    lent.ranks.all_sum = [h = *host](Span<double> values) {
      succeed(h.all_sum(h.context, values.data(), static_cast<int>(values.size())), "all_sum");
    };
  if (host->all_to_all)
    lent.ranks.all_to_all = [h = *host](const char* send, Span<const std::int64_t> send_bytes, char* receive,
                                        Span<const std::int64_t> receive_bytes) {
      succeed(h.all_to_all(h.context, send, send_bytes.data(), receive, receive_bytes.data()), "all_to_all");
    };
  if (host->exchange_forward) {
    lent.exchange.forward = [h = *host](const AtomRows& rows) {
      succeed(h.exchange_forward(h.context, rows.data, rows.width, rows.is_double), "exchange_forward");
    };
    lent.exchange.reverse = [h = *host](const AtomRows& rows) {
      succeed(h.exchange_reverse(h.context, rows.data, rows.width, rows.is_double), "exchange_reverse");
    };
  }
  return lent;
}

}  // namespace

int ns_api_version(void) {
  return NS_API_VERSION;
}
const char* ns_version(void) {
  return NEARSIGHT_VERSION;
}
const char* ns_last_error(void) {
  return last_error;
}
const char* ns_instruction_set(void) {
  return instruction_set();
}

ns_status ns_model_load(const char* path, ns_backend backend, ns_model** model) {
  return guarded([&] {
    require(path && model, "ns_model_load: path and model must not be NULL");
    require(backend >= NS_BACKEND_AUTO && backend <= NS_BACKEND_TORCHSCRIPT,
            "ns_model_load: unknown backend");
    *model = new ns_model{Model::load(path, static_cast<Backend>(backend))};
  });
}
void ns_model_free(ns_model* model) {
  delete model;
}

int ns_model_num_species(const ns_model* m) {
  return static_cast<int>(m->model->file().species.size());
}
const char* ns_model_species(const ns_model* m, int index) {
  if (index < 0 || index >= ns_model_num_species(m)) return nullptr;
  return m->model->file().species[index].c_str();
}
int ns_model_find_species(const ns_model* m, const char* symbol) {
  return symbol ? m->model->find_species(symbol) : -1;
}
double ns_model_cutoff(const ns_model* m) {
  return m->model->file().cutoff;
}
int ns_model_num_interactions(const ns_model* m) {
  return m->model->file().num_interactions;
}
int ns_model_exchange_width(const ns_model* m) {
  return m->model->potential().exchange_width();
}
int ns_model_has_centroid_virials(const ns_model* m) {
  return m->model->has_centroid_virials();
}
int ns_model_has_atom_virials(const ns_model* m) {
  return m->model->has_atom_virials();
}
int ns_model_num_charges(const ns_model* m) {
  return m->model->num_charges();
}
ns_dispersion ns_model_dispersion(const ns_model* m) {
  if (!m->model->dispersion()) return NS_DISPERSION_NONE;
  return m->model->adds_dispersion() ? NS_DISPERSION_INSIDE : NS_DISPERSION_BY_HOST;
}
const char* ns_model_dispersion_functional(const ns_model* m) {
  const DispersionRecord* const record = m->model->dispersion();
  return record ? record->functional.c_str() : nullptr;
}
int ns_model_memory(const ns_model* m) {
  return m->model->memory();
}
int ns_model_num_members(const ns_model* m) {
  return m->model->num_members();
}
int ns_model_num_features(const ns_model* m) {
  return static_cast<int>(m->model->potential().features().size());
}
ns_status ns_model_feature(const ns_model* m, int index, ns_feature* feature) {
  return guarded([&] {
    require_struct(feature, "ns_feature");
    require(index >= 0 && index < ns_model_num_features(m), "ns_model_feature: there is no such feature");
    const Feature& f = m->model->potential().features()[index];
    *feature = {sizeof(ns_feature), f.species, f.label.c_str(), f.minimum, f.maximum};
  });
}
const char* ns_model_architecture(const ns_model* m) {
  return m->model->file().architecture.c_str();
}
const char* ns_model_backend(const ns_model* m) {
  return m->model->backend();
}
const char* ns_model_metadata(const ns_model* m) {
  return m->model->file().metadata.c_str();
}

ns_status ns_evaluator_create(const ns_model* model, const ns_options* options, const ns_host* host,
                              ns_evaluator** evaluator) {
  return guarded([&] {
    require(model && evaluator, "ns_evaluator_create: model and evaluator must not be NULL");
    require_struct(options, "ns_options");
    require(options->num_threads >= 0 && options->skin >= 0.0,
            "ns_evaluator_create: num_threads and skin must not be negative");
    const EvaluatorOptions o{options->precision == NS_PRECISION_DOUBLE, options->num_threads, options->skin,
                             options->device == NS_DEVICE_CUDA ? Device::cuda : Device::cpu,
                             options->device_index};
    *evaluator = new ns_evaluator{{model->model, o, lend(host)}};
  });
}
ns_status ns_num_cuda_devices(int* count) {
  return guarded([&] {
    require(count, "ns_num_cuda_devices: count must not be NULL");
    *count = num_cuda_devices();
  });
}
void ns_evaluator_free(ns_evaluator* evaluator) {
  delete evaluator;
}

ns_status ns_evaluate_system(ns_evaluator* evaluator, const ns_system* system, ns_results* results) {
  return guarded([&] {
    require(evaluator, "ns_evaluate_system: evaluator must not be NULL");
    require_system(system, results);
    const std::size_t n = system->num_atoms;
    const Cell cell = read_cell(system->cell, system->pbc, "ns_system");
    Results r = wrap(*results, evaluator->evaluator.model(), n, n);
    evaluator->evaluator.evaluate(Span<const double>(system->positions, 3 * n),
                                  Span<const int>(system->species, n), cell, read_outside(*system, n), r);
    give_back(r, *results);
  });
}

ns_status ns_evaluate_device(ns_evaluator* evaluator, const ns_system* system, void* stream,
                             ns_results* results) {
  return guarded([&] {
    require(evaluator, "ns_evaluate_device: evaluator must not be NULL");
    require_system(system, results);
    const std::size_t n = system->num_atoms;
    const Cell cell = read_cell(system->cell, system->pbc, "ns_system");
    Results r = wrap(*results, evaluator->evaluator.model(), n, n);
    r.forces = {};
    evaluator->evaluator.evaluate({system->positions, results->forces, stream},
                                  Span<const int>(system->species, n), cell, read_outside(*system, n), r);
    give_back(r, *results);
  });
}

ns_status ns_evaluate_domain(ns_evaluator* evaluator, const ns_domain* domain, ns_results* results) {
  return guarded([&] {
    require(evaluator, "ns_evaluate_domain: evaluator must not be NULL");
    require_struct(domain, "ns_domain");
    require_struct(results, "ns_results");
    require(domain->num_owned >= 0 && domain->num_atoms >= domain->num_owned && domain->num_centers >= 0,
            "ns_domain: counts must not be negative, and num_atoms includes num_owned");
    const std::size_t n = domain->num_atoms, owned = domain->num_owned;
    Domain d{owned, Span<const double>(domain->positions, 3 * n), Span<const int>(domain->species, n),
             read_cell(domain->cell, domain->pbc, "ns_domain"), read_outside(*domain, owned)};
    if (domain->memory)
      d.memory = Span<double>(domain->memory, owned * evaluator->evaluator.model().memory());
    const HostList list{Span<const int>(domain->centers, domain->num_centers), domain->num_neighbors,
                        domain->neighbors, domain->neighbor_mask};
    Results r = wrap(*results, evaluator->evaluator.model(), owned, n);
    evaluator->evaluator.evaluate(d, list, r);
    give_back(r, *results);
  });
}
