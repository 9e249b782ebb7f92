#include <cmath>

#include "cuda/couple/block_lists.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr double kCellsOfReach = 4;  // cells that a list reaches over, about
constexpr unsigned kSearchWarps = 4;

struct Path {
  int size[3];

  __device__ int count() const { return size[0] * size[1] * size[2]; }
  /// The place of a cell on a path that turns around at the ends of the grid.
  __device__ int number(const int* cell) const {
    const int b = cell[0] % 2 ? size[1] - 1 - cell[1] : cell[1];
    const int row = cell[0] * size[1] + b;
    return row * size[2] + (row % 2 ? size[2] - 1 - cell[2] : cell[2]);
  }
};

__device__ inline Home find_home(const Axes& axes, const Path& path, const double* position) {
  Home home;
  for (int d = 0; d < 3; ++d) {
    const double s = axes.fraction(position, d), whole = floor(s);
    const int c = static_cast<int>((s - whole) * path.size[d]);
    home.cell[d] = c < path.size[d] ? c : path.size[d] - 1;
    home.box[d] = static_cast<int>(whole);
  }
  return home;
}

/// keys[i] = (cell on the path, species) << 32 | i, of other ranks' behind all cells.
__global__ void find_keys(int count, int own, const double* positions, const std::int32_t* species,
                          int num_species, Axes axes, Path path, std::uint64_t* keys) {
  const std::size_t i = thread_number();
  if (i >= static_cast<std::size_t>(count)) return;
  const Home home = find_home(axes, path, positions + 3 * i);
  const std::uint64_t cell = path.number(home.cell) + (i < static_cast<std::size_t>(own) ? 0 : path.count());
  keys[i] = (cell * num_species + species[i]) << 32 | i;
}

__global__ void find_homes(int count, const double* positions, int num_species, Axes axes, Path path,
                           const std::uint64_t* keys, std::int32_t* order, std::int32_t* species,
                           Home* homes) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(count)) return;
  const std::size_t i = keys[k] & 0xffffffffu;
  order[k] = static_cast<std::int32_t>(i);
  species[k] = static_cast<std::int32_t>((keys[k] >> 32) % num_species);
  homes[k] = find_home(axes, path, positions + 3 * i);
}

__global__ void place_atoms(int count, const double* positions, Axes axes, CellGrid grid,
                            const std::int32_t* order, const Home* homes, Vec4<double>* places) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(count)) return;
  const Home home = homes[k];
  const double* const position = positions + 3 * static_cast<std::size_t>(order[k]);
  double r[3] = {position[0], position[1], position[2]};
  for (int d = 0; d < 3; ++d) {
    const double middle = home.box[d] + (home.cell[d] + 0.5) / grid.size[d];
    for (int c = 0; c < 3; ++c) r[c] -= middle * axes.vectors[3 * d + c];
  }
  places[k] = {r[0], r[1], r[2], 0.0};
}

__device__ inline Vec4<float> to_float(const Vec4<double>& place) {
  return {static_cast<float>(place.x), static_cast<float>(place.y), static_cast<float>(place.z), 0.0f};
}

