#include <algorithm>

#include "cuda/models/networks/networks.hpp"

namespace nearsight {
namespace cuda {
namespace networks {
namespace {

constexpr int kLanes = static_cast<int>(kWarp);
/// Columns of a panel whose sums a thread holds: for one number of its row, 64 bytes of weights are read,
/// which are the same for all lanes.
template <class U>
constexpr int kColumns = 64 / static_cast<int>(sizeof(U));
constexpr int kMostWarps = 8;

/// What a block works on.
template <class U>
struct Block {
  const NetworkTables<U>& tables;
  const NetworkTable network;
  int row;       // of this lane
  bool has_row;  // the last block may be partly empty
  int width;
  U* inputs;       // [features][kLanes]
  U* layers;       // [2][width][kLanes]
  U* derivatives;  // [members][derivatives][kLanes]
  std::int32_t* active;

  __device__ Block(const RowRuns& runs, int run, const Sizes& sizes, const NetworkTables<U>& tables,
                   std::size_t first_block, U* rows, std::int32_t* chunks, int num_chunks)
      : tables(tables), network(tables.networks[runs.species[run]]) {
    const std::size_t number = first_block + blockIdx.x;
    const int block = static_cast<int>(blockIdx.x) - runs.first_block[run];
    row = runs.first[run] + block * kLanes + static_cast<int>(lane_number());
    has_row = row < runs.last[run];
    width = sizes.width;
    inputs = rows + number * sizes.per_row() * kLanes + lane_number();
    layers = inputs + sizes.features * kLanes;
    derivatives = layers + 2 * width * kLanes;
    active = chunks + number * num_chunks;
  }
  __device__ LayerTable layer(int number) const { return tables.layers[network.first_layer + number]; }
  /// Numbers of a layer, until those of the next but one take their place.
  __device__ U* values(int layer) const { return layers + layer % 2 * width * kLanes; }
  __device__ U* derivative(int member, int number) const {
    const int place = layer(number).derivatives;
    return place < 0 ? nullptr : derivatives + (member * network.num_derivatives + place) * kLanes;
  }
};

__device__ inline int run_of(const RowRuns& runs) {
  int run = 0;
  while (static_cast<int>(blockIdx.x) >= runs.first_block[run + 1]) ++run;
  return run;
}

/// Sums of kColumns columns of a panel over `inner` numbers of this lane's row, those of active chunks.
template <class U>
__device__ inline void multiply(const U* numbers, int inner, const U* weights, const std::int32_t* active,
                                U* sums) {
  for (int first = 0; first < inner; first += kPad) {
    if (active && !active[first / kPad]) continue;
    const int last = first + kPad < inner ? first + kPad : inner;
    for (int k = first; k < last; ++k) {
      const U x = numbers[k * kLanes];
      const auto* const row = reinterpret_cast<const Vec4<U>*>(weights + static_cast<std::size_t>(k) * kPad);
      NEARSIGHT_UNROLL
      for (int n = 0; n < kColumns<U> / 4; ++n) {
        const Vec4<U> w = row[n];
        sums[4 * n] += x * w.x;
        sums[4 * n + 1] += x * w.y;
        sums[4 * n + 2] += x * w.z;
        sums[4 * n + 3] += x * w.w;
      }
    }
  }
}

/// Calls body(first column, weights of these kColumns) for the parts of a matrix in panels that are this
/// warp's.
template <class U, class Body>
__device__ inline void for_parts(const U* panels, int inner, int columns, const Body& body) {
  const int warps = static_cast<int>(blockDim.x / kWarp);
  for (int first = static_cast<int>(threadIdx.x / kWarp) * kColumns<U>; first < columns;
       first += warps * kColumns<U>)
    body(first, panels + static_cast<std::size_t>(first / kPad) * inner * kPad + first % kPad);
}

/// Shifts and scales the features.
template <class U>
__device__ inline void load_inputs(const Block<U>& b, const double* features, int stride,
                                   bool zero_means_absent) {
  const int warps = static_cast<int>(blockDim.x / kWarp), count = b.network.num_features;
  const double* const own = features + static_cast<std::size_t>(b.row) * stride;
  const double* const shift = b.tables.shift + b.network.first_feature;
  const double* const scale = b.tables.scale + b.network.first_feature;
  for (int first = static_cast<int>(threadIdx.x / kWarp) * kPad; first < count; first += warps * kPad) {
    double x[kPad];  // all at once: nothing waits for a store
    NEARSIGHT_UNROLL
    for (int n = 0; n < kPad; ++n) x[n] = b.has_row && first + n < count ? own[first + n] : 0.0;
    bool any = !zero_means_absent || b.network.is_shifted;
    NEARSIGHT_UNROLL
    for (int n = 0; n < kPad; ++n) {
      any = any || x[n] != 0.0;
      if (const int k = first + n; k < count)
        b.inputs[k * kLanes] = static_cast<U>((x[n] - shift[k]) * scale[k]);
    }
    any = __any_sync(kAllLanes, any);
    if (lane_number() == 0) b.active[first / kPad] = any;
  }
  __syncthreads();
}

template <class U>
__global__ void __launch_bounds__(kMostWarps* kLanes, 2)
    forward_kernel(RowRuns runs, Sizes sizes, NetworkTables<U> networks, std::size_t first_block, U* rows,
                   std::int32_t* chunks, int num_chunks, const double* features, int stride,
                   double* outputs) {
  // Activation functions are long: one after the other they fit the cache of instructions.
  __shared__ U staged[kColumns<U>][kMostWarps * kLanes];
  const Block<U> b(runs, run_of(runs), sizes, networks, first_block, rows, chunks, num_chunks);
  load_inputs(b, features, stride, sizes.zero_means_absent);
  for (int member = 0; member < sizes.members; ++member)
    for (int l = 0; l < b.network.num_layers; ++l) {
      const LayerTable layer = b.layer(l);
      const int wide = (layer.outputs + kPad - 1) / kPad * kPad;
      const U* const bias = networks.numbers + layer.bias + member * wide;
      const U* const weights =
          networks.numbers + layer.forward + static_cast<std::size_t>(member) * layer.inputs * wide;
      U* const derivative = b.derivative(member, l);
      U* const values = b.values(l);
      const bool is_last = l + 1 == b.network.num_layers;
      for_parts(weights, layer.inputs, layer.outputs, [&](int first, const U* part) {
        U sums[kColumns<U>];
        NEARSIGHT_UNROLL
        for (int n = 0; n < kColumns<U>; ++n) sums[n] = bias[first + n];
        multiply(l ? b.values(l - 1) : b.inputs, layer.inputs, part, l ? nullptr : b.active, sums);
        NEARSIGHT_UNROLL
        for (int n = 0; n < kColumns<U>; ++n) staged[n][threadIdx.x] = sums[n];
        for (int column = first; column < first + kColumns<U> && column < layer.outputs; ++column) {
          const Activated<U> a = activate(layer.activation, staged[column - first][threadIdx.x]);
          if (derivative) derivative[column * kLanes] = a.derivative;
          if (!is_last)
            values[column * kLanes] = a.value;
          else if (b.has_row)
            outputs[(static_cast<std::size_t>(b.row) * sizes.members + member) * sizes.columns + column] =
                b.tables.output_scale[column] * static_cast<double>(a.value);
        }
      });
      __syncthreads();
    }
}

/// Writes the cotangents of the last layer before its activation; whether any of them is not zero.
template <class U>
__device__ inline bool start_reverse(const Block<U>& b, const Sizes& sizes, int member,
                                     const double* cotangents) {
  const int last = b.network.num_layers - 1;
  const U* const derivative = b.derivative(member, last);
  bool any = false;
  for (int column = 0; column < sizes.columns; ++column) {
    const double c =
        b.has_row
            ? cotangents[(static_cast<std::size_t>(b.row) * sizes.members + member) * sizes.columns + column]
            : 0.0;
    any = any || c != 0.0;
    if (threadIdx.x < kWarp)
      b.values(last)[column * kLanes] = static_cast<U>(b.tables.output_scale[column] * c) *
                                        (derivative ? derivative[column * kLanes] : U(1));
  }
  any = __any_sync(kAllLanes, any);
  __syncthreads();
  return any;
}

template <class U>
__global__ void __launch_bounds__(kMostWarps* kLanes, 2)
    reverse_kernel(RowRuns runs, Sizes sizes, NetworkTables<U> networks, std::size_t first_block, U* rows,
                   std::int32_t* chunks, int num_chunks, const double* output_cotangents, double* cotangents,
                   int stride) {
  const Block<U> b(runs, run_of(runs), sizes, networks, first_block, rows, chunks, num_chunks);
  bool is_first = true;
  for (int member = 0; member < sizes.members; ++member) {
    // A member of a committee may be asked for alone.
    if (!start_reverse(b, sizes, member, output_cotangents)) continue;
    for (int l = b.network.num_layers - 1; l >= 0; --l) {
      const LayerTable layer = b.layer(l);
      const int wide = (layer.inputs + kPad - 1) / kPad * kPad;
      const U* const weights =
          networks.numbers + layer.reverse + static_cast<std::size_t>(member) * layer.outputs * wide;
      const U* const derivative = l ? b.derivative(member, l - 1) : nullptr;
      for_parts(weights, layer.outputs, layer.inputs, [&](int first, const U* part) {
        if (l == 0 && !b.active[first / kPad]) return;
        U sums[kColumns<U>] = {};
        multiply(b.values(l), layer.outputs, part, nullptr, sums);
        NEARSIGHT_UNROLL
        for (int n = 0; n < kColumns<U>; ++n) {
          const int column = first + n;
          if (column >= layer.inputs) continue;
          if (l)
            b.values(l - 1)[column * kLanes] = sums[n] * (derivative ? derivative[column * kLanes] : U(1));
          else
            b.inputs[column * kLanes] = is_first ? sums[n] : b.inputs[column * kLanes] + sums[n];
        }
      });
      __syncthreads();
    }
    is_first = false;
  }
  if (!b.has_row) return;
  double* const own = cotangents + static_cast<std::size_t>(b.row) * stride;
  const double* const scale = b.tables.scale + b.network.first_feature;
  for (int k = static_cast<int>(threadIdx.x / kWarp); k < b.network.num_features;
       k += static_cast<int>(blockDim.x / kWarp))
    own[k] = is_first || !b.active[k / kPad] ? 0.0 : static_cast<double>(b.inputs[k * kLanes]) * scale[k];
}

}  // namespace

template <class U>
Networks<U>::Networks(const Stream& stream, const nearsight::networks::Networks<U>& networks, int num_species,
                      bool zero_means_absent) {
  sizes_.members = networks.members();
  sizes_.columns = networks.columns();
  sizes_.zero_means_absent = zero_means_absent;
  std::vector<NetworkTable> tables;
  std::vector<LayerTable> layers;
  std::vector<U> numbers;
  std::vector<double> shifts, scales;
  const auto append = [&](const auto& aligned) {  // padded to kPad: every layer begins at 64 bytes
    const std::size_t place = numbers.size();
    numbers.insert(numbers.end(), aligned.data(), aligned.data() + aligned.size());
    return place;
  };
  for (int species = 0; species < num_species; ++species) {
    const auto &shift = networks.shift(species), &scale = networks.scale(species);
    NetworkTable table{networks.num_features(species), 0, 0, false, static_cast<int>(layers.size()),
                       static_cast<int>(shifts.size())};
    table.is_shifted = std::any_of(shift.begin(), shift.end(), [](double x) { return x != 0.0; });
    shifts.insert(shifts.end(), shift.begin(), shift.end());
    scales.insert(scales.end(), scale.begin(), scale.end());
    for (const auto& layer : networks.layers(species)) {
      const bool is_linear = layer.activation == Activation::linear;
      layers.push_back({layer.inputs, layer.outputs, layer.activation, is_linear ? -1 : table.num_derivatives,
                        append(layer.forward), append(layer.reverse), append(layer.bias)});
      if (!is_linear) table.num_derivatives += layer.outputs;
      ++table.num_layers;
      sizes_.width = std::max(sizes_.width, layer.outputs);
    }
    sizes_.features = std::max(sizes_.features, table.num_features);
    sizes_.derivatives = std::max(sizes_.derivatives, sizes_.members * table.num_derivatives);
    num_features_.push_back(table.num_features);
    tables.push_back(table);
  }
  networks_ = {tables_.keep(stream, tables),  tables_.keep(stream, layers),
               tables_.keep(stream, numbers), tables_.keep(stream, shifts),
               tables_.keep(stream, scales),  tables_.keep(stream, networks.output_scale())};
}

/// As many warps as the widest matrix has parts, within limits.
template <class U>
Grid Networks<U>::grid(const RowRuns& runs) const {
  const int parts = (std::max(sizes_.width, sizes_.features) + kColumns<U> - 1) / kColumns<U>;
  const unsigned warps = static_cast<unsigned>(std::max(1, std::min(parts, kMostWarps)));
  return {dim3(static_cast<unsigned>(runs.first_block[runs.count])), dim3(warps * kWarp)};
}

template <class U>
void Networks<U>::forward(const Stream& stream, const RowRuns& runs, std::size_t block,
                          const double* features, int stride, double* outputs) {
  launch(stream, grid(runs), forward_kernel<U>, runs, sizes_, networks_, block, rows_.data(), active_.data(),
         sizes_.chunks(), features, stride, outputs);
}

template <class U>
void Networks<U>::reverse(const Stream& stream, const RowRuns& runs, std::size_t block,
                          const double* output_cotangents, double* cotangents, int stride) {
  launch(stream, grid(runs), reverse_kernel<U>, runs, sizes_, networks_, block, rows_.data(), active_.data(),
         sizes_.chunks(), output_cotangents, cotangents, stride);
}

template class Networks<float>;
template class Networks<double>;

}  // namespace networks
}  // namespace cuda
}  // namespace nearsight
