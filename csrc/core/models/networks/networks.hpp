#pragma once
#include <string>
#include <vector>

#include "core/engine/span.hpp"
#include "core/io/tensors.hpp"
#include "core/models/networks/kernels.hpp"
#include "core/models/shared/aligned.hpp"
#include "core/models/shared/range.hpp"

namespace nearsight {
namespace networks {

/// Layers of one species and of all members of a committee, one after the other, in panels (see Product).
template <class T>
struct Layer {
  int inputs, outputs;
  Activation activation;
  AlignedBuffer<T> forward;  // [members] panels of columns = outputs, rows = inputs
  AlignedBuffer<T> reverse;  // [members] panels of columns = inputs, rows = outputs
  AlignedBuffer<T> bias;     // [members][padded outputs]
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
  const std::vector<Layer<T>>& layers(int species) const { return of_species_[species].layers; }
  /// Features enter as (feature - shift) scale.
  const std::vector<double>& shift(int species) const { return of_species_[species].shift; }
  const std::vector<double>& scale(int species) const { return of_species_[species].scale; }
  const std::vector<double>& output_scale() const { return output_scale_; }  // [columns]

 private:
  template <class U>
  friend class NetworksWorkspace;
  struct Network {
    std::vector<Layer<T>> layers;
    std::vector<double> shift, scale;  // of the features
    bool is_shifted;                   // any shift is not 0
  };
  Layer<T> make_layer(const std::string& name, int inputs, int outputs, Activation activation,
                      const Tensors& tensors) const;

  int members_, columns_;
  std::vector<Network> of_species_;
  std::vector<double> output_scale_;
};

/// Derivatives of the activations of one block of atoms per species, between forward and reverse; one thread
/// uses it.
template <class T>
class NetworksWorkspace {
 public:
  explicit NetworksWorkspace(const Networks<T>& networks);

  /// outputs[count][members * columns] from features[count][stride] of atoms of one species. Features outside
  /// of the ascending ranges `active` must be zero; they cost nothing.
  void forward(int species, int count, const double* features, std::size_t stride, Span<const Range> active,
               double* outputs);
  /// cotangents[count][stride] of the active features from those of the outputs; after forward of the same
  /// block.
  void reverse(int species, int count, const double* output_cotangents, double* cotangents,
               std::size_t stride);

 private:
  using Network = typename Networks<T>::Network;
  struct Block {                                // of one species
    std::vector<Range> runs;                    // active features
    std::vector<int> panels;                    // of kPad inputs with an active feature
    std::vector<AlignedBuffer<T>> derivatives;  // per layer, [members][count][padded outputs]
  };
  void choose_inputs(const Network& network, Span<const Range> active, Block& block) const;
  void load_inputs(const Network& network, const Block& block, int count, const double* features,
                   std::size_t stride);
  const T* first_bias(const Network& network, const Block& block);
  void reverse_member(const Network& network, const Block& block, int count, int member,
                      const double* output_cotangents);

  const Networks<T>& networks_;
  std::vector<Block> blocks_;          // [species]
  AlignedBuffer<T> inputs_;            // [count][active features], in reverse [count][kPad * panels]
  AlignedBuffer<T> values_[2];         // of two layers of one member, [count][padded width]
  std::vector<Range> gaps_;            // features that are not active
  AlignedBuffer<T> constants_, bias_;  // their inputs, and the first layer's bias with them
};

}  // namespace networks
}  // namespace nearsight
