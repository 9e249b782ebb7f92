#include "core/mesh/ewald.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/periodic.hpp"

namespace nearsight {
namespace {

constexpr double kDecays = 6.2;       // exp(-kDecays²) is below round-off, in either space
constexpr double kTolerance = 1e-17;  // of slabs

/// One term of the reciprocal sum, which stands for k and -k.
class Wave {
 public:
  Wave(const Charges& charges, const Box& box)
      : charges_(charges), box_(box), cosine_(charges.size()), sine_(charges.size()) {
    for (std::size_t i = 0; i < charges.size(); ++i)
      fractions_.push_back(times(point(charges.positions, i), box.inverse));
  }

  void add(const Vec3& h, const Vec3& k, double alpha, Coulomb& result) {
    double real = 0, imaginary = 0;
    for (std::size_t i = 0; i < charges_.size(); ++i) {
      const double turns = dot(h, fractions_[i]), phase = 2.0 * kPi * (turns - std::round(turns));
      cosine_[i] = std::cos(phase);
      sine_[i] = std::sin(phase);
      real += charges_.values[i] * cosine_[i];
      imaginary += charges_.values[i] * sine_[i];
    }
    const double k2 = dot(k, k), quarter = 0.25 / (alpha * alpha);
    const double weight = 2.0 * 4.0 * kPi / box_.volume * std::exp(-quarter * k2) / k2;
    for (std::size_t i = 0; i < charges_.size(); ++i) {
      result.potentials[i] += weight * (cosine_[i] * real + sine_[i] * imaginary);
      const double slope = weight * (sine_[i] * real - cosine_[i] * imaginary);
      for (int c = 0; c < 3; ++c) result.fields[3 * i + c] += slope * k[c];
    }
    const double energy = 0.5 * weight * (real * real + imaginary * imaginary);
    for (int c = 0; c < 3; ++c) result.virial[c] += energy;
    result.add_virial(-2.0 * energy * (1.0 / k2 + quarter), k);
  }

 private:
  const Charges& charges_;
  const Box& box_;
  std::vector<Vec3> fractions_;
  std::vector<double> cosine_, sine_;
};

void add_reciprocal(const Charges& charges, const Box& box, double alpha, Coulomb& result) {
  const double longest = 2.0 * alpha * kDecays;
  int most[3];
  for (int d = 0; d < 3; ++d) most[d] = static_cast<int>(longest * norm(row(box.vectors, d)) / (2.0 * kPi));
  Wave wave(charges, box);
  for (int h0 = 0; h0 <= most[0]; ++h0)
    for (int h1 = h0 ? -most[1] : 0; h1 <= most[1]; ++h1)
      for (int h2 = h0 || h1 ? -most[2] : 1; h2 <= most[2]; ++h2) {
        const Vec3 h{double(h0), double(h1), double(h2)};
        Vec3 k;
        for (int c = 0; c < 3; ++c) k[c] = 2.0 * kPi * dot(h, row(box.inverse, c));
        if (dot(k, k) <= longest * longest) wave.add(h, k, alpha, result);
      }
}

}  // namespace

void ewald(const Charges& charges, const Cell& cell, double splitting, ThreadPool& threads, Coulomb& result) {
  if (!(splitting >= 0) || !std::isfinite(splitting)) {
    std::ostringstream message;
    message << "the splitting of Ewald's sum is " << splitting
            << " 1/Å, but it must be positive, or 0 for the automatic one: correct it";
    throw Error(ErrorKind::argument, message.str());
  }
  if (!cell.pbc[0] && !cell.pbc[1] && !cell.pbc[2]) return direct_sum(charges, charges.size(), true, result);
  Ranks alone;
  const Box box = make_box(charges, cell, 1.0, kTolerance, 0.0, alone);
  result.clear(charges.size());
  if (charges.size() == 0) return;
  const double density = static_cast<double>(charges.size()) / (box.volume * box.volume);
  const double alpha = splitting > 0 ? splitting : std::sqrt(kPi) * std::pow(density, 1.0 / 6.0);
  const double cutoff = kDecays * std::max(1.0 / alpha, 2.0 * charges.max_width());
  add_short_range(charges, box, alpha, cutoff, threads, result);
  add_reciprocal(charges, box, alpha, result);
  add_corrections(charges, box, alpha, cutoff, alone, result);
  result.finish(charges);
}

}  // namespace nearsight
