#include "core/couple/equilibration.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "core/couple/molecules.hpp"
#include "core/engine/error.hpp"
#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

constexpr int kMostSteps = 500;
constexpr int kPast = 6;                // charges that a guess is made of
constexpr double kRoundedNoise = 1e-7;  // relative, of these: their squares stay above round-off
constexpr double kRoundOff = 2.0;       // how far a residual may be above the one asked for, so far unseen
constexpr double kSame = 4.0;           // how far apart the same charges may be, in residuals
constexpr double kSilence = 1e-14;      // relative differences of electronegativities that are none

/// What an atom remembers: whether there is something, and its charges, the last one first.
struct Past {
  double* numbers;

  static constexpr int kWidth = 2 + kPast;
  bool is_known() const { return numbers[0] > 0.0; }
  double* charges() const { return numbers + 1; }
  /// The first one stands for all before it.
  void add(double charge) const {
    if (is_known())
      std::copy_backward(charges(), charges() + kPast, charges() + kPast + 1);
    else
      std::fill_n(charges(), kPast + 1, charge);
    charges()[0] = charge;
    numbers[0] = 1.0;
  }
};

using Coefficients = std::array<double, kPast>;

/// Solves the equations, of which the lower triangle is given and stands row by row; they are positive
/// definite.
Coefficients solve(const double* matrix, Coefficients right) {
  double factor[kPast][kPast];  // Cholesky's
  for (int i = 0; i < kPast; ++i)
    for (int j = 0; j <= i; ++j) {
      double value = *matrix++;
      for (int k = 0; k < j; ++k) value -= factor[i][k] * factor[j][k];
      factor[i][j] = i == j ? std::sqrt(value) : value / factor[j][j];
    }
  for (int i = 0; i < kPast; ++i) {
    for (int k = 0; k < i; ++k) right[i] -= factor[i][k] * right[k];
    right[i] /= factor[i][i];
  }
  for (int i = kPast - 1; i >= 0; --i) {
    for (int k = i + 1; k < kPast; ++k) right[i] -= factor[k][i] * right[k];
    right[i] /= factor[i][i];
  }
  return right;
}

class EquilibratedCharges final : public ChargeRule {
 public:
  EquilibratedCharges(const ChargeRecord& record, const std::vector<std::string>& species)
      : record_(record), species_(species) {
    for (std::size_t z = 0; z < species.size(); ++z) {
      const double own = kCoulomb / (std::sqrt(kPi) * record.widths[z]);
      diagonal_of_.push_back(record.hardness[z] + own);
      if (diagonal_of_.back() > 0.0) continue;
      std::ostringstream message;
      message << "the hardness of " << species[z] << ", " << record.hardness[z] << " eV/e², and the " << own
              << " eV/e² that its width of " << record.widths[z]
              << " Å adds are not positive together, so that an atom's charge would grow without bound: "
                 "give it a larger hardness";
      throw Error(ErrorKind::file, message.str());
    }
    if (const char* const wanted = std::getenv("NEARSIGHT_RESIDUAL")) record_.residual = std::atof(wanted);
  }

  int columns() const override { return 1; }
  bool has_born_charges() const override { return false; }
  int memory() const override { return Past::kWidth; }

