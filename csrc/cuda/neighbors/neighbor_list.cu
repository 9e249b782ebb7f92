#include <algorithm>
#include <cmath>

#include "core/engine/error.hpp"
#include "cuda/neighbors/neighbor_list.hpp"

namespace nearsight {
namespace cuda {

/// Bins of the cell, or along open directions of what the atoms fill.
struct Box {
  Matrix lattice, inverse;  // fractional coordinates are r · inverse
  double origin[3], per_unit[3];
  int count[3], reach[3];  // bins, and how many of them away a neighbor can be
  bool periodic[3];
  int first_bin;  // of all boxes

  __host__ __device__ int bin(const double* f) const {
    int found = 0;
    for (int a = 0; a < 3; ++a) {
      const int b = static_cast<int>((f[a] - origin[a]) * per_unit[a]);
      found = found * count[a] + (b < 0 ? 0 : b >= count[a] ? count[a] - 1 : b);
    }
    return first_bin + found;
  }
};

namespace {

// A key holds class, bin and atom, from the highest bits to the lowest.
constexpr int kAtomBits = 28, kBinBits = 28;
constexpr std::uint64_t kAtomMask = (std::uint64_t{1} << kAtomBits) - 1;
constexpr std::uint64_t kBinMask = (std::uint64_t{1} << kBinBits) - 1;
constexpr double kMargin = 1e-6;  // Å, so that round-off loses no pair at the cutoff

Matrix as_matrix(const Mat3& from) {
  Matrix to;
  std::copy(from.begin(), from.end(), to.m);
  return to;
}

/// The boxes of all systems.
struct Boxes {
  const Box* boxes;
  const std::int32_t* systems;  // [host atoms]; null: one system

  __device__ const Box& of(std::size_t atom) const { return boxes[systems ? systems[atom] : 0]; }
};

/// Keys of atoms of the model, and 2^64 - 1 of the others; how often each lattice vector was taken off.
__global__ void make_keys(std::size_t count, const double* positions, const std::int32_t* classes,
                          Boxes boxes, std::int32_t* wraps, std::uint64_t* search_keys,
                          std::uint64_t* order_keys) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  const Box box = boxes.of(i);
  double f[3];
  for (int a = 0; a < 3; ++a) {
    f[a] = positions[3 * i] * box.inverse.m[a] + positions[3 * i + 1] * box.inverse.m[3 + a] +
           positions[3 * i + 2] * box.inverse.m[6 + a];
    const double w = box.periodic[a] ? floor(f[a]) : 0.0;
    wraps[3 * i + a] = static_cast<std::int32_t>(w);
    f[a] -= w;
  }
  const bool seen = classes[i] >= 0;
  const std::uint64_t bin = box.bin(f), key = bin << kAtomBits | i;
  search_keys[i] = seen ? key : ~std::uint64_t{0};
  order_keys[i] =
      seen ? static_cast<std::uint64_t>(classes[i]) << (kAtomBits + kBinBits) | key : ~std::uint64_t{0};
}

__global__ void read_order(int count, const std::uint64_t* keys, int num_species, std::int32_t* atoms,
                           std::int32_t* species, std::int32_t* rank, const std::int32_t* host_species) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(count)) return;
  const auto atom = static_cast<std::int32_t>(keys[k] & kAtomMask);
  atoms[k] = atom;
  rank[atom] = static_cast<std::int32_t>(k);
  const int c = host_species[atom];
  species[k] = c < 2 * num_species ? c % num_species : c - 2 * num_species;
}

__global__ void gather_points(int count, const double* positions, const std::int32_t* atoms,
                              Vec4<double>* points) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(count)) return;
  const double* const r = positions + 3 * static_cast<std::size_t>(atoms[k]);
  points[k] = {r[0], r[1], r[2], 0.0};
}

