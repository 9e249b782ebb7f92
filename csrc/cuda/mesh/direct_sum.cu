#include "core/mesh/kernels.hpp"
#include "cuda/mesh/direct_sum.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr unsigned kWarps = 8;  // of a block; a warp for each charge
constexpr double kTwoOverRootPi = 1.12837916709551257390;

/// 1 / r, or of Gaussians erf(a r) / r, and minus its derivative over r.
template <bool kGaussian>
__device__ inline void pair(double r2, double width2, double& value, double& force) {
  const double inverse = rsqrt(r2), inverse2 = inverse * inverse;
  value = inverse;
  force = inverse * inverse2;
  if (!kGaussian || !(width2 > 0)) return;
  const double a = rsqrt(2.0 * width2), reach = a * r2 * inverse;
  const double outer = erfc(reach) * inverse;
  value -= outer;
  force -= (outer + kTwoOverRootPi * a * exp(-reach * reach)) * inverse2;
}

template <bool kGaussian>
__global__ void __launch_bounds__(kWarp* kWarps) sum_pairs(DeviceCharges charges, ChargeSums sums) {
  const int n = charges.count;
  const std::size_t warp = warp_number();
  const bool taken = warp < static_cast<std::size_t>(charges.own);
  const int i = taken ? static_cast<int>(warp) : 0;
  const double* const r = charges.positions;
  const double x = r[3 * i], y = r[3 * i + 1], z = r[3 * i + 2];
  const double width = kGaussian ? charges.widths[i] : 0.0;
  double total[4] = {}, virial[6] = {};
  for (int j = taken ? lane_number() : n; j < n; j += kWarp) {
    if (j == i) continue;
    const double dx = r[3 * j] - x, dy = r[3 * j + 1] - y, dz = r[3 * j + 2] - z;
    const double r2 = dx * dx + dy * dy + dz * dz;
    if (!(r2 >= pairs::kClosest * pairs::kClosest)) {
      report_close(sums.closest, i, j);
      continue;
    }
    const double other = kGaussian ? charges.widths[j] : 0.0;
    double value, force;
    pair<kGaussian>(r2, width * width + other * other, value, force);
    const double q = charges.values[j], qx = q * force * dx, qy = q * force * dy, qz = q * force * dz;
    total[0] += q * value;
    total[1] -= qx, total[2] -= qy, total[3] -= qz;
    virial[0] += qx * dx, virial[1] += qy * dy, virial[2] += qz * dz;
    virial[3] += qx * dy, virial[4] += qx * dz, virial[5] += qy * dz;
  }
  for (double& sum : total) sum = warp_sum(sum);
  if (taken && lane_number() == 0) {
    if (sums.fields)
      for (int s = 0; s < 4; ++s) sums.values[4 * static_cast<std::size_t>(i) + s] = total[s];
    else
      sums.values[i] = total[0];
  }
  if (!sums.fields) return;
  const double half = taken ? 0.5 * charges.values[i] : 0.0;  // the other half is with the others
  for (double& sum : virial) sum *= half;
  sum_block<kWarp * kWarps>(virial, sums.virials + 6 * static_cast<std::size_t>(blockIdx.x));
}

}  // namespace

std::size_t direct_sum_rows(std::size_t num_charges) {
  return warp_each(num_charges, kWarps).blocks.x;
}

void direct_sum(const Stream& stream, const DeviceCharges& charges, const ChargeSums& sums) {
  const auto kernel = charges.widths ? sum_pairs<true> : sum_pairs<false>;
  launch(stream, warp_each(charges.own, kWarps), kernel, charges, sums);
}

}  // namespace cuda
}  // namespace nearsight