  void start(const Coupled& system, Span<const double> outer, Ranks& ranks, Span<double> charges) override {
    const std::size_t n = charges.size();
    molecules_ = Molecules(system);
    const std::size_t size = molecules_.size();
    right_.resize(n);
    diagonal_.resize(n);
    sums_.assign(3 * size + 1, 0.0);  // of 1 / d, b / d and atoms of each molecule, and of b²
    for (std::size_t i = 0; i < n; ++i) {
      diagonal_[i] = diagonal_of_[system.species[i]];
      right_[i] = -system.readouts[2 * i + 1] - outer[i];
      double* const sums = sums_.data() + 3 * molecules_[i];
      sums[0] += 1.0 / diagonal_[i];
      sums[1] += right_[i] / diagonal_[i];
      sums[2] += 1.0;
      sums_.back() += right_[i] * right_[i];
    }
    ranks.sum(sums_);
    softness_.assign(size, 1.0);  // of molecules without atoms, which no atom looks at
    num_atoms_.assign(size, 1.0);
    levels_.assign(size, 0.0);
    for (std::size_t m = 0; m < size; ++m) {
      const double* const sums = sums_.data() + 3 * m;
      if (sums[2] == 0.0) continue;
      softness_[m] = sums[0];
      num_atoms_[m] = sums[2];
      levels_[m] = (sums[1] - molecules_.charge(m)) / sums[0];
    }
    double squares = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      right_[i] -= levels_[molecules_[i]];
      squares += right_[i] * right_[i];
    }
    ranks.sum({&squares, 1});
    if (!std::isfinite(squares))
      throw Error(ErrorKind::numeric,
                  "an electronegativity is not a finite number: the structure is far outside what the model "
                  "was trained on, or the simulation has become unstable");
    if (squares <= kSilence * kSilence * sums_.back()) {
      squares = 0.0;
      std::fill(right_.begin(), right_.end(), 0.0);
    }
    scale_ = std::sqrt(squares);
    for (std::size_t i = 0; i < n; ++i) charges[i] = right_[i] / diagonal_[i];
  }

  int settle(const Coupled& system, const Potentials& potentials, Ranks& ranks,
             Span<double> charges) override {
    steps_ = 0;
    if (scale_ == 0.0) return 0;
    const bool guessed = guess(system.memory, ranks, charges);
    project(ranks, charges);
    if (begin(potentials, ranks, charges) > scale_ && guessed) {  // worse than no charges at all
      for (std::size_t i = 0; i < charges.size(); ++i) charges[i] = right_[i] / diagonal_[i];
      begin(potentials, ranks, charges);
    }
    steps_ = descend(potentials, ranks, charges);
    project(ranks, charges);
    const bool again = are_known(system.memory, ranks, charges);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const Past atom = past(system.memory, i);
      if (again)
        atom.charges()[0] = charges[i];
      else
        atom.add(charges[i]);
    }
    return steps_;
  }

  /// By the envelope theorem dE/dχ = q.
  void pull(const Coupled& system, int, Span<const double> charges, Span<const double> potentials,
            Ranks& ranks, Joined& joined) override {
    if (scale_ > 0.0) check(system, charges, potentials, ranks);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const double q = charges[i], energy = q * (system.readouts[2 * i + 1] + 0.5 * diagonal_[i] * q);
      joined.energies[i] += energy;
      joined.electrostatic += energy;
      joined.cotangents[2 * i + 1] = q;
    }
  }

 private:
  static Past past(Span<double> memory, std::size_t i) { return {memory.data() + Past::kWidth * i}; }

  /// Replaces the charges of atoms with a past by Σ c_k q_k of their last ones: with these coefficients those
  /// before the last one would have predicted it best, in the norm of d, if each had noise of the residual.
  /// Returns whether there are such atoms.
  bool guess(Span<double> memory, Ranks& ranks, Span<double> charges) const {
    constexpr int kPairs = kPast * (kPast + 1) / 2;
    // Of products of the past ones, of these with the last ones, and of atoms.
    std::array<double, kPairs + kPast + 1> sums{};
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const double* const q = past(memory, i).charges();
      double* sum = sums.data();
      for (int k = 0; k < kPast; ++k)
        for (int l = 0; l <= k; ++l) *sum++ += diagonal_[i] * diagonal_[i] * q[1 + k] * q[1 + l];
      for (int k = 0; k < kPast; ++k) *sum++ += diagonal_[i] * diagonal_[i] * q[1 + k] * q[0];
      *sum += past(memory, i).is_known();
    }
    ranks.sum({sums.data(), sums.size()});
    double trace = 0.0;
    for (int k = 0; k < kPast; ++k) trace += sums[k * (k + 3) / 2];
    const double noise = std::max(record_.residual * scale_, kRoundedNoise * std::sqrt(trace));
    for (int k = 0; k < kPast; ++k) sums[k * (k + 3) / 2] += noise * noise;
    Coefficients right;
    std::copy_n(sums.begin() + kPairs, kPast, right.begin());
    const Coefficients c = solve(sums.data(), right);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const Past atom = past(memory, i);
      if (!atom.is_known()) continue;
      charges[i] = 0.0;
      for (int k = 0; k < kPast; ++k) charges[i] += c[k] * atom.charges()[k];
    }
    return sums.back() > 0.0;
  }

  /// Whether these are the last charges, as far as the residual tells: hosts evaluate a structure twice, at
  /// the beginning of a run or for a report, and a second time is no step.
  bool are_known(Span<double> memory, Ranks& ranks, Span<const double> charges) const {
    double squares = 0.0;
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const Past atom = past(memory, i);
      const double change = diagonal_[i] * (charges[i] - atom.charges()[0]);
      squares += change * change;
    }
    ranks.sum({&squares, 1});
    return std::sqrt(squares) <= kSame * record_.residual * scale_;
  }

  /// The nearest charges with the right sums, in the norm of d.
  void project(Ranks& ranks, Span<double> charges) {
    sums_.assign(molecules_.size(), 0.0);
    for (std::size_t i = 0; i < charges.size(); ++i) sums_[molecules_[i]] += charges[i];
    ranks.sum(sums_);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const int m = molecules_[i];
      charges[i] += (molecules_.charge(m) - sums_[m]) / softness_[m] / diagonal_[i];
    }
  }

  /// The residual that is left, since that of conjugate gradients goes below round-off.
  void check(const Coupled& system, Span<const double> charges, Span<const double> potentials, Ranks& ranks) {
    double squares = 0.0;
    sums_.assign(molecules_.size(), 0.0);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const int m = molecules_[i];
      residual_[i] = -system.readouts[2 * i + 1] - potentials[i] - levels_[m] - diagonal_[i] * charges[i];
      sums_[m] += residual_[i];
    }
    ranks.sum(sums_);
    for (std::size_t i = 0; i < charges.size(); ++i) {
      const double left = residual_[i] - sums_[molecules_[i]] / num_atoms_[molecules_[i]];
      squares += left * left;
    }
    ranks.sum({&squares, 1});
    if (std::sqrt(squares) > kRoundOff * record_.residual * scale_) give_up(steps_, std::sqrt(squares));
  }

  /// A q
  void multiply(const Potentials& potentials, Span<const double> q) {
    potentials(q, product_);
    for (std::size_t i = 0; i < q.size(); ++i) product_[i] += diagonal_[i] * q[i];
  }

  /// The residual of charges, with mean 0 in every molecule in the weights 1 / d; returns its norm.
  double begin(const Potentials& potentials, Ranks& ranks, Span<const double> charges) {
    const std::size_t n = charges.size();
    product_.resize(n);
    residual_.resize(n);
    multiply(potentials, charges);
    double squares = 0.0;
    sums_.assign(molecules_.size(), 0.0);
    for (std::size_t i = 0; i < n; ++i) sums_[molecules_[i]] += (right_[i] - product_[i]) / diagonal_[i];
    ranks.sum(sums_);
    for (std::size_t i = 0; i < n; ++i) {
      residual_[i] = right_[i] - product_[i] - sums_[molecules_[i]] / softness_[molecules_[i]];
      squares += residual_[i] * residual_[i];
    }
    ranks.sum({&squares, 1});
    return std::sqrt(squares);
  }

  /// From the residual to charges; returns the number of steps.
  int descend(const Potentials& potentials, Ranks& ranks, Span<double> charges) {
    const std::size_t n = charges.size(), size = molecules_.size();
    direction_.assign(n, 0.0);
    double before = 0.0;
    for (int step = 0;; ++step) {
      sums_.assign(size + 2, 0.0);  // of r of each molecule, of r² and r² / d
      for (std::size_t i = 0; i < n; ++i) {
        const double r = residual_[i];
        sums_[molecules_[i]] += r;
        sums_[size] += r * r;
        sums_[size + 1] += r * r / diagonal_[i];
      }
      ranks.sum(sums_);
      double squares = sums_[size];
      for (std::size_t m = 0; m < size; ++m) squares -= sums_[m] * sums_[m] / num_atoms_[m];
      const double left = std::sqrt(std::max(0.0, squares)), now = sums_[size + 1];
      if (left <= record_.residual * scale_) return step;
      if (step == kMostSteps) give_up(step, left);
      // Σ p = 0 in every molecule, since the residual's mean with weights 1 / d is 0.
      for (std::size_t i = 0; i < n; ++i)
        direction_[i] = residual_[i] / diagonal_[i] + (step ? now / before : 0.0) * direction_[i];
      before = now;
      multiply(potentials, direction_);
      sums_.assign(size + 1, 0.0);  // of A p / d of each molecule, and pᵀ A p
      for (std::size_t i = 0; i < n; ++i) {
        sums_[molecules_[i]] += product_[i] / diagonal_[i];
        sums_[size] += direction_[i] * product_[i];
      }
      ranks.sum(sums_);
      if (!(sums_[size] > 0.0)) refuse();
      const double length = now / sums_[size];
      for (std::size_t i = 0; i < n; ++i) {
        const int m = molecules_[i];
        charges[i] += length * direction_[i];
        residual_[i] -= length * (product_[i] - sums_[m] / softness_[m]);
      }
    }
  }

  [[noreturn]] void give_up(int steps, double left) const {
    std::ostringstream message;
    message << "the equilibration of the charges has not converged: after " << steps
            << " steps the residual is " << left / scale_ << ", but " << record_.residual
            << " was asked for: check that the structure is like those of the training set, or train with a "
               "larger `residual` (1e-13 is about the smallest) or hardness";
    throw Error(ErrorKind::numeric, message.str());
  }

  /// Gaussians alone have a positive energy, so that only a negative hardness can do this.
  [[noreturn]] void refuse() const {
    const auto softest =
        std::min_element(record_.hardness.begin(), record_.hardness.end()) - record_.hardness.begin();
    std::ostringstream message;
    message << "the charges have no least energy, since the matrix of their interactions is not positive "
               "definite: the hardness of "
            << species_[softest] << ", " << record_.hardness[softest]
            << " eV/e², is too small for its width of " << record_.widths[softest]
            << " Å where atoms are this close: one that is not negative is always "
               "enough";
    throw Error(ErrorKind::numeric, message.str());
  }

  ChargeRecord record_;
  std::vector<std::string> species_;
  std::vector<double> diagonal_of_;  // [species] eV/e²
  int steps_ = 0;                    // of the last solution
  double scale_ = 0.0;               // |b - λ₀|, V
  Molecules molecules_;
  std::vector<double> levels_, softness_, num_atoms_;   // [molecules] λ₀ V, Σ 1 / d and atoms of all ranks
  std::vector<double> sums_;                            // work array
  std::vector<double> right_, diagonal_;                // [atoms] b - λ₀ V, d eV/e²
  std::vector<double> product_, residual_, direction_;  // [atoms]
};

}  // namespace

std::unique_ptr<ChargeRule> make_equilibrated_charges(const ChargeRecord& record,
                                                      const std::vector<std::string>& species) {
  return std::make_unique<EquilibratedCharges>(record, species);
}

}  // namespace nearsight