/// x = r - wrap · lattice.
__global__ void wrap_points(int count, const double* positions, const std::int32_t* atoms,
                            const std::int32_t* wraps, Boxes boxes, Vec4<double>* points) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(count)) return;
  const std::size_t i = atoms[k];
  const Matrix lattice = boxes.of(i).lattice;
  double x[3];
  for (int c = 0; c < 3; ++c)
    x[c] = positions[3 * i + c] - (wraps[3 * i] * lattice.m[c] + wraps[3 * i + 1] * lattice.m[3 + c] +
                                   wraps[3 * i + 2] * lattice.m[6 + c]);
  points[k] = {x[0], x[1], x[2], 0.0};
}

/// Atoms by bin, and the first of each bin.
__global__ void read_bins(int count, int num_bins, const std::uint64_t* keys, const std::int32_t* rank,
                          const Vec4<double>* points, Vec4<double>* sorted, std::int32_t* numbers,
                          std::int32_t* bin_first) {
  const std::size_t s = thread_number();
  if (s > static_cast<std::size_t>(count)) return;
  const int before = s == 0 ? -1 : static_cast<int>(keys[s - 1] >> kAtomBits & kBinMask);
  const bool is_end = s == static_cast<std::size_t>(count);
  const int bin = is_end ? num_bins : static_cast<int>(keys[s] >> kAtomBits & kBinMask);
  for (int b = before + 1; b <= bin; ++b) bin_first[b] = static_cast<std::int32_t>(s);
  if (is_end) return;
  const std::int32_t number = rank[keys[s] & kAtomMask];
  numbers[s] = number;
  sorted[s] = points[number];
}

struct Search {
  Boxes boxes;
  const Vec4<double>* points;
  const Vec4<double>* sorted;
  const std::int32_t* numbers;
  const std::int32_t* bin_first;
  double reach_squared;
  int num_rows, num_centers;
  const std::int32_t* atoms;
  const std::int32_t* wraps;
};

/// Bins away from one, with the translations of those beyond the cell's faces.
__host__ __device__ inline int fold(int b, int count, int& image) {
  image = b >= 0 ? b / count : -((count - 1 - b) / count);
  return b - image * count;
}

/// Calls found(number, translation) for every neighbor of a row; rows of atoms that are no centers see
/// centers only.
template <class Found>
__device__ inline void find_neighbors(const Search& s, int row, const Found& found) {
  const Vec4<double> x = s.points[row];
  const Box& g = s.boxes.of(s.atoms[row]);
  double f[3];
  int bin[3];
  for (int a = 0; a < 3; ++a) {
    f[a] = x.x * g.inverse.m[a] + x.y * g.inverse.m[3 + a] + x.z * g.inverse.m[6 + a];
    const int b = static_cast<int>((f[a] - g.origin[a]) * g.per_unit[a]);
    bin[a] = b < 0 ? 0 : b >= g.count[a] ? g.count[a] - 1 : b;
  }
  for (int i = bin[0] - g.reach[0]; i <= bin[0] + g.reach[0]; ++i) {
    if (!g.periodic[0] && (i < 0 || i >= g.count[0])) continue;
    int image[3];
    const int b0 = fold(i, g.count[0], image[0]);
    for (int j = bin[1] - g.reach[1]; j <= bin[1] + g.reach[1]; ++j) {
      if (!g.periodic[1] && (j < 0 || j >= g.count[1])) continue;
      const int b1 = fold(j, g.count[1], image[1]);
      for (int k = bin[2] - g.reach[2]; k <= bin[2] + g.reach[2]; ++k) {
        if (!g.periodic[2] && (k < 0 || k >= g.count[2])) continue;
        const int b2 = fold(k, g.count[2], image[2]);
        const int b = g.first_bin + (b0 * g.count[1] + b1) * g.count[2] + b2;
        double shift[3];
        for (int c = 0; c < 3; ++c)
          shift[c] =
              image[0] * g.lattice.m[c] + image[1] * g.lattice.m[3 + c] + image[2] * g.lattice.m[6 + c];
        const bool self_image = image[0] == 0 && image[1] == 0 && image[2] == 0;
        for (int n = s.bin_first[b]; n < s.bin_first[b + 1]; ++n) {
          const Vec4<double> y = s.sorted[n];
          const double dx = y.x - x.x + shift[0], dy = y.y - x.y + shift[1], dz = y.z - x.z + shift[2];
          if (dx * dx + dy * dy + dz * dz >= s.reach_squared) continue;
          const int number = s.numbers[n];
          if (number == row && self_image) continue;
          if (row >= s.num_centers && number >= s.num_centers) continue;
          found(number, image);
        }
      }
    }
  }
}

