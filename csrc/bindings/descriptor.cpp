#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/models/training_descriptor.hpp"

namespace py = pybind11;
using namespace nearsight;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

class PyDescriptor {
 public:
  PyDescriptor(const std::string& record, const std::vector<std::string>& species,
               const std::map<std::string, Doubles>& weights) {
    Tensors tensors{"the descriptor", {}};
    for (const auto& [name, array] : weights)
      tensors.by_name[name] = {{array.shape(), array.shape() + array.ndim()},
                               {array.data(), array.data() + array.size()}};
    descriptor_ = std::make_unique<TrainingDescriptor>(record, species, std::move(tensors));
    for (std::size_t s = 0; s < species.size(); ++s)
      num_features_.push_back(descriptor_->on_cpu().num_features(static_cast<int>(s)));
  }

  /// What the training ops take; valid as long as this object lives.
  std::uintptr_t handle() const { return reinterpret_cast<std::uintptr_t>(descriptor_.get()); }
  const std::vector<int>& num_features() const { return num_features_; }

 private:
  std::unique_ptr<TrainingDescriptor> descriptor_;
  std::vector<int> num_features_;
};

}  // namespace

void bind_descriptor(py::module_& m) {
  py::class_<PyDescriptor>(m, "Descriptor", "A descriptor of the core, for the training ops")
      .def(py::init<const std::string&, const std::vector<std::string>&,
                    const std::map<std::string, Doubles>&>(),
           py::arg("record"), py::arg("species"), py::arg("weights"))
      .def_property_readonly("handle", &PyDescriptor::handle)
      .def_property_readonly("num_features", &PyDescriptor::num_features, "per species");
}
