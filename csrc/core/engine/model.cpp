#include "core/engine/model.hpp"

#include <algorithm>

#include "core/engine/error.hpp"
#include "core/engine/warning.hpp"

namespace nearsight {

std::shared_ptr<const Model> Model::load(const std::string& path, Backend backend) {
  std::shared_ptr<Model> model(new Model);
  model->file_ = read_model_file(path);
  const ModelFile& file = model->file_;
  model->couple_ = make_couple(file.couple, file.species, {});
  if (model->couple_->columns() != file.num_columns())
    throw Error(ErrorKind::file, "'" + path + "': the couple expects " +
                                     std::to_string(model->couple_->columns()) +
                                     " readout columns, the model has " + std::to_string(file.num_columns()) +
                                     ": export the model again");
  if (!file.dispersion.empty()) model->dispersion_ = read_dispersion(file.dispersion, file.species.size());
  std::string reason;
  if (backend != Backend::torchscript && file.native) model->potential_ = make_native_potential(file, reason);
  if (!model->potential_ && backend == Backend::native)
    throw Error(ErrorKind::unsupported,
                reason.empty()
                    ? "'" + path + "' has architecture '" + file.architecture +
                          "', which the native engine does not know: use backend torchscript or auto"
                    : "the native engine has no code for '" + path + "' because " + reason +
                          ": use backend torchscript or auto");
  if (!reason.empty())
    warn("'" + path +
         "' runs on the torchscript backend, since the native engine has no code for it: " + reason);
  model->backend_ = model->potential_ ? Backend::native : Backend::torchscript;
  if (!model->potential_) model->potential_ = make_torchscript_potential(file);
  return model;
}

int Model::find_species(const std::string& symbol) const {
  const auto found = std::find(file_.species.begin(), file_.species.end(), symbol);
  return found == file_.species.end() ? -1 : static_cast<int>(found - file_.species.begin());
}

}  // namespace nearsight
