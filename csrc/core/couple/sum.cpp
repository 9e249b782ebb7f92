#include <algorithm>

#include "core/couple/couple.hpp"

namespace nearsight {
namespace {

class Sum final : public Couple {
 public:
  int columns() const override { return 1; }
  bool is_local() const override { return true; }
  void evaluate(Span<const double> readouts, const AllSum&, Span<double> cotangents,
                Span<double> energies) const override {
    std::copy(readouts.begin(), readouts.end(), energies.begin());
    std::fill(cotangents.begin(), cotangents.end(), 1.0);
  }
};

}  // namespace

std::unique_ptr<Couple> make_sum() {
  return std::make_unique<Sum>();
}

}  // namespace nearsight
