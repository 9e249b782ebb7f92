#include "core/models/mace/definition.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"

namespace nearsight {
namespace mace {
namespace {

using nlohmann::json;

/// Reads the parts of one file, with its name in every message.
class Reader {
 public:
  explicit Reader(const ModelFile& file) : file_(file), species_(file.species.size()) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::file, "'" + file_.path + "': " + what + ": export the model again");
  }

  Definition read() {
    const json record = json::parse(file_.hyperparameters);
    Definition d;
    d.species = file_.species;
    d.cutoff = file_.cutoff;
    d.channels = record.at("channels");
    d.l_max = record.at("l_max");
    if (d.channels < 1 || d.l_max < 0) fail("channels and l_max cannot be negative");
    channels_ = d.channels;
    read_radial(record.at("radial"), d);
    if (!record.at("zbl").is_null()) d.zbl = zbl(record.at("zbl"));
    // Files from before there were walls do not have the entry.
    if (record.contains("walls") && !record.at("walls").is_null()) d.walls = walls(record.at("walls"));
    d.embedding = matrix("embedding", {species_, channels_});
    d.shift = matrix("shift", {species_});
    d.columns = file_.num_columns();
    d.scale = matrix("scale", {static_cast<std::size_t>(d.columns)});
    const json& layers = record.at("layers");
    if (layers.empty()) fail("a model has at least one layer");
    for (const json& layer : layers) {
      prefix_ = "layers." + std::to_string(d.layers.size()) + ".";
      d.layers.push_back(read_layer(layer, d));
    }
    return d;
  }

 private:
  using Shape = std::vector<std::size_t>;

  Matrix matrix(const std::string& name, const Shape& shape) const {
    return file_.weights.at(name, shape).values.data();
  }
  bool has(const std::string& name) const { return file_.weights.find(prefix_ + name) != nullptr; }

  std::vector<double> per_species(const json& values) const {
    const auto list = values.get<std::vector<double>>();
    if (list.size() != species_)
      fail("a list with a number for each species has " + std::to_string(list.size()) + " of them");
    return list;
  }

  void read_radial(const json& radial, Definition& d) const {
    const json& basis = radial.at("basis");
    const std::string kind = basis.at("kind"), envelope = radial.at("envelope");
    d.basis.count = basis.at("count");
    const std::size_t count = d.basis.count;
    if (kind == "bessel") {
      d.basis.table = file_.weights.at("radial.frequencies", {count}).values;
    } else if (kind == "gaussian") {
      d.basis.kind = Basis::Kind::gaussian;
      d.basis.width = basis.at("width");
      d.basis.table = file_.weights.at("radial.centers", {count}).values;
    } else if (kind == "chebyshev") {
      d.basis.kind = Basis::Kind::chebyshev;
      d.basis.shift = basis.at("shift");
      d.basis.slope = basis.at("slope");
    } else {
      fail("radial basis '" + kind + "' is not known, expected bessel, chebyshev or gaussian");
    }
    if (envelope != "basis" && envelope != "functions")
      fail("envelope is '" + envelope + "', expected basis or functions");
    d.envelope_first = envelope == "basis";
    d.envelope_order = radial.at("envelope_order");
    if (!radial.at("transform").is_null()) read_transform(radial.at("transform"), d.transform);
  }

  void read_transform(const json& record, Transform& transform) const {
    const std::string kind = record.at("kind");
    transform.radii = per_species(record.at("radii"));
    if (kind == "agnesi") {
      transform.kind = Transform::Kind::agnesi;
      transform.q = record.at("q");
      transform.p = record.at("p");
      transform.a = record.at("a");
    } else if (kind == "soft") {
      transform.kind = Transform::Kind::soft;
      transform.alpha = record.at("alpha");
    } else {
      fail("transform of distances '" + kind + "' is not known, expected agnesi or soft");
    }
  }

  Zbl zbl(const json& record) const {
    Zbl z;
    z.order = record.at("p");
    z.exponent = record.at("a_exponent");
    z.prefactor = record.at("a_prefactor");
    z.scale = record.at("scale");
    z.numbers = per_species(record.at("numbers"));
    z.radii = per_species(record.at("radii"));
    return z;
  }

  Walls walls(const json& record) const {
    const std::size_t num_species = file_.species.size();
    Walls w;
    w.slope = record.at("slope");
    w.repulsion = record.at("repulsion");
    w.num_species = static_cast<int>(num_species);
    w.limits = matrix("walls", {num_species, num_species, 3});
    return w;
  }

