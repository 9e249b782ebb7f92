#include "core/engine/error.hpp"
#include "core/engine/libraries.hpp"
#include "core/engine/model.hpp"

namespace nearsight {

std::unique_ptr<Potential> make_torchscript_potential(const ModelFile& file) {
  // libtorch does not survive being closed.
  static const SiblingLibrary library("libnearsight_torchscript.so");
  if (!library.is_open())
    throw Error(ErrorKind::unsupported, "the torchscript backend cannot be loaded (" + library.reason() +
                                            "): install torch in the version that nearsight was built with");
  std::string error;
  const auto load = library.find<Potential*(const ModelFile&, std::string&)>("nearsight_torchscript_load");
  std::unique_ptr<Potential> potential(load(file, error));
  if (!potential) throw Error(ErrorKind::file, "'" + file.path + "': " + error);
  return potential;
}

}  // namespace nearsight
