#include <algorithm>

#include "core/couple/couple.hpp"
#include "core/engine/error.hpp"

namespace nearsight {
namespace {

class Sum final : public Couple {
 public:
  explicit Sum(int members) : members_(members) {}
  int columns() const override { return members_; }
  int members() const override { return members_; }
  bool is_local() const override { return true; }
  void evaluate(Span<const double> readouts, const AllSum&, Span<double> cotangents,
                Span<double> energies) const override {
    const double share = 1.0 / members_;
    for (std::size_t row = 0; row < energies.size(); ++row) {
      double sum = 0.0;
      for (int m = 0; m < members_; ++m) sum += readouts[row * members_ + m];
      energies[row] = sum * share;
    }
    std::fill(cotangents.begin(), cotangents.end(), share);
  }

 private:
  int members_;
};

}  // namespace

std::unique_ptr<Couple> make_sum(int members) {
  if (members < 1)
    throw Error(ErrorKind::file, "the couple 'sum' has " + std::to_string(members) +
                                     " members, expected at least 1: export the model again");
  return std::make_unique<Sum>(members);
}

}  // namespace nearsight
