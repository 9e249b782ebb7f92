// Descriptors of evaluation (cuda/models), in double, for training: between a host's tensors, with the
// tangent.
#include "core/engine/error.hpp"
#include "cuda/models/descriptor.hpp"
#include "cuda/training/descriptor.hpp"
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

using Vector = Vec4<double>;

__global__ void count_edges(std::int64_t num_centers, const std::int64_t* offsets, std::int32_t* counts) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n < num_centers) counts[n] = static_cast<std::int32_t>(offsets[n + 1] - offsets[n]);
}

/// to[n] = {x, y, z, length}
__global__ void widen(std::int64_t count, const double* from, Vector* to) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= count) return;
  const double x = from[3 * n], y = from[3 * n + 1], z = from[3 * n + 2];
  to[n] = {x, y, z, std::sqrt(x * x + y * y + z * z)};
}

__global__ void narrow(std::int64_t count, const Vector* from, double* to) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= count) return;
  const Vector v = from[n];
  to[3 * n] = v.x, to[3 * n + 1] = v.y, to[3 * n + 2] = v.z;
}

class Twin final : public DeviceDescriptor {
 public:
  Twin(DeviceScope& scope, const DescriptorRecord& given) {
    const Work work(scope);
    ModelFile file;
    file.species = given.species;
    file.weights = given.tensors;
    BpnnRecord record{};
    record.descriptor = given.record;
    record.descriptor_kind = given.kind;
    std::string reason;
    descriptor_ = cuda::make_descriptor<double>(file, record, work.stream, reason);
    if (!descriptor_)
      throw Error(ErrorKind::unsupported,
                  "a model cannot be trained on a GPU, since " + reason + ": train on the CPU");
    // Tables were copied from memory that now goes.
    work.stream.synchronize();
  }

  void forward(DeviceScope& scope, const DeviceCenters& centers, double* features, int width) override {
    Work work(scope);
    descriptor_->forward(work.stream, graph(work, centers), features, width);
  }

  void reverse(DeviceScope& scope, const DeviceCenters& centers, const double* cotangents, int width,
               double* gradients) override {
    Work work(scope);
    const Graph<double> graph = this->graph(work, centers);
    auto* const wide = work.take<Vector>(centers.num_edges);
    descriptor_->forward(work.stream, graph, work.take<double>(centers.num_centers * width), width);
    descriptor_->reverse(work.stream, graph, cotangents, width, wide);
    launch(work.stream, one_each(centers.num_edges), narrow, centers.num_edges, wide, gradients);
  }

  void tangent(DeviceScope& scope, const DeviceCenters& centers, const double* directions, double* tangents,
               int width) override {
    Work work(scope);
    const Graph<double> graph = this->graph(work, centers);
    auto* const wide = work.take<Vector>(centers.num_edges);
    launch(work.stream, one_each(centers.num_edges), widen, centers.num_edges, directions, wide);
    descriptor_->forward(work.stream, graph, work.take<double>(centers.num_centers * width), width);
    descriptor_->tangent(work.stream, graph, wide, tangents, width);
  }

 private:
  static Graph<double> graph(Work& work, const DeviceCenters& c) {
    auto* const counts = work.take<std::int32_t>(c.num_centers);
    auto* const vectors = work.take<Vector>(c.num_edges);
    launch(work.stream, one_each(c.num_centers), count_edges, c.num_centers, c.offsets, counts);
    launch(work.stream, one_each(c.num_edges), widen, c.num_edges, c.vectors, vectors);
    Graph<double> graph;
    graph.num_atoms = graph.num_rows = graph.num_centers = static_cast<int>(c.num_centers);
    graph.num_places = c.num_edges;
    graph.edges = {0, graph.num_rows, c.species, c.offsets, 0, counts, c.neighbors, vectors};
    return graph;
  }

  std::unique_ptr<Descriptor<double>> descriptor_;
};

}  // namespace

std::unique_ptr<DeviceDescriptor> make_descriptor(DeviceScope& scope, const DescriptorRecord& record) {
  return std::make_unique<Twin>(scope, record);
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
