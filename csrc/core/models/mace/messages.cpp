// The parts of a worker between edges and messages, and those between features and energies.
#include <cmath>
#include <mutex>

#include "core/engine/warning.hpp"
#include "core/models/mace/hermite.hpp"
#include "core/models/mace/pairs.hpp"
#include "core/models/mace/pass.hpp"

namespace nearsight {
namespace mace {
namespace {

/// Moments of a tile of the first layer: for each l [row][m][species of neighbors][functions].
template <class T>
struct MomentLayout {
  int count, slots, functions;

  std::size_t size(int l_max) const { return start(l_max + 1); }
  std::size_t start(int l) const { return static_cast<std::size_t>(l) * l * count * row(); }
  std::size_t row() const { return static_cast<std::size_t>(slots) * functions; }

  /// Rows of the harmonics for one receiver and species.
  void point(T* moments, int l_max, int receiver, int slot, T** rows) const {
    for (int l = 0; l <= l_max; ++l)
      for (int m = 0; m < 2 * l + 1; ++m)
        rows[l * l + m] = moments + start(l) + (receiver * (2 * l + 1) + m) * row() + slot * functions;
  }
};

/// Calls run(work) for the edges of each receiver to the neighbors of each species.
template <class T, class Run>
void for_moments(const Definition& d, TileEdges<T>& edges, const MomentLayout<T>& layout, T* moments,
                 const Run& run) {
  MomentWork<T> work{nullptr, 0, 0, d.num_harmonics(), layout.functions, {}};
  for (int p = 0; p < layout.count; ++p)
    for (int slot = 0; slot < layout.slots; ++slot) {
      work.edges = &edges[p];
      work.first = edges.bounds(p)[slot];
      work.last = edges.bounds(p)[slot + 1];
      layout.point(moments, d.l_max, p, slot, work.moments);
      run(work);
    }
}

/// Where A of a tile begins for each irrep of the message: [row][m][path][channels].
struct PathSums {
  std::vector<std::size_t> starts{0};
  std::vector<int> num_paths;