  Irreps irreps(const json& names) const {
    Irreps list;
    int first = 0;
    for (const std::string name : names) {
      if (name.size() < 2 || name.find_first_not_of("0123456789") != name.size() - 1 ||
          (name.back() != 'e' && name.back() != 'o'))
        fail("irrep '" + name + "' is not a number and a parity, such as 1o");
      list.push_back({name, std::stoi(name), name.back() == 'e' ? 1 : -1, first});
      first += list.back().size();
    }
    return list;
  }

  int find(const Irreps& list, const std::string& name) const {
    for (std::size_t k = 0; k < list.size(); ++k)
      if (list[k].name == name) return static_cast<int>(k);
    fail("a path has irrep '" + name + "', which its layer lacks");
  }

  /// Layers name.0, name.1, … as far as there are any, transposed.
  Dense dense(const std::string& name, std::size_t inputs, std::size_t outputs) const {
    Dense d;
    d.widths.push_back(static_cast<int>(inputs));
    while (has(name + "." + std::to_string(d.weights.size()) + ".weight")) {
      const std::string full = prefix_ + name + "." + std::to_string(d.weights.size()) + ".weight";
      const WeightTensor& w = file_.weights.at(full);
      const std::size_t in = d.widths.back();
      if (w.shape.size() != 2 || w.shape[1] != in)
        fail("weights '" + full + "' do not take " + std::to_string(in) + " inputs");
      std::vector<double> transposed(w.values.size());
      for (std::size_t a = 0; a < w.shape[0]; ++a)
        for (std::size_t b = 0; b < in; ++b) transposed[b * w.shape[0] + a] = w.values[a * in + b];
      d.weights.push_back(std::move(transposed));
      d.widths.push_back(static_cast<int>(w.shape[0]));
    }
    if (!d.empty() && static_cast<std::size_t>(d.widths.back()) != outputs)
      fail("weights '" + prefix_ + name + "' have " + std::to_string(d.widths.back()) +
           " outputs, expected " + std::to_string(outputs));
    return d;
  }

  /// A matrix for each irrep, null where there is none.
  std::vector<Matrix> maps(const std::string& name, const Irreps& list, bool by_species) const {
    std::vector<Matrix> found;
    for (const Irrep& which : list) {
      const std::string full = name + "." + which.name;
      Shape shape{channels_, channels_};
      if (by_species) shape.insert(shape.begin(), species_);
      found.push_back(has(full) ? matrix(prefix_ + full, shape) : nullptr);
    }
    return found;
  }

  Layer read_layer(const json& record, const Definition& d) const {
    Layer layer;
    layer.input = irreps(record.at("input"));
    layer.message = irreps(record.at("message"));
    layer.output = irreps(record.at("output"));
    if (layer.output.empty() || layer.output[0].name != "0e") fail("a layer's output does not begin with 0e");
    if (names(layer.input) != names(layer_before(d)))
      fail("a layer's input is not the output of the one before");
    read_paths(record.at("paths"), d, layer);
    layer.radial = dense("radial", d.basis.count, layer.paths.size() * channels_);
    if (layer.radial.empty()) fail("layers lack their radial weights");
    layer.density = dense("density", d.basis.count, 1);
    layer.readout = dense("readout", channels_, d.columns);
    if (layer.readout.weights.empty() || layer.readout.weights.size() > 2)
      fail("a readout has one or two dense layers");
    layer.up = maps("up", layer.input, false);
    layer.select = maps("select", layer.message, true);
    layer.update = maps("update", layer.output, false);
    layer.skip = maps("skip", layer.output, true);
    const bool first = d.layers.empty();
    for (const Matrix m : layer.update)
      if (!m) fail("an irrep of the output has no update weights");
    for (const Matrix m : layer.up)
      if (!m && !first) fail("an irrep of the input has no up weights");
    if (layer.select[0])
      for (const Matrix m : layer.select)
        if (!m) fail("an irrep of the message has no select weights");
    for (std::size_t k = 0; k < layer.output.size(); ++k)
      layer.skip_from.push_back(layer.skip[k] ? find(layer.input, layer.output[k].name) : -1);
    if (has("skip")) layer.constant = matrix(prefix_ + "skip", {species_, channels_});
    read_polynomials(record.at("correlation"), layer);
    return layer;
  }

  static std::vector<std::string> names(const Irreps& list) {
    std::vector<std::string> all;
    for (const Irrep& irrep : list) all.push_back(irrep.name);
    return all;
  }

  Irreps layer_before(const Definition& d) const {
    return d.layers.empty() ? Irreps{{"0e", 0, 1, 0}} : d.layers.back().output;
  }

