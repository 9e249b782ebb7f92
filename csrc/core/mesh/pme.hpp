#pragma once
#include <memory>

#include "core/engine/device.hpp"
#include "core/mesh/mesh.hpp"
#include "core/mesh/pme_work.hpp"
#include "core/mesh/short_range.hpp"

namespace nearsight {

/// The smallest rtol of a mesh of floats.
constexpr double kFinestSingleMesh = 2e-6;

struct PmeOptions {
  double rtol = 1e-6;  // |ΔF|₂ / |F|₂ that is asked for
  PmeWishes wishes;
  bool single = false;               // pairs and a mesh of floats, with sums in double
  std::array<int, 2> pencils{0, 0};  // grid of ranks that transform, as in Pencils
  Device device = Device::cpu;
  int device_index = -1;  // -1: the first one
};

/// Both parts of the sum, in numbers T.
template <class T>
class PmeParts final : public PmeWork {
 public:
  PmeParts(const PmeParameters& parameters, const Pencils& pencils, int rank)
      : pairs_(parameters.splitting, parameters.cutoff, kSkin * parameters.cutoff),
        mesh_(parameters.mesh, parameters.order, parameters.splitting, pencils, rank) {}

  void add(const Charges& charges, const Box& box, bool fields, ThreadPool& threads, Ranks& ranks,
           PmeTimes& times, Coulomb& result) override;

 private:
  ShortRange<T> pairs_;
  Mesh<T> mesh_;
};

/// Smooth particle-mesh Ewald with parameters from the first configuration. Periodic in three or two
/// directions; open systems by the direct sum. For one thread at a time.
///
/// With several ranks each has charges of its own, any number of them anywhere, and the whole cell. It gets
/// their potentials and fields, half the sum of charges times potentials, and a share in the virial: shares
/// of all ranks add up. All members with charges as an argument are collective. Parameters come from sums
/// over all ranks, so that they are the same everywhere and, but for round-off, for any number of ranks.
class Pme {
 public:
  /// Chooses the parameters. Where forces vanish by symmetry, errors are relative to those between two
  /// charges of the system's root mean square at 1 Å. Throws Error (argument) for an rtol outside 1e-13..0.1,
  /// 2e-6..0.1 for a mesh of floats, and what Pencils, make_box and choose_parameters throw.
  Pme(const Charges& charges, const Cell& cell, const PmeOptions& options, ThreadPool& threads,
      const Communicator& communicator = {});

  /// Any positions, charges and cell near the first. Throws Error (argument) for other periodic directions
  /// and for cells that differ between ranks, and what make_box and ShortRange throw.
  void evaluate(const Charges& charges, const Cell& cell, ThreadPool& threads, Coulomb& result) {
    evaluate(charges, cell, true, threads, result);
  }

  /// Potentials alone; virial and fields have no meaning. Much faster where positions are those of the last
  /// call, whose pairs it remembers: some KB for each charge.
  void find_potentials(const Charges& charges, const Cell& cell, ThreadPool& threads, Coulomb& result) {
    evaluate(charges, cell, false, threads, result);
  }

  /// The box that evaluate takes for a cell, periodic in three directions. Throws Error (argument) for open
  /// systems, and what evaluate throws for positions and cell.
  Box box(const Charges& charges, const Cell& cell);

  /// Whether the parameters are good for these charges: as many on all ranks, the same periodic directions,
  /// and lattice vectors that have changed by at most a tenth since the set-up, which had charges if these
  /// are not all zero.
  bool fits(const Charges& charges, const Cell& cell);

  /// Zeros for open systems.
  const PmeParameters& parameters() const { return parameters_; }
  /// Root mean square force that errors are relative to, eV/Å.
  double force_scale() const { return force_scale_; }
  /// Of all evaluations on this rank.
  const PmeTimes& times() const { return times_; }

 private:
  double slab_tolerance() const { return 0.01 * options_.rtol; }
  bool is_silent() const { return !work_; }
  bool on_device() const { return options_.device == Device::cuda; }
  void set_up(const Charges& charges, const ChargeSize& size, const Box& box, double force_error, bool single,
              ThreadPool& threads);
  double measure_forces(const Charges& charges, const ChargeSize& size, const Cell& cell, const Box& box,
                        double unit, ThreadPool& threads);
  void check_cell(const Cell& cell);
  void check_silence(const Charges& charges);
  void evaluate(const Charges& charges, const Cell& cell, bool fields, ThreadPool& threads, Coulomb& result);
  void add_open(const Charges& charges, bool fields, ThreadPool& threads, Coulomb& result);
  void add_lattice(const Charges& charges, const Box& box, bool fields, ThreadPool& threads, Coulomb& result);

  PmeOptions options_;
  Ranks ranks_;
  double num_charges_ = 0;  // of all ranks
  Cell cell_;               // of the set-up
  PmeParameters parameters_;
  double force_scale_ = 0, height_ = 0;
  std::unique_ptr<PmeWork> work_;
  ChargeSurroundings surroundings_;  // of open systems
  PmeTimes times_;
};

}  // namespace nearsight
