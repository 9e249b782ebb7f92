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
  void evaluate(const Coupled& system, const Communicator&, ThreadPool&, Joined& joined) override {
    const double share = 1.0 / members_;
    for (std::size_t row = 0; row < joined.energies.size(); ++row) {
      double sum = 0.0;
      for (int m = 0; m < members_; ++m) sum += system.readouts[row * members_ + m];
      joined.energies[row] = sum * share;
    }
    std::fill(joined.cotangents.begin(), joined.cotangents.end(), share);
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