  PathSums(const Layer& layer, int count, int channels) : num_paths(layer.message.size()) {
    for (const Path& path : layer.paths) ++num_paths[path.out];
    for (std::size_t k = 0; k < layer.message.size(); ++k)
      starts.push_back(starts.back() +
                       static_cast<std::size_t>(count) * layer.message[k].size() * num_paths[k] * channels);
  }
};

}  // namespace

template <class T>
void MaceWorker<T>::first_messages(const Pass& pass, T* messages) {
  TileEdges<T>& edges = pass.scratch.edges;
  const int count = pass.tile.count, slots = static_cast<int>(edges.neighbor_species().size());
  const MomentLayout<T> layout{count, slots, pass.tables.width};
  T* const moments = pass.scratch.sums.resize(layout.size(d_.l_max));
  for_moments(d_, edges, layout, moments, kernels<T>().moments);
  for (std::size_t k = 0; k < pass.layer.message.size(); ++k) {
    const Irrep& irrep = pass.layer.message[k];
    T* const target = messages + irrep.first * count * channels_;
    if (slots == 0) std::fill_n(target, irrep.size() * count * channels_, T(0));
    for (int slot = 0; slot < slots; ++slot)
      multiply(count * irrep.size(), moments + layout.start(irrep.l) + slot * layout.functions,
               static_cast<int>(layout.row()),
               engine_.species(0, edges.neighbor_species()[slot]).source[k].forward, target, channels_,
               slot > 0);
  }
}

template <class T>
void MaceWorker<T>::first_messages_reverse(const Pass& pass) {
  Scratch& s = pass.scratch;
  TileEdges<T>& edges = s.edges;
  const int count = pass.tile.count, slots = static_cast<int>(edges.neighbor_species().size());
  const MomentLayout<T> layout{count, slots, pass.tables.width};
  T* const moments = s.sums.resize(layout.size(d_.l_max));
  std::fill_n(moments, layout.size(d_.l_max), T(0));  // a degree may have no message
  for (std::size_t k = 0; k < pass.layer.message.size(); ++k) {
    const Irrep& irrep = pass.layer.message[k];
    for (int slot = 0; slot < slots; ++slot)
      multiply(count * irrep.size(), s.message_adjoints.data() + irrep.first * count * channels_, channels_,
               engine_.species(0, edges.neighbor_species()[slot]).source[k].reverse,
               moments + layout.start(irrep.l) + slot * layout.functions, static_cast<int>(layout.row()),
               false);
  }
  for_moments(d_, edges, layout, moments, kernels<T>().moments_reverse);
}

/// Calls run(irrep of the path's input, of its message, work) for all paths and receivers.
template <class T, class Run>
void for_paths(const Layer& layer, const LayerTables<T>& tables, const TileEdges<T>& edges, int channels,
               const PathSums& at, T* sums, T* phi, const Run& run) {
  int first_row = 0;
  for (std::size_t n = 0; n < layer.paths.size(); ++n) {
    const Path& path = layer.paths[n];
    const Irrep &in = layer.input[path.in], &out = layer.message[path.out];
    const int end_row =
        n + 1 < layer.paths.size() ? layer.paths[n + 1].first_row : static_cast<int>(layer.couplings.size());
    PathWork<T> work{};
    work.channels = channels;
    work.table_offset = static_cast<std::ptrdiff_t>(n) * edges.group_stride();
    work.feature_offset = in.first * channels;
    work.rows = tables.couplings.data() + first_row;
    work.num_rows = end_row - first_row;
    work.num_phi = in.size() * out.size();
    work.phi = phi;
    work.sums_stride = at.num_paths[path.out] * channels;
    for (int p = 0; p < edges.size(); ++p) {
      work.edges = &edges[p];
      work.sums = sums + at.starts[path.out] + static_cast<std::size_t>(p) * out.size() * work.sums_stride +
                  path.place * channels;
      run(in.l, out.l, work);
    }
    first_row = end_row;
  }
}

template <class T>
void MaceWorker<T>::later_messages(const Pass& pass, T* messages) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const PathSums at(pass.layer, count, channels_);
  T* const sums = s.sums.resize(at.starts.back());
  T* const phi = s.phi.resize(2 * static_cast<std::size_t>(kMaxPhi) * s.edges.longest());
  s.edges.choose_features(kept_[pass.t].sources.data(), nullptr,
                          num_components(pass.layer.input) * channels_);
  for_paths(pass.layer, pass.tables, s.edges, channels_, at, sums, phi, kernels<T>().path);
  for (std::size_t k = 0; k < pass.layer.message.size(); ++k) {
    const Irrep& irrep = pass.layer.message[k];
    multiply(count * irrep.size(), sums + at.starts[k], at.num_paths[k] * channels_,
             pass.tables.combine[k].forward, messages + irrep.first * count * channels_, channels_, false);
  }
}

template <class T>
void MaceWorker<T>::later_messages_reverse(const Pass& pass) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const PathSums at(pass.layer, count, channels_);
  T* const sums = s.sums.resize(at.starts.back());
  T* const phi = s.phi.resize(2 * static_cast<std::size_t>(kMaxPhi) * s.edges.longest());
  s.edges.choose_features(kept_[pass.t].sources.data(), s.adjoints.data(),
                          num_components(pass.layer.input) * channels_);
  for (std::size_t k = 0; k < pass.layer.message.size(); ++k) {
    const Irrep& irrep = pass.layer.message[k];
    multiply(count * irrep.size(), s.message_adjoints.data() + irrep.first * count * channels_, channels_,
             pass.tables.combine[k].reverse, sums + at.starts[k], at.num_paths[k] * channels_, false);
  }
  for_paths(pass.layer, pass.tables, s.edges, channels_, at, sums, phi, kernels<T>().path_reverse);
}

