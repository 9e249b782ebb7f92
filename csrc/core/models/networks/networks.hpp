#pragma once
#include <string>
#include <vector>

#include "core/io/tensors.hpp"
#include "core/models/networks/kernels.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace networks {

/// Layers of one species, all members of a committee side by side: an activation is a row of `members` blocks
/// of padded width. Members share the input, so that the first layer is one product.
template <class T>
struct Layer {
  int inputs, outputs;
  Activation activation;
  AlignedBuffer<T> forward;  // first layer [inputs][members * outputs], others [members][inputs][outputs]
  AlignedBuffer<T> reverse;  // first layer [members * outputs][inputs], others [members][outputs][inputs]
  AlignedBuffer<T> bias;     // [members * outputs]; all widths padded
};

/// One dense network per species and member of a committee, on shifted and scaled features. Immutable.
template <class T>
class Networks {
 public:
  /// `record` is {symbol: {"hidden": [widths], "activation": [one per layer]}} in JSON; every network has
  /// `columns` outputs. Throws Error (file).
  Networks(const std::string& record, const std::vector<std::string>& species,
           const std::vector<int>& num_features, int members, int columns, const Tensors& tensors);

  int members() const { return members_; }
  int columns() const { return columns_; }
  int num_features(int species) const { return static_cast<int>(of_species_[species].shift.size()); }

 private:
  template <class U>
  friend class NetworksWorkspace;
  struct Network {
    std::vector<Layer<T>> layers;
    std::vector<double> shift, scale;  // of the features
  };
  Layer<T> make_layer(const std::string& name, int inputs, int outputs, bool first, Activation activation,
                      const Tensors& tensors) const;

  int members_, columns_;
  std::vector<Network> of_species_;
  std::vector<double> output_scale_;
};

/// Activations of one block of atoms per species, between forward and reverse; one thread uses it.
template <class T>
class NetworksWorkspace {
 public:
  explicit NetworksWorkspace(const Networks<T>& networks);

  /// outputs[count][members * columns] from features[count][stride] of atoms of one species.
  void forward(int species, int count, const double* features, std::size_t stride, double* outputs);
  /// cotangents[count][stride] of the features from those of the outputs; after forward of the same block.
  void reverse(int species, int count, const double* output_cotangents, double* cotangents,
               std::size_t stride);

 private:
  struct Level {
    AlignedBuffer<T> values, derivatives;  // [count][width]
    int width;
  };
  const Networks<T>& networks_;
  std::vector<std::vector<Level>> levels_;  // [species][layers + 1]
};

}  // namespace networks
}  // namespace nearsight
