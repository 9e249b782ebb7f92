#include "cuda/engine/device_list.hpp"
#include "cuda/engine/edges.hpp"

namespace nearsight {
namespace cuda {
namespace {

class List final : public DeviceList {
 public:
  List(double cutoff, double skin, int device) : device_(use_device(device)), list_(cutoff, skin, 1, false) {}

  void find(Span<const double> positions, const Cell& cell, nearsight::NeighborList& pairs) override {
    use_device(device_);
    const std::size_t atoms = positions.size() / 3;
    const bool changed = classes_.size() != atoms;
    classes_.assign(atoms, 0);
    positions_.upload(stream_, positions);
    list_.update(stream_, positions_.span(), cell, classes_, changed);
    std::vector<std::int32_t> order(atoms), neighbors(list_.neighbors().size());
    std::vector<Image> images(list_.images().size());
    list_.order().atoms.download(stream_, order);
    list_.neighbors().download(stream_, neighbors);
    list_.images().download(stream_, images);
    stream_.synchronize();
    // The order of the rows is the device's; pairs are chosen by the core's one formula.
    std::vector<std::int32_t> rank(atoms);
    for (std::size_t k = 0; k < atoms; ++k) rank[order[k]] = static_cast<std::int32_t>(k);
    pairs.offsets.assign(1, 0);
    pairs.neighbors.clear();
    pairs.shifts.clear();
    const auto& offsets = list_.host_offsets();
    for (std::size_t i = 0; i < atoms; ++i) {
      for (std::int64_t k = offsets[rank[i]]; k < offsets[rank[i] + 1]; ++k) {
        const std::int32_t j = order[neighbors[k]];
        const Shift shift = images.empty() ? Shift{} : Shift{images[k].x, images[k].y, images[k].z};
        const Vec3 r = pair_vector(positions, i, j, shift, list_.lattice());
        if (dot(r, r) >= list_.cutoff() * list_.cutoff()) continue;
        pairs.neighbors.push_back(j);
        pairs.shifts.push_back(shift);
      }
      pairs.offsets.push_back(static_cast<std::int64_t>(pairs.neighbors.size()));
    }
  }

  long num_builds() const override { return list_.num_builds(); }

 private:
  const int device_;
  Stream stream_;
  NeighborList list_;
  AtomClasses classes_;
  Buffer<double> positions_;
};

}  // namespace

std::unique_ptr<DeviceList> make_list(double cutoff, double skin, int device_index) {
  return std::make_unique<List>(cutoff, skin, device_index);
}

}  // namespace cuda
}  // namespace nearsight
