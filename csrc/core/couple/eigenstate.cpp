#include <Eigen/Eigenvalues>
#include <vector>

#include "core/couple/couple.hpp"
#include "core/engine/error.hpp"

namespace nearsight {
namespace {

class Eigenstate final : public Couple {
 public:
  Eigenstate(int num_states, int state) : num_states_(num_states), state_(state) {}
  int columns() const override { return num_states_ * (num_states_ + 1) / 2; }
  bool is_local() const override { return false; }

  void evaluate(const Coupled& system, const Communicator& ranks, ThreadPool&, Joined& joined) override {
    const std::size_t width = columns(), rows = joined.energies.size();
    std::vector<double> total(width, 0.0);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t c = 0; c < width; ++c) total[c] += system.readouts[row * width + c];
    ranks.all_sum(total);

    Eigen::MatrixXd hamiltonian(num_states_, num_states_);
    for (int a = 0, c = 0; a < num_states_; ++a)
      for (int b = a; b < num_states_; ++b) hamiltonian(a, b) = hamiltonian(b, a) = total[c++];
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(hamiltonian);
    if (solver.info() != Eigen::Success)
      throw Error(ErrorKind::numeric,
                  "the diabatic matrix has entries that are not finite: check the geometry");
    const Eigen::VectorXd u = solver.eigenvectors().col(state_);

    // Off-diagonal entries stand for two elements of the matrix.
    std::vector<double> weight;
    for (int a = 0; a < num_states_; ++a)
      for (int b = a; b < num_states_; ++b) weight.push_back((a == b ? 1.0 : 2.0) * u(a) * u(b));
    for (std::size_t row = 0; row < rows; ++row) {
      joined.energies[row] = 0.0;
      for (std::size_t c = 0; c < width; ++c) {
        joined.cotangents[row * width + c] = weight[c];
        joined.energies[row] += weight[c] * system.readouts[row * width + c];
      }
    }
  }

 private:
  int num_states_, state_;
};

}  // namespace

std::unique_ptr<Couple> make_eigenstate(int num_states, int state) {
  if (num_states < 1 || state < 0 || state >= num_states)
    throw Error(ErrorKind::file, "couple 'eigenstate': state " + std::to_string(state) + " of " +
                                     std::to_string(num_states) + " does not exist; states count from 0");
  return std::make_unique<Eigenstate>(num_states, state);
}

}  // namespace nearsight
