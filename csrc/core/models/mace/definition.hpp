#pragma once
#include <string>
#include <vector>

#include "core/io/model_file.hpp"

namespace nearsight {
namespace mace {

/// How components of an atom's features turn: 2 l + 1 of them, parity p = 1 or -1.
struct Irrep {
  std::string name;  // "1o"
  int l = 0, p = 1;
  int first = 0;  // component among those of its list

  int size() const { return 2 * l + 1; }
};
using Irreps = std::vector<Irrep>;
int num_components(const Irreps& irreps);

/// A path of the tensor product: numbers of irreps of the input and of the message, degree of the harmonics.
struct Path {
  int in, l2, out;
  int first_phi, first_row;  // of its couplings
  int place;                 // among the paths to the same irrep
};

/// Φ[phi] is the sum over its rows of coefficient · Y[y].
struct Coupling {
  int phi, y;
  double coefficient;
};

/// A monomial of message components (-1, leading: lower degree) in polynomial eta of an output component.
struct Term {
  int eta, output, factors[3];
  double coefficient;
};

/// Dense layers without bias and with silu between them.
struct Dense {
  std::vector<int> widths;                   // inputs, then the outputs of every layer
  std::vector<std::vector<double>> weights;  // of each layer, [in][out]
  bool empty() const { return weights.empty(); }
};

using Matrix = const double*;  // of the file, [out][in]

/// One interaction; null matrices are not there. See docs/file_format.md.
struct Layer {
  Irreps input, message, output;
  std::vector<Path> paths;
  std::vector<Coupling> couplings;
  Dense radial, density, readout;
  std::vector<Matrix> up;       // [irreps of the input]
  std::vector<Matrix> combine;  // [irreps of the message] [K][paths K]
  std::vector<Matrix> select;   // [irreps of the message] [species][K][K]
  std::vector<Matrix> update;   // [irreps of the output]
  std::vector<Matrix> skip;     // [irreps of the output] [species][K][K]
  std::vector<int> skip_from;   // [irreps of the output] irrep of the input
  Matrix constant = nullptr;    // [species][K] added to 0e
  std::vector<Term> terms;
  int num_polynomials = 0;
  Matrix polynomials = nullptr;  // [species][eta][K]
};

struct Basis {
  enum class Kind { bessel, chebyshev, gaussian } kind = Kind::bessel;
  int count = 0;
  double width = 1, shift = 0, slope = 1;  // chebyshev: T_n(shift + slope r')
  std::vector<double> table;               // frequencies, 1/Å, or centers
};

struct Transform {
  enum class Kind { none, agnesi, soft } kind = Kind::none;
  double q = 1, p = 1, a = 1, alpha = 1;
  std::vector<double> radii;  // [species] Å
};

struct Zbl {
  double order = 6, exponent = 0, prefactor = 0, scale = 0;  // scale 0: there is none
  std::vector<double> numbers, radii;                        // [species]
};

struct Walls {
  double slope = 0, repulsion = 0;  // eV/Å, eV
  int num_species = 0;
  Matrix limits = nullptr;  // [species][species][3] Å, null: there are none
};

/// A record and its tensors in double. The file must outlive it.
struct Definition {
  std::vector<std::string> species;
  double cutoff = 0;
  int channels = 0, l_max = 0;
  int columns = 1;  // of the readouts, the energy first
  Basis basis;
  Transform transform;
  bool envelope_first = true;  // the envelope multiplies the basis, not the functions
  double envelope_order = 5;
  Zbl zbl;
  Walls walls;
  Matrix embedding = nullptr;               // [species][K]
  Matrix scale = nullptr, shift = nullptr;  // of readouts [columns], of energies [species]
  std::vector<Layer> layers;

  int num_species() const { return static_cast<int>(species.size()); }
  int num_harmonics() const { return (l_max + 1) * (l_max + 1); }
};

/// Throws Error (file) for a record or tensors that cannot be right.
Definition read_definition(const ModelFile& file);

/// Why the native engine has no code for the model, or nothing if it has.
std::string unsupported(const Definition& definition);

}  // namespace mace
}  // namespace nearsight
