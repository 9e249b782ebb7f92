// Products with stored derivatives of a descriptor on a GPU. Each reads the values once, 12 bytes for an edge
// and column, and is as fast as memory.
#include "cuda/device.hpp"
#include "cuda/reduce.hpp"
#include "cuda/training/descriptors.hpp"
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

struct Block {
  std::int64_t first_edge, num_edges, first_column, num_columns, first_value;
};

struct Stored {
  const float* values;
  const std::int32_t *edges, *columns, *centers;
  const Block* blocks;
  int num_blocks;
  std::int64_t num_edges, num_centers, width;

  /// The block of an edge in the order of the blocks.
  __device__ Block block_of(std::int64_t number) const {
    int low = 0, high = num_blocks;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (blocks[middle].first_edge <= number ? low : high) = middle;
    }
    return blocks[low];
  }
  __device__ const float* values_of(const Block& block, std::int64_t number) const {
    return values + block.first_value + 3 * (number - block.first_edge) * block.num_columns;
  }
  /// The first edge of a block whose center is not before this one.
  __device__ std::int64_t first_of(const Block& block, std::int64_t center) const {
    std::int64_t low = block.first_edge, high = block.first_edge + block.num_edges;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (centers[edges[middle]] < center)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
};

/// A warp for every edge, whose lanes share the columns.
__global__ void reverse(Stored s, const double* cotangents, double* gradients) {
  const auto number = static_cast<std::int64_t>(warp_number());
  if (number >= s.num_edges) return;
  const Block block = s.block_of(number);
  const float* const values = s.values_of(block, number);
  const double* const row = cotangents + s.centers[s.edges[number]] * s.width;
  float sums[3] = {};
  for (std::int64_t c = lane_number(); c < block.num_columns; c += kWarp) {
    const auto cotangent = static_cast<float>(row[s.columns[block.first_column + c]]);
    NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) sums[a] += values[a * block.num_columns + c] * cotangent;
  }
  NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) {
    const float sum = warp_sum(sums[a]);
    if (lane_number() == 0) gradients[3 * s.edges[number] + a] = sum;
  }
}

/// A block of threads for every center, which share the columns.
__global__ void tangent(Stored s, const double* directions, double* tangents) {
  const std::int64_t center = blockIdx.x;
  double* const row = tangents + center * s.width;
  for (int b = 0; b < s.num_blocks; ++b) {
    const Block block = s.blocks[b];
    const std::int64_t first = s.first_of(block, center), last = s.first_of(block, center + 1);
    for (std::int64_t c = threadIdx.x; first < last && c < block.num_columns; c += blockDim.x) {
      float sum = 0.0f;
      for (std::int64_t n = first; n < last; ++n) {
        const float* const values = s.values_of(block, n) + c;
        const double* const v = directions + 3 * s.edges[n];
        NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) sum +=
            values[a * block.num_columns] * static_cast<float>(v[a]);
      }
      // The second of two threads with the same column has zeros, and would write what the first replaces.
      if (sum != 0.0f) row[s.columns[block.first_column + c]] += sum;
    }
    __syncthreads();
  }
}

/// A warp for every edge.
__global__ void gather(Stored s, const std::int64_t* slots, double* dense) {
  const auto number = static_cast<std::int64_t>(warp_number());
  if (number >= s.num_edges) return;
  const std::int64_t slot = slots[s.edges[number]];
  if (slot < 0) return;
  const Block block = s.block_of(number);
  const float* const values = s.values_of(block, number);
  for (std::int64_t n = lane_number(); n < 3 * block.num_columns; n += kWarp) {
    const std::int64_t a = n / block.num_columns, c = n % block.num_columns;
    if (values[n] != 0.0f) dense[(3 * slot + a) * s.width + s.columns[block.first_column + c]] += values[n];
  }
}

Stored on_device(Work& work, const StoredDerivatives& d) {
  std::vector<Block> blocks;
  Block next{};
  for (std::size_t k = 0; k + 2 <= d.sizes.size(); k += 2) {
    next.num_edges = d.sizes[k];
    next.num_columns = d.sizes[k + 1];
    // Blocks without edges would hide the one before them from block_of().
    if (next.num_edges > 0) blocks.push_back(next);
    next.first_edge += next.num_edges;
    next.first_column += next.num_columns;
    next.first_value += 3 * next.num_edges * next.num_columns;
  }
  return {d.values,
          d.edges,
          d.columns,
          d.centers,
          work.copied(blocks),
          static_cast<int>(blocks.size()),
          next.first_edge,
          d.num_centers,
          d.width};
}

}  // namespace

void stored_reverse(DeviceScope& scope, const StoredDerivatives& d, const double* cotangents,
                    double* gradients) {
  Work work(scope);
  const Stored stored = on_device(work, d);
  launch(work.stream, warp_each(stored.num_edges), reverse, stored, cotangents, gradients);
}

void stored_tangent(DeviceScope& scope, const StoredDerivatives& d, const double* directions,
                    double* tangents) {
  Work work(scope);
  const Stored stored = on_device(work, d);
  launch(work.stream, {dim3(static_cast<unsigned>(d.num_centers)), dim3(128)}, tangent, stored, directions,
         tangents);
}

void stored_gather(DeviceScope& scope, const StoredDerivatives& d, const std::int64_t* slots, double* dense) {
  Work work(scope);
  const Stored stored = on_device(work, d);
  launch(work.stream, warp_each(stored.num_edges), gather, stored, slots, dense);
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