/// What an edge gives to the density, from the table or, as an oracle, from the network.
template <class T>
PairEnergy edge_density(const Engine<T>& engine, int t, int center_species, int species, double r) {
  const Grid& grid = engine.grid();
  const bool too_close = r < grid.first();
  if (engine.is_analytic()) {
    const double inside = std::max(r, grid.first());
    const Jets jets = engine.density(t).outputs({&inside, 1}, engine.pair(center_species, species));
    return {*jets.row(0, 0), too_close ? 0.0 : *jets.row(0, 1)};
  }
  const Grid::Place place = grid.locate(r);
  const double* const knots = engine.radial(t, center_species, species).density.data() + 3 * place.knot;
  double w[12];
  hermite_weights(place.within, place.per_angstrom, w);
  PairEnergy found;
  for (int k = 0; k < 6; ++k) {
    found.value += w[k] * knots[k];
    if (!too_close) found.slope += w[6 + k] * knots[k];
  }
  return found;
}

/// Divides the messages by 1 + ρ.
template <class T>
void MaceWorker<T>::normalize(const Pass& pass, T* messages) {
  TileEdges<T>& edges = pass.scratch.edges;
  const int count = pass.tile.count;
  for (int p = 0; p < count; ++p) {
    double density = 0.0;
    for (int e = 0; e < edges[p].count; ++e)
      density +=
          edge_density(engine_, pass.t, edges.receiver_species(p), edges.edges(p)[e].species, edges[p].r[e])
              .value;
    const double inverse = 1 / (1 + density);
    kept_[pass.t].inverse_density[pass.tile.first + p] = inverse;
    for (const Irrep& irrep : pass.layer.message) {
      T* const row = messages + (irrep.first * count + p * irrep.size()) * channels_;
      for (int k = 0; k < irrep.size() * channels_; ++k) row[k] *= static_cast<T>(inverse);
    }
  }
}

template <class T>
void MaceWorker<T>::normalize_reverse(const Pass& pass) {
  if (pass.layer.density.empty()) return;
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const std::size_t components = num_components(pass.layer.message);
  // Selected messages times their adjoints give the same sum as those before: the selection is linear.
  const T* const messages = kept_[pass.t].messages.data() + pass.tile.first * components * channels_;
  const T* const adjoints =
      pass.layer.select[0] ? s.messages.data() : s.message_adjoints.data();  // of the selected messages
  for (int p = 0; p < count; ++p) {
    const double inverse = kept_[pass.t].inverse_density[pass.tile.first + p];
    double sum = 0.0;
    for (const Irrep& irrep : pass.layer.message) {
      const std::size_t row = (irrep.first * count + p * irrep.size()) * static_cast<std::size_t>(channels_);
      for (int k = 0; k < irrep.size() * channels_; ++k)
        sum += static_cast<double>(messages[row + k]) * adjoints[row + k];
    }
    for (const Irrep& irrep : pass.layer.message) {
      T* const row = s.message_adjoints.data() + (irrep.first * count + p * irrep.size()) * channels_;
      for (int k = 0; k < irrep.size() * channels_; ++k) row[k] *= static_cast<T>(inverse);
    }
    for (int e = 0; e < s.edges[p].count; ++e) {
      auto& edge = s.edges.edges(p)[e];
      edge.slope -=
          sum * inverse *
          edge_density(engine_, pass.t, s.edges.receiver_species(p), edge.species, s.edges[p].r[e]).slope;
    }
  }
}