__global__ void count_neighbors(Search search, std::int32_t* counts) {
  const std::size_t row = thread_number();
  if (row >= static_cast<std::size_t>(search.num_rows)) return;
  std::int32_t count = 0;
  find_neighbors(search, static_cast<int>(row), [&](int, const int*) { ++count; });
  counts[row] = count;
}

/// Translations are written for positions as given.
__global__ void write_neighbors(Search search, const std::int64_t* offsets, std::int32_t* neighbors,
                                Image* images, int* too_far) {
  const std::size_t row = thread_number();
  if (row >= static_cast<std::size_t>(search.num_rows)) return;
  std::int64_t to = offsets[row];
  find_neighbors(search, static_cast<int>(row), [&](int number, const int* image) {
    neighbors[to] = number;
    if (images) {
      const std::int32_t* const own = search.wraps + 3 * static_cast<std::size_t>(search.atoms[row]);
      const std::int32_t* const other = search.wraps + 3 * static_cast<std::size_t>(search.atoms[number]);
      std::int16_t shift[3];
      for (int a = 0; a < 3; ++a) {
        const std::int32_t whole = image[a] + own[a] - other[a];
        shift[a] = static_cast<std::int16_t>(whole);
        if (shift[a] != whole) *too_far = 1;
      }
      images[to] = {shift[0], shift[1], shift[2]};
    }
    ++to;
  });
}

/// Whether an atom is further than allowed from where the change of the cell has taken it. NaN is.
__global__ void find_moved(std::size_t count, const double* positions, const double* last, Matrix deformation,
                           double allowed_squared, int* moved) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  double sum = 0.0;
  for (int c = 0; c < 3; ++c) {
    const double affine = last[3 * i] * deformation.m[c] + last[3 * i + 1] * deformation.m[3 + c] +
                          last[3 * i + 2] * deformation.m[6 + c];
    const double delta = positions[3 * i + c] - affine;
    sum += delta * delta;
  }
  if (!(sum <= allowed_squared)) *moved = 1;
}

/// Bins of about half the reach, not many more than atoms.
Box make_box(Span<const double> positions, const Lattice& lattice, double reach, int first_bin) {
  Box box{as_matrix(lattice.vectors), as_matrix(lattice.inverse), {}, {}, {}, {}, {}, first_bin};
  const std::size_t atoms = positions.size() / 3;
  double extent[3], height[3];
  for (int a = 0; a < 3; ++a) {
    box.periodic[a] = lattice.pbc[a];
    extent[a] = 1.0;
    if (!lattice.pbc[a] && atoms > 0) {
      double low = 1e300, high = -1e300;
      for (std::size_t i = 0; i < atoms; ++i) {
        const double f = times(point(positions, i), lattice.inverse)[a];
        low = std::min(low, f);
        high = std::max(high, f);
      }
      box.origin[a] = low;
      extent[a] = std::max(high - low, 1e-3 * reach);
    }
    height[a] = extent[a] * lattice.heights[a];
  }
  // A few atoms far apart must not ask for endless bins.
  const double most = std::max(64.0, 4.0 * static_cast<double>(atoms));
  double width = 0.5 * reach;
  for (bool fits = false; !fits; width *= 1.25) {
    double total = 1;
    for (int a = 0; a < 3; ++a) {
      const double bins = std::max(1.0, std::min(std::floor(height[a] / width), 500.0));
      box.count[a] = static_cast<int>(bins);
      total *= bins;
    }
    fits = total <= most;
  }
  for (int a = 0; a < 3; ++a) {
    box.per_unit[a] = box.count[a] / extent[a];
    box.reach[a] = static_cast<int>(std::ceil(reach * box.count[a] / height[a]));
    if (!box.periodic[a]) box.reach[a] = std::min(box.reach[a], box.count[a] - 1);
  }
  return box;
}

}  // namespace

