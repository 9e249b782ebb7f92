#pragma once
#include <cstddef>
#include <memory>

#include "core/io/model_file.hpp"
#include "cuda/engine/extrapolations.hpp"
#include "cuda/engine/graph.hpp"

namespace nearsight {
namespace cuda {

/// The local part of a model on a device, with its work arrays: the twin of core's Potential and Worker. T is
/// the type of features: float in mixed precision. All work is queued on the stream; nothing waits for the
/// device.
template <class T>
class Potential {
 public:
  virtual ~Potential() = default;

  /// Writes readouts[graph.num_rows][columns], eV for energies, of device memory; remembers what reverse()
  /// needs.
  virtual void forward(const Stream& stream, const Graph<T>& graph, double* readouts) = 0;

  /// Adds those of the features of the last forward(); not after its reverse().
  virtual void find_extrapolations(const Stream&, const Graph<T>&, ExtrapolationSums&) const {}

  /// Writes gradients[places].xyz = dE/dr_ij, eV/Å, of device memory, for cotangents[graph.num_rows][columns]
  /// = dE/d(readout); after forward() of the same graph, which it may follow several times. Places without an
  /// edge are not read.
  virtual void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents,
                       Vec4<T>* gradients) = 0;

  /// Centers that it likes to see at once; 0: all of them.
  virtual std::size_t tile() const = 0;

  /// Whether it reads Graph::sources.
  virtual bool wants_sources() const { return false; }

  /// Whether it uses Graph::exchange where the host has split the system, so that ghosts are no centers.
  virtual bool exchanges() const { return false; }
};

/// Null for an architecture that has no kernels yet, with the reason. The file must outlive the potential.
template <class T>
std::unique_ptr<Potential<T>> make_potential(const ModelFile& file, const Stream& stream,
                                             std::string& reason);

}  // namespace cuda
}  // namespace nearsight
