#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/mesh/mesh.hpp"
#include "cuda/mesh/spline_kernels.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// Leaves zeros for the next charges.
template <class T>
__global__ void convert(std::size_t count, unsigned long long* integers, T unit, T* mesh) {
  const std::size_t m = thread_number();
  if (m >= count) return;
  mesh[m] = static_cast<T>(static_cast<long long>(integers[m])) * unit;
  integers[m] = 0;
}

BrickShape shape_of(const Block& brick, const std::array<int, 3>& lengths, int order) {
  BrickShape shape{};
  for (int d = 0; d < 3; ++d) {
    shape.lengths[d] = lengths[d];
    shape.first[d] = brick.first[d];
    shape.size[d] = brick.size[d];
  }
  shape.order = order;
  return shape;
}

}  // namespace

template <class T>
Mesh<T>::Mesh(const PmeParameters& parameters, const Pencils& pencils, int rank, const Stream& stream)
    : lengths_(parameters.mesh), order_(parameters.order), rank_(rank) {
  if (pencils.points.size() == 1)
    waves_ = std::make_unique<WaveSum<T>>(parameters, stream);
  else
    host_waves_ =
        std::make_unique<nearsight::WaveSum<T>>(lengths_, order_, parameters.splitting, pencils, rank);
}

template <class T>
void Mesh<T>::spread(const Stream& stream, const DeviceCharges& charges, const std::int32_t* order,
                     double total, const Box& box, const std::vector<Region>& regions) {
  bricks_ = find_bricks(regions, lengths_, order_);
  const Block& brick = bricks_[rank_];
  const std::size_t points = brick.volume();
  if (integers_.size() != points) integers_.clear(stream, points);
  mesh_.resize(points);
  // Weights of all points add up to 1, so that no sum exceeds 2^61; the unit stays a normal number.
  const int most = std::numeric_limits<T>::max_exponent - 10;
  const int exponent = total > 0 ? std::min(60 - std::ilogb(total), most) : 0;
  launch(stream, spline_grid(charges.own), nearsight::cuda::spread<T>, charges, order, Axes(box),
         shape_of(brick, lengths_, order_), static_cast<T>(std::ldexp(1.0, exponent)), integers_.data());
  launch(stream, one_each(points), convert<T>, points, integers_.data(),
         static_cast<T>(std::ldexp(1.0, -exponent)), mesh_.data());
  if (!host_waves_) return;
  mesh_.download(stream, {host_.resize(points), points});
  stream.synchronize();
}

template <class T>
void Mesh<T>::convolve(const Stream& stream, const Box& box, double* virials, ThreadPool& threads,
                       Ranks& ranks, Coulomb& result) {
  if (waves_) return waves_->apply(stream, mesh_.data(), box, virials);
  const auto row = static_cast<std::size_t>(bricks_[rank_].size[2]);
  host_waves_->apply(host_.data(), row, bricks_, box, threads, ranks, result);
  mesh_.upload(stream, {host_.data(), host_.size()});
}

template <class T>
void Mesh<T>::gather(const Stream& stream, const DeviceCharges& charges, const std::int32_t* order,
                     const Box& box, const ChargeSums& sums) const {
  launch(stream, spline_grid(charges.own), nearsight::cuda::gather<T>, charges, order, Axes(box),
         shape_of(bricks_[rank_], lengths_, order_), mesh_.data(), sums);
}

template class Mesh<float>;
template class Mesh<double>;

}  // namespace cuda
}  // namespace nearsight