NeighborList::NeighborList(double cutoff, double skin, int num_species, bool all_rows)
    : cutoff_(cutoff), skin_(skin), num_species_(num_species), all_rows_(all_rows) {
  Skin(cutoff, skin);  // checks them
  if (2 * num_species + num_species > 255)
    throw Error(ErrorKind::unsupported, "device cuda knows models of up to 85 species, and this one has " +
                                            std::to_string(num_species) + ": use device cpu");
}

bool NeighborList::holds(const Stream& stream, const double* positions, std::size_t count, const Cell& cell) {
  if (!valid_ || count != num_host_) return false;
  const auto motion = allowed_motion(cutoff_, cutoff_ + skin_, cell_, cell);
  if (!motion) return false;
  flag_.clear(stream, 1);
  launch(stream, one_each(count), find_moved, count, positions, last_.data(), as_matrix(motion->deformation),
         motion->allowed * motion->allowed, flag_.data());
  int moved = 0;
  flag_.download(stream, {&moved, 1});
  stream.synchronize();
  return moved == 0;
}

void NeighborList::update(const Stream& stream, Span<const double> positions, const Cell& cell,
                          const AtomClasses& classes, bool changed) {
  const std::size_t count = positions.size() / 3;
  if (changed || !holds(stream, positions.data(), count, cell)) {
    const std::size_t first_atoms[] = {0, count};
    make(stream, positions, {first_atoms, 2}, {&cell, 1}, classes);
    last_.resize(positions.size());
    copy_on_device(stream, last_.data(), positions.data(), positions.size() * sizeof(double));
    cell_ = cell;
    valid_ = skin_ > 0;
  }
  lattice_ = complete(cell, cutoff_ + skin_).vectors;
  gather(stream, positions.data());
}

void NeighborList::update(const Stream& stream, Span<const double> positions,
                          Span<const std::size_t> first_atoms, Span<const Cell> cells,
                          const AtomClasses& classes) {
  make(stream, positions, first_atoms, cells, classes);
  gather(stream, positions.data());
}

void NeighborList::make(const Stream& stream, Span<const double> positions,
                        Span<const std::size_t> first_atoms, Span<const Cell> cells,
                        const AtomClasses& classes) {
  valid_ = false;
  num_host_ = positions.size() / 3;
  const int num_bins = find_boxes(stream, positions, first_atoms, cells);
  classes_.upload(stream, Span<const std::int32_t>(classes.data(), classes.size()));
  find_order(stream, positions.data(), classes);
  find_neighbors_of_all(stream, positions.data(), num_bins);
  ++num_builds_;
}

/// Returns the bins of all boxes.
int NeighborList::find_boxes(const Stream& stream, Span<const double> positions,
                             Span<const std::size_t> first_atoms, Span<const Cell> cells) {
  std::vector<double> host(positions.size());
  if (!host.empty()) copy_to_host(stream, host.data(), positions.data(), host.size() * sizeof(double));
  stream.synchronize();
  std::vector<Box> boxes;
  std::vector<Matrix> lattices;
  std::vector<std::int32_t> systems;
  int num_bins = 0;
  is_periodic_ = false;
  for (std::size_t s = 0; s < cells.size(); ++s) {
    const std::size_t first = first_atoms[s], count = first_atoms[s + 1] - first;
    const Span<const double> own(host.data() + 3 * first, 3 * count);
    const Lattice lattice = complete(cells[s], cutoff_ + skin_);
    check_positions(own, lattice);
    boxes.push_back(make_box(own, lattice, cutoff_ + skin_ + kMargin, num_bins));
    const Box& box = boxes.back();
    num_bins += box.count[0] * box.count[1] * box.count[2];
    is_periodic_ = is_periodic_ || box.periodic[0] || box.periodic[1] || box.periodic[2];
    lattices.push_back(box.lattice);
    systems.insert(systems.end(), count, static_cast<std::int32_t>(s));
  }
  if (cells.size() == 1) systems.clear();
  boxes_.upload(stream, boxes);
  lattices_.upload(stream, lattices);
  systems_.upload(stream, systems);
  return num_bins;
}

