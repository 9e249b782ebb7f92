// Charges up, potentials, fields and virial down.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "cuda/mesh/direct_sum.hpp"
#include "cuda/mesh/mesh.hpp"
#include "cuda/mesh/mirror.hpp"
#include "cuda/mesh/pme.hpp"
#include "cuda/mesh/short_range.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// What is there already does not travel again.
class Uploads {
 public:
  /// Returns whether positions or widths have changed.
  bool load(const Stream& stream, const Charges& charges) {
    const Span<const double> widths = charges.max_width() > 0 ? charges.widths : Span<const double>();
    values_.update(stream, charges.values);
    const bool moved = positions_.update(stream, charges.positions);
    return widths_.update(stream, widths) || moved;
  }

  /// The first `own` of them are this rank's.
  DeviceCharges get(std::size_t own) const {
    return {static_cast<int>(values_.size()), static_cast<int>(own), positions_.data(), values_.data(),
            widths_.size() ? widths_.data() : nullptr};
  }

 private:
  Mirror<double> positions_, values_, widths_;
};

/// Sums on the device, which travel together.
class Downloads {
 public:
  /// For n charges of this rank and so many rows of virials.
  ChargeSums prepare(const Stream& stream, std::size_t n, std::size_t rows, bool fields) {
    fields_ = fields;
    const std::size_t size = kHead + (fields ? 4 : 1) * n;
    numbers_.resize(size);
    fill_bytes(stream, numbers_.data() + kClosest, 0xff, sizeof(double));
    return {fields, numbers_.data() + kHead, rows_.resize(6 * rows),
            reinterpret_cast<unsigned long long*>(numbers_.data() + kClosest)};
  }

  /// Adds them, for this rank's of the charges. Waits for the device. Throws what check_distance throws.
  void finish(const Stream& stream, const Charges& charges, std::size_t own, const Box* box,
              ThreadPool& threads, Coulomb& result) {
    if (fields_) sum_rows(stream, rows_.size() / 6, 6, rows_.data(), numbers_.data());
    numbers_.download(stream, {host_.resize(numbers_.size()), numbers_.size()});
    stream.synchronize();
    const double* const found = host_.data();
    check_closest(found[kClosest], charges, own, box);
    threads.split(own, [&](int, std::size_t begin, std::size_t end) {
      const double* value = found + kHead + (fields_ ? 4 : 1) * begin;
      for (std::size_t i = begin; i < end; ++i) {
        result.potentials[i] += *value++;
        for (int c = 0; c < 3 && fields_; ++c) result.fields[3 * i + c] += *value++;
      }
    });
    for (int a = 0; a < 6 && fields_; ++a) result.virial[a] += found[a];
  }

 private:
  static constexpr std::size_t kClosest = 6, kHead = 8;  // virial, closest pair, then values from 64 bytes on

  static void check_closest(const double& bits, const Charges& charges, std::size_t own, const Box* box) {
    std::uint64_t pair;
    std::memcpy(&pair, &bits, sizeof(pair));
    if (pair == ~std::uint64_t{0}) return;
    const std::size_t i = pair >> 32, j = pair & 0xffffffffu;
    Vec3 r = point(charges.positions, j) - point(charges.positions, i);
    if (box) {  // the nearest image, which is very near
      const Vec3 s = times(r, box->inverse);
      r = r - times(Vec3{std::round(s[0]), std::round(s[1]), std::round(s[2])}, box->vectors);
    }
    check_distance(norm(r), i, j, own);
  }

  bool fields_ = false;
  Buffer<double> numbers_, rows_;
  Pinned<double> host_;
};

template <class T>
class CudaPme final : public PmeWork {
 public:
  CudaPme(const PmeParameters& parameters, const Pencils& pencils, int rank, int device_index)
      : device_(use_device(device_index)),
        pairs_(parameters.splitting, parameters.cutoff, kSkin * parameters.cutoff),
        mesh_(parameters, pencils, rank, stream_) {}

  /// Plans of cuFFT end on the device on which they were made.
  ~CudaPme() override {
    try {
      use_device(device_);
    } catch (const Error&) {  // then nothing is left of it
    }
  }

  /// The pairs are the device's while bricks of several ranks are with their hosts.
  void add(const Charges& own, const Box& box, bool fields, ThreadPool& threads, Ranks& ranks,
           PmeTimes& times, Coulomb& result) override {
    use_device(device_);
    const std::vector<Region> regions =
        ranks.alone() ? std::vector<Region>(1) : find_regions(own.positions, box, ranks);
    const Charges all = pairs_.collect(own, box, regions, ranks);
    const bool moved = uploads_.load(stream_, all) || vectors_ != box.vectors || !finished_;
    finished_ = false;
    vectors_ = box.vectors;
    const DeviceCharges charges = uploads_.get(own.size());
    pairs_.place(stream_, charges, own.positions, box, moved);
    double total = 0;
    for (const double q : own.values) total += std::abs(q);
    mesh_.spread(stream_, charges, pairs_.order(), total, box, regions);
    const std::size_t pair_rows = pairs_.num_rows(own.size());
    const ChargeSums sums = downloads_.prepare(stream_, own.size(), pair_rows + mesh_.num_rows(), fields);
    pairs_.sum(stream_, sums);
    const double transformed = mesh_.seconds();
    mesh_.convolve(stream_, box, fields ? sums.virials + 6 * pair_rows : nullptr, threads, ranks, result);
    mesh_.gather(stream_, charges, pairs_.order(), box, sums);
    downloads_.finish(stream_, all, own.size(), &box, threads, result);
    times.lists = pairs_.num_lists();
    times.transforms += mesh_.seconds() - transformed;
    finished_ = true;
  }

 private:
  int device_;
  Stream stream_;
  Uploads uploads_;
  ShortRange<T> pairs_;
  Mesh<T> mesh_;
  Downloads downloads_;
  Mat3 vectors_{};
  bool finished_ = false;  // the last evaluation: what is remembered can be trusted
};

class CudaDirectSum final : public PmeWork {
 public:
  explicit CudaDirectSum(int device_index) : device_(use_device(device_index)) {}

  void add(const Charges& own, const Box&, bool fields, ThreadPool& threads, Ranks& ranks, PmeTimes&,
           Coulomb& result) override {
    use_device(device_);
    const Charges all = surroundings_.all(own, ranks);
    uploads_.load(stream_, all);
    const std::size_t n = own.size();
    const ChargeSums sums = downloads_.prepare(stream_, n, direct_sum_rows(n), fields);
    direct_sum(stream_, uploads_.get(n), sums);
    downloads_.finish(stream_, all, n, nullptr, threads, result);
  }

 private:
  int device_;
  Stream stream_;
  ChargeSurroundings surroundings_;
  Uploads uploads_;
  Downloads downloads_;
};

}  // namespace

std::unique_ptr<PmeWork> make_pme(const PmeParameters& parameters, const Pencils& pencils, int rank,
                                  bool single, int device_index) {
  if (single) return std::make_unique<CudaPme<float>>(parameters, pencils, rank, device_index);
  return std::make_unique<CudaPme<double>>(parameters, pencils, rank, device_index);
}

std::unique_ptr<PmeWork> make_direct_sum(int device_index) {
  return std::make_unique<CudaDirectSum>(device_index);
}

}  // namespace cuda
}  // namespace nearsight