/// Readouts of the layer, and in the first one energies of pairs.
template <class T>
void MaceWorker<T>::read_out(const Pass& pass, Span<double> readouts) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const std::size_t outputs = num_components(pass.layer.output);
  const T* const features = kept_[pass.t].features.data() + pass.tile.first * outputs * channels_;
  const std::vector<double>& w = pass.tables.readout;
  const int columns = d_.columns, inputs = static_cast<int>(w.size()) / columns;
  const bool is_linear = pass.layer.readout.weights.size() == 1;
  const int width = is_linear ? channels_ : pass.tables.readout_forward.columns;
  const T* hidden = features;
  if (!is_linear) {
    multiply(count, features, channels_, pass.tables.readout_forward, s.hidden.resize(count * width), width,
             false);
    hidden = s.hidden.data();
  }
  s.inputs.resize(inputs);
  for (int p = 0; p < count; ++p) {
    for (int k = 0; k < inputs; ++k) {
      const double x = hidden[p * width + k];
      s.inputs[k] = is_linear ? x : x / (1 + std::exp(-x));
    }
    double* const found = &readouts[pass.rows[p] * columns];
    for (int c = 0; c < columns; ++c) {
      double sum = 0.0;
      for (int k = 0; k < inputs; ++k) sum += w[k * columns + c] * s.inputs[k];
      found[c] += d_.scale[c] * sum;
    }
    if (pass.t > 0) continue;
    double& energy = found[0];
    for (int e = 0; e < s.edges[p].count; ++e) {
      const double r = s.edges[p].r[e];
      energy += pair_energy(d_, s.edges.receiver_species(p), s.edges.edges(p)[e].species, r).value;
      if (r >= engine_.grid().first()) continue;
      energy += close_repulsion(r, engine_.grid().first()).value;
      static std::once_flag said;
      std::call_once(said, [&] {
        warn("two atoms are " + std::to_string(r) + " Å apart, closer than the " +
             std::to_string(engine_.grid().first()) +
             " Å where the radial functions of the model begin: they stay constant there, and a repulsion is "
             "added; check the starting geometry and the time step");
      });
    }
  }
}

template <class T>
void MaceWorker<T>::read_out_reverse(const Pass& pass, Span<const double> cotangents) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const std::size_t outputs = num_components(pass.layer.output);
  T* const adjoints = kept_[pass.t].adjoints.data() + pass.tile.first * outputs * channels_;
  const std::vector<double>& w = pass.tables.readout;
  const int columns = d_.columns, inputs = static_cast<int>(w.size()) / columns;
  // Adjoint of an input of the last dense layer.
  const auto adjoint = [&](int p, int k) {
    const double* const given = &cotangents[pass.rows[p] * columns];
    double sum = 0.0;
    for (int c = 0; c < columns; ++c) sum += given[c] * d_.scale[c] * w[k * columns + c];
    return sum;
  };
  if (pass.layer.readout.weights.size() == 1) {
    for (int p = 0; p < count; ++p)
      for (int k = 0; k < inputs; ++k) adjoints[p * channels_ + k] += static_cast<T>(adjoint(p, k));
    return;
  }
  const T* const features = kept_[pass.t].features.data() + pass.tile.first * outputs * channels_;
  const int width = pass.tables.readout_forward.columns;
  T* const hidden = s.hidden.resize(count * width);
  multiply(count, features, channels_, pass.tables.readout_forward, hidden, width, false);
  for (int p = 0; p < count; ++p)
    for (int k = 0; k < width; ++k) {
      const double x = hidden[p * width + k], sigma = 1 / (1 + std::exp(-x));
      hidden[p * width + k] =
          static_cast<T>((k < inputs ? adjoint(p, k) : 0.0) * sigma * (1 + x * (1 - sigma)));
    }
  multiply(count, hidden, width, pass.tables.readout_reverse, adjoints, channels_, true);
}

#define NEARSIGHT_MACE_PARTS(T)                                     \
  template void MaceWorker<T>::first_messages(const Pass&, T*);     \
  template void MaceWorker<T>::first_messages_reverse(const Pass&); \
  template void MaceWorker<T>::later_messages(const Pass&, T*);     \
  template void MaceWorker<T>::later_messages_reverse(const Pass&); \
  template void MaceWorker<T>::normalize(const Pass&, T*);          \
  template void MaceWorker<T>::normalize_reverse(const Pass&);      \
  template void MaceWorker<T>::read_out(const Pass&, Span<double>); \
  template void MaceWorker<T>::read_out_reverse(const Pass&, Span<const double>);
NEARSIGHT_MACE_PARTS(float)
NEARSIGHT_MACE_PARTS(double)
#undef NEARSIGHT_MACE_PARTS

}  // namespace mace
}  // namespace nearsight
