#pragma once
#include <vector>

#include "core/models/acsf/acsf.hpp"
#include "cuda/models/acsf/shapes.hpp"
#include "cuda/models/shared/tables.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

using nearsight::acsf::AngularFunction;
using nearsight::acsf::AngularGroup;
using nearsight::acsf::CenterFunctions;
using nearsight::acsf::MomentFunction;
using nearsight::acsf::MomentGroup;
using nearsight::acsf::RadialFunction;
using nearsight::acsf::RadialGroup;

template <class T>
struct ShellTable {
  Cutoff<T> cutoff;
  const Shape<T>* shapes;  // of angular functions
  int num_shapes;
  int first_shape;  // number of the first one among those of the center
};

/// Core's groups of a center species, with pointers to device memory. Shells are in ascending order.
template <class T>
struct CenterTable {
  CenterFunctions<T> functions;
  const ShellTable<T>* shells;
  int num_shells;
};

/// Room that a warp needs at most, in numbers.
struct Room {
  int features = 0;
  int functions = 0;  // of a group, or of a part of it
  int terms = 0;      // of a group
  int moments = 0;    // of all species, monomials and the sum of squares
  bool has_pairs = false;
};

constexpr int kMostFunctions = nearsight::acsf::kMaxFunctions;  // that are summed at a time

template <class T>
class FunctionTables {
 public:
  FunctionTables(const Stream& stream, const nearsight::acsf::Functions<T>& functions);

  const CenterTable<T>* centers() const { return centers_; }
  const Room& room() const { return room_; }
  int num_shapes() const { return num_shapes_; }
  int num_features(int species) const { return num_features_[species]; }
  /// [species][shells], Å.
  const std::vector<std::vector<double>>& radii() const { return radii_; }

 private:
  using Center = typename nearsight::acsf::Functions<T>::Center;
  CenterTable<T> upload(const Stream& stream, const Center& center);

  Tables tables_;
  const CenterTable<T>* centers_ = nullptr;
  std::vector<std::vector<double>> radii_;
  std::vector<int> num_features_;
  Room room_;
  int num_shapes_ = 0;  // of the center species that has most
};

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