/// A warp for each block counts the neighbors of each species, or writes them behind rows.
__global__ void search(BlockAtoms atoms, CellGrid grid, float reach2, const std::int32_t* starts,
                       std::int32_t* counts, const std::int64_t* rows, std::uint64_t* neighbors) {
  __shared__ Vec4<float> shared[kSearchWarps][kBlockAtoms];
  const int block = static_cast<int>(warp_number()), lane = lane_number(), first = block * kBlockAtoms;
  if (first >= atoms.own) return;
  Vec4<float>* const own = shared[threadIdx.x / kWarp];
  const int num_own = atoms.own - first < kBlockAtoms ? atoms.own - first : kBlockAtoms;
  const int parts = atoms.own < atoms.count ? 2 : 1;
  int origin[3], low[3] = {}, high[3] = {};  // of its cells, relative to the first one
  for (int d = 0; d < 3; ++d) origin[d] = atoms.homes[first].cell[d];
  for (int l = 0; l < num_own; ++l)
    for (int d = 0; d < 3; ++d) {
      const int c = atoms.homes[first + l].cell[d] - origin[d];
      low[d] = c < low[d] ? c : low[d];
      high[d] = c > high[d] ? c : high[d];
    }
  if (lane < num_own) own[lane] = to_float(atoms.place(first + lane, origin));
  __syncwarp();
  const Path path{{grid.size[0], grid.size[1], grid.size[2]}};
  for (int s = 0; s < atoms.num_species; ++s) {
    const std::size_t row = static_cast<std::size_t>(block) * atoms.num_species + s;
    std::int64_t next = neighbors ? rows[row] : 0;
    int shift[3];
    for (shift[0] = low[0] - grid.reach[0]; shift[0] <= high[0] + grid.reach[0]; ++shift[0])
      for (shift[1] = low[1] - grid.reach[1]; shift[1] <= high[1] + grid.reach[1]; ++shift[1])
        for (shift[2] = low[2] - grid.reach[2]; shift[2] <= high[2] + grid.reach[2]; ++shift[2]) {
          int cell[3];
          for (int d = 0; d < 3; ++d) {
            cell[d] = (origin[d] + shift[d]) % grid.size[d];
            if (cell[d] < 0) cell[d] += grid.size[d];
          }
          for (int part = 0; part < parts; ++part) {
            const std::size_t place =
                static_cast<std::size_t>(path.number(cell) + part * path.count()) * atoms.num_species + s;
            const int last = starts[place + 1];
            for (int begin = starts[place]; begin < last; begin += kWarp) {
              const int j = begin + lane;
              bool near = false;
              if (j < last) {
                const Vec4<float> there =
                    to_float(atoms.cells.moved(atoms.places[j], shift[0], shift[1], shift[2]));
                for (int l = 0; l < num_own && !near; ++l) {
                  const float x = there.x - own[l].x, y = there.y - own[l].y, z = there.z - own[l].z;
                  near = x * x + y * y + z * z < reach2;
                }
              }
              const unsigned hits = __ballot_sync(kAllLanes, near);
              if (near && neighbors)
                neighbors[next + __popc(hits & ((1u << lane) - 1))] =
                    Neighbor::pack(static_cast<std::uint32_t>(j), shift);
              next += __popc(hits);
            }
          }
        }
    if (!neighbors && lane == 0) counts[row] = static_cast<std::int32_t>(next);
  }
}

}  // namespace

void AtomBlocks::sort(const Stream& stream, const double* positions, const std::int32_t* species,
                      int num_species, std::size_t count, std::size_t own, const Box& box, double reach) {
  count_ = static_cast<int>(count);
  own_ = static_cast<int>(own);
  num_species_ = num_species;
  grid_ = make_cells(box, reach / kCellsOfReach, reach, count);
  const Axes axes(box);
  const Path path{{grid_.size[0], grid_.size[1], grid_.size[2]}};
  launch(stream, one_each(count), find_keys, count_, own_, positions, species, num_species, axes, path,
         keys_.resize(count));
  const int places = (own < count ? 2 : 1) * grid_.num_cells() * num_species;
  primitives_.sort(stream, keys_, 64);
  launch(stream, one_each(count), find_homes, count_, positions, num_species, axes, path, keys_.data(),
         order_.resize(count), species_.resize(count), homes_.resize(count));
  find_starts(stream, count_, places, keys_.data(), starts_.resize(places + 1));
}

void AtomBlocks::place(const Stream& stream, const double* positions, const Box& box) {
  for (int k = 0; k < 9; ++k) cells_.v[k] = (box.vectors[k] / grid_.size[k / 3]);
  launch(stream, one_each(count_), place_atoms, count_, positions, Axes(box), grid_, order_.data(),
         homes_.data(), places_.resize(count_));
}

void AtomBlocks::find(const Stream& stream, const Box& box, double reach, BlockList& list) {
  CellGrid grid = grid_;
  for (int d = 0; d < 3; ++d) {
    const double inverse_height = norm(Vec3{box.inverse[d], box.inverse[3 + d], box.inverse[6 + d]});
    grid.reach[d] = static_cast<int>(std::ceil(reach * inverse_height * grid.size[d]));
  }
  const BlockAtoms seen = atoms();
  const std::size_t blocks = seen.num_blocks();
  const auto run = [&](const std::int64_t* rows, std::uint64_t* neighbors) {
    launch(stream, warp_each(blocks, kSearchWarps), search, seen, grid, static_cast<float>(reach * reach),
           starts_.data(), list.counts.data(), rows, neighbors);
  };
  list.counts.resize(blocks * num_species_);
  run(nullptr, nullptr);
  primitives_.offsets(stream, list.counts, list.rows);
  std::int64_t total = 0;
  copy_to_host(stream, &total, list.rows.data() + list.counts.size(), sizeof(total));
  stream.synchronize();
  if (total > 0) run(list.rows.data(), list.neighbors.resize(total));
}

BlockAtoms AtomBlocks::atoms() const {
  return {count_, own_, num_species_, order_.data(), species_.data(), homes_.data(), places_.data(), cells_};
}

}  // namespace cuda
}  // namespace nearsight
