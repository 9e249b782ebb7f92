#pragma once
#include <cstdint>
#include <vector>

#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"
#include "core/models/networks/kernels.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace networks {

/// The networks of one species: layers z = W y + b, y' = a(z).
struct NetworkShape {
  int members;
  std::vector<int> widths;  // inputs, hidden, outputs
  std::vector<Activation> activations;

  int layers() const { return static_cast<int>(activations.size()); }
  int inputs() const { return widths.front(); }
  int outputs() const { return widths.back(); }
  /// Of a member, by layers: W [outputs][inputs], b [outputs].
  std::size_t num_weights() const;
  /// Numbers of an atom that a forward pass leaves for the others.
  std::size_t state_width() const;
};

/// Atoms of the species, and the features of all atoms, [all atoms][stride].
struct Inputs {
  Span<const std::int64_t> atoms;
  const double* table;
  std::size_t stride;
  const double* shift;  // [inputs]
};

/// Passes through the networks in double, for weights that change with every step. Features enter without
/// their shift. Outputs N and their cotangents are [all atoms][members * outputs], gradients are
/// [members][num_weights]. Sums over atoms do not depend on the number of threads.
class Passes {
 public:
  Passes(const NetworkShape& shape, const double* weights, ThreadPool& threads);
  ~Passes();

  /// N, and state[atoms][state_width] for the other passes.
  void values(const Inputs& inputs, double* state, double* outputs);
  /// c = Σ over members of dN/dx · cotangents, [all atoms][stride].
  void gradient(Span<const std::int64_t> atoms, const double* state, const double* cotangents, double* c,
                std::size_t stride);
  /// The gradient of Σ N · cotangents by the weights.
  void weights(const Inputs& inputs, const double* state, const double* cotangents, double* of_weights);
  /// Gradients of Σ v · c, c as of gradient() and directions v [all atoms][stride], by the weights, and where
  /// they are not null by the cotangents and by the table.
  void second(const Inputs& inputs, const double* state, const double* cotangents, const double* directions,
              double* of_weights, double* of_cotangents, double* of_table);

 private:
  struct Packed;   // a layer of a member, in panels
  struct Scratch;  // of a task
  template <class Body>
  void for_blocks(std::size_t num_atoms, const Body& body);
  void pack_forward();
  void pack_reverse(bool first);
  void sum_tasks(double* of_weights) const;
  void activate(Scratch& scratch, int member, const double* state, std::size_t first, int rows) const;
  void backward(Scratch& scratch, int member, Span<const std::int64_t> atoms, std::size_t first, int rows,
                const double* cotangents) const;
  void to_inputs(Scratch& scratch, int member, Span<const std::int64_t> atoms, std::size_t first, int rows,
                 const AlignedBuffer<double>& delta, double* table, std::size_t stride) const;
  void tangent(Scratch& scratch, int member, int rows) const;
  void adjoint_of_tangent(Scratch& scratch, int member, int rows) const;
  void add_gradients(Scratch& scratch, int member, int rows, bool with_tangent) const;

  const NetworkShape& shape_;
  ThreadPool& threads_;
  std::vector<std::vector<Packed>> layers_;  // [members]
  std::vector<Scratch> tasks_;
};

}  // namespace networks
}  // namespace nearsight
