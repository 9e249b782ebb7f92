#include "cuda/models/ace/ace.hpp"
#include "cuda/models/acsf/acsf.hpp"
#include "cuda/models/ani/ani.hpp"
#include "cuda/models/descriptor.hpp"

namespace nearsight {
namespace cuda {

template <class T>
std::unique_ptr<Descriptor<T>> make_descriptor(const ModelFile& file, const BpnnRecord& record,
                                               const Stream& stream, std::string& reason) {
  const int num_species = static_cast<int>(file.species.size());
  if (record.descriptor_kind == "acsf") {
    const auto definition = nearsight::acsf::read_definition(record.descriptor, file.species);
    const nearsight::acsf::Functions<T> functions(definition.functions, num_species,
                                                  definition.cutoff_function);
    return std::make_unique<acsf::Acsf<T>>(stream, functions);
  }
  if (record.descriptor_kind == "ani")
    return std::make_unique<ani::Ani<T>>(stream,
                                         nearsight::ani::read_constants(record.descriptor, num_species));
  if (record.descriptor_kind == "ace" || record.descriptor_kind == "soap")
    return std::make_unique<ace::Ace<T>>(
        stream, nearsight::ace::read_definition(record.descriptor, num_species, file.weights));
  reason = "its descriptor '" + record.descriptor_kind + "' has none";
  return nullptr;
}

template std::unique_ptr<Descriptor<float>> make_descriptor(const ModelFile&, const BpnnRecord&,
                                                            const Stream&, std::string&);
template std::unique_ptr<Descriptor<double>> make_descriptor(const ModelFile&, const BpnnRecord&,
                                                             const Stream&, std::string&);

}  // namespace cuda
}  // namespace nearsight