  void read_paths(const json& paths, const Definition& d, Layer& layer) const {
    std::vector<int> counts(layer.message.size(), 0);
    int first_phi = 0;
    for (const json& path : paths) {
      Path p{find(layer.input, path.at(0)), path.at(1), find(layer.message, path.at(2)), first_phi, 0, 0};
      if (p.l2 < 0 || p.l2 > d.l_max) fail("a path has harmonics above l_max");
      p.place = counts[p.out]++;
      first_phi += layer.input[p.in].size() * layer.message[p.out].size();
      layer.paths.push_back(p);
    }
    for (std::size_t k = 0; k < counts.size(); ++k) {
      if (!counts[k]) fail("no path reaches a message irrep");
      layer.combine.push_back(
          matrix(prefix_ + "message." + layer.message[k].name, {channels_, counts[k] * channels_}));
    }
    read_couplings(d, first_phi, layer);
  }

  void read_couplings(const Definition& d, int num_phi, Layer& layer) const {
    const WeightTensor& rows = table("couplings", 3);
    for (std::size_t k = 0; k < rows.shape[0]; ++k) {
      const double* const row = rows.values.data() + 3 * k;
      layer.couplings.push_back({index(row[0], num_phi), index(row[1], d.num_harmonics()), row[2]});
    }
    if (!std::is_sorted(layer.couplings.begin(), layer.couplings.end(),
                        [](const Coupling& a, const Coupling& b) { return a.phi < b.phi; }))
      fail("couplings are not in order");
    for (Path& path : layer.paths)
      path.first_row =
          static_cast<int>(std::lower_bound(layer.couplings.begin(), layer.couplings.end(), path.first_phi,
                                            [](const Coupling& a, int phi) { return a.phi < phi; }) -
                           layer.couplings.begin());
  }

  void read_polynomials(int correlation, Layer& layer) const {
    if (correlation < 1 || correlation > 3) fail("a layer's correlation is not 1, 2 or 3");
    const WeightTensor& weights = file_.weights.at(prefix_ + "product.weights");
    if (weights.shape.size() != 3) fail("'product.weights' is not [species, polynomials, K]");
    layer.num_polynomials = static_cast<int>(weights.shape[1]);
    layer.polynomials = matrix(prefix_ + "product.weights", {species_, weights.shape[1], channels_});
    const WeightTensor& rows = table("product.terms", 6);
    const int components = num_components(layer.message), outputs = num_components(layer.output);
    for (std::size_t k = 0; k < rows.shape[0]; ++k) {
      const double* const row = rows.values.data() + 6 * k;
      Term term{index(row[0], layer.num_polynomials), index(row[1], outputs), {}, row[5]};
      for (int a = 0; a < 3; ++a) term.factors[a] = row[2 + a] == -1.0 ? -1 : index(row[2 + a], components);
      if (term.factors[2] < 0 || !std::is_sorted(term.factors, term.factors + 3))
        fail("the components of a product's term are not in order");
      if (correlation < 3 && term.factors[2 - correlation] >= 0) fail("a term is above the correlation");
      layer.terms.push_back(term);
    }
  }

  const WeightTensor& table(const std::string& name, std::size_t columns) const {
    const WeightTensor& rows = file_.weights.at(prefix_ + name);
    if (rows.shape.size() != 2 || rows.shape[1] != columns)
      fail("'" + prefix_ + name + "' is not [rows, " + std::to_string(columns) + "]");
    return rows;
  }

  int index(double value, int end) const {
    if (!(value >= 0.0 && value < end && value == std::floor(value)))
      fail("a table has an index out of range");
    return static_cast<int>(value);
  }

  const ModelFile& file_;
  std::size_t species_, channels_ = 0;
  std::string prefix_;
};

}  // namespace

int num_components(const Irreps& irreps) {
  return irreps.empty() ? 0 : irreps.back().first + irreps.back().size();
}

Definition read_definition(const ModelFile& file) {
  return Reader(file).read();
}

std::string unsupported(const Definition& d) {
  if (d.l_max > 3) return "the harmonics go to l = " + std::to_string(d.l_max) + ", it has code up to 3";
  for (const Layer& layer : d.layers)
    for (const Irrep& irrep : layer.output)
      if (irrep.l > 2)
        return "the hidden irreps have l = " + std::to_string(irrep.l) + ", it has code up to 2";
  const Layer& first = d.layers[0];
  for (const Path& path : first.paths)
    if (first.message[path.out].l != path.l2 || path.place > 0)
      return "the paths of its first layer are not one for each l";
  return "";
}

}  // namespace mace
}  // namespace nearsight