void NeighborList::gather(const Stream& stream, const double* positions) {
  points_.resize(order_.num_atoms);
  launch(stream, one_each(order_.num_atoms), gather_points, order_.num_atoms, positions, order_.atoms.data(),
         points_.data());
}

void NeighborList::find_order(const Stream& stream, const double* positions, const AtomClasses& classes) {
  const std::size_t count = classes.size();
  const Boxes boxes{boxes_.data(), systems_.empty() ? nullptr : systems_.data()};
  wraps_.resize(3 * count);
  search_keys_.resize(count);
  order_keys_.resize(count);
  rank_.resize(count);
  launch(stream, one_each(count), make_keys, count, positions, classes_.data(), boxes, wraps_.data(),
         search_keys_.data(), order_keys_.data());
  primitives_.sort(stream, search_keys_, kAtomBits + kBinBits);
  primitives_.sort(stream, order_keys_, 64);
  // Counts by class are known here; the order within is the device's.
  std::vector<int> of_class(3 * num_species_ + 1, 0);
  for (const int c : classes)
    if (c >= 0) ++of_class[c];
  order_.species_first.assign(2 * num_species_ + 1, 0);
  for (int c = 0; c < 2 * num_species_; ++c)
    order_.species_first[c + 1] = order_.species_first[c] + of_class[c];
  order_.num_rows = order_.species_first[num_species_];
  order_.num_centers = order_.species_first[2 * num_species_];
  order_.num_atoms = order_.num_centers;
  for (int c = 2 * num_species_; c < 3 * num_species_; ++c) order_.num_atoms += of_class[c];
  order_.atoms.resize(order_.num_atoms);
  order_.species.resize(order_.num_atoms);
  launch(stream, one_each(order_.num_atoms), read_order, order_.num_atoms, order_keys_.data(), num_species_,
         order_.atoms.data(), order_.species.data(), rank_.data(), classes_.data());
}

void NeighborList::find_neighbors_of_all(const Stream& stream, const double* positions, int num_bins) {
  const Boxes boxes{boxes_.data(), systems_.empty() ? nullptr : systems_.data()};
  const int atoms = order_.num_atoms;
  wrapped_.resize(atoms);
  launch(stream, one_each(atoms), wrap_points, atoms, positions, order_.atoms.data(), wraps_.data(), boxes,
         wrapped_.data());
  sorted_.resize(atoms);
  numbers_.resize(atoms);
  bin_first_.resize(num_bins + 1);
  launch(stream, one_each(atoms + 1), read_bins, atoms, num_bins, search_keys_.data(), rank_.data(),
         wrapped_.data(), sorted_.data(), numbers_.data(), bin_first_.data());
  const double reach = cutoff_ + skin_ + kMargin;
  const int rows = all_rows_ ? atoms : order_.num_centers;
  const Search search{
      boxes, wrapped_.data(),    sorted_.data(),      numbers_.data(), bin_first_.data(), reach * reach,
      rows,  order_.num_centers, order_.atoms.data(), wraps_.data()};
  counts_.resize(rows);
  launch(stream, one_each(rows, 128), count_neighbors, search, counts_.data());
  primitives_.offsets(stream, counts_, offsets_);
  host_offsets_.resize(rows + 1);
  offsets_.download(stream, host_offsets_);
  stream.synchronize();
  neighbors_.resize(host_offsets_.back());
  images_.resize(is_periodic_ ? host_offsets_.back() : 0);
  flag_.clear(stream, 1);
  launch(stream, one_each(rows, 128), write_neighbors, search, offsets_.data(), neighbors_.data(),
         is_periodic_ ? images_.data() : nullptr, flag_.data());
  if (!is_periodic_) return;
  int too_far = 0;
  flag_.download(stream, {&too_far, 1});
  stream.synchronize();
  if (too_far)
    throw Error(
        ErrorKind::numeric,
        "two neighbors are given more than 32,767 lattice vectors apart, which device cuda cannot tell: wrap "
        "the atoms into the cell");
}

}  // namespace cuda
}  // namespace nearsight
