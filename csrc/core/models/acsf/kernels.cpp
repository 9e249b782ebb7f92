#include "core/models/acsf/kernels.hpp"

#include "core/models/acsf/shapes.hpp"
#include "core/models/shared/simd_lanes.hpp"

namespace nearsight {
namespace acsf {
namespace {

using simd::load;
using simd::Mask;
using simd::store;

template <class T>
void prepare(Shell<T>& s) {
  const Vec<T> zero = broadcast<T>(T(0));
  for (int k = 0; k < s.stride; k += width<T>) {
    const Vec<T> r = load(s.r + k), inverse = T(1) / r;
    store<T>(s.inverse_r + k, inverse);
    store<T>(s.ux + k, load(s.x + k) * inverse);
    store<T>(s.uy + k, load(s.y + k) * inverse);
    store<T>(s.uz + k, load(s.z + k) * inverse);
    Vec<T> f, f_slope;
    cutoff_function<T>(s.cutoff, r, f, f_slope);
    store<T>(s.cut + k, f);
    store<T>(s.cut_slope + k, f_slope);
    for (int e = 0; e < s.num_shapes; ++e) {
      Vec<T> w, slope;
      shape<T>(s.shapes[e], r, f, f_slope, w, slope);
      store<T>(s.value + e * s.stride + k, w);
      store<T>(s.slope + e * s.stride + k, slope * inverse);
    }
    store<T>(s.gx + k, zero);
    store<T>(s.gy + k, zero);
    store<T>(s.gz + k, zero);
    store<T>(s.gr + k, zero);
  }
}

// ---- radial functions

/// Calls body(k, w, w'/w) for each block of neighbors.
template <class T, class Body>
inline void for_neighbors(const RadialFunction<T>& f, int species, const Shell<T>& s, const Body& body) {
  const int first = s.first[species], last = first + s.count[species];
  for (int k = first; k < last; k += width<T>) {
    Vec<T> w, slope;
    shape<T>(f.shape, load(s.r + k), load(s.cut + k), load(s.cut_slope + k), w, slope);
    body(k, w, slope);
  }
}

template <class T>
void radial_forward(const RadialGroup<T>& g, const Shell<T>& s, T* slopes, double* features) {
  for (int n = 0; n < g.num_functions; ++n, slopes += s.stride) {
    Vec<T> sum = broadcast<T>(T(0));
    for_neighbors<T>(g.functions[n], g.species, s, [&](int k, Vec<T> w, Vec<T> slope) {
      sum += w;
      store<T>(slopes + k, w * slope * load(s.inverse_r + k));
    });
    features[g.functions[n].out] += g.functions[n].factor * simd::sum<T>(sum);
  }
}

template <class T>
void radial_reverse(const RadialGroup<T>& g, Shell<T>& s, const T* slopes, const T* cotangents) {
  const int first = s.first[g.species], last = first + s.count[g.species];
  for (int k = first; k < last; k += width<T>) {
    Vec<T> sum = load(s.gr + k);
    for (int n = 0; n < g.num_functions; ++n)
      sum += cotangents[g.functions[n].out] * g.functions[n].factor * load(slopes + n * s.stride + k);
    store<T>(s.gr + k, sum);
  }
}

template <class T>
void radial_tangent(const RadialGroup<T>& g, const Shell<T>& s, double* tangents) {
  for (int n = 0; n < g.num_functions; ++n) {
    Vec<T> sum = broadcast<T>(T(0));
    for_neighbors<T>(g.functions[n], g.species, s,
                     [&](int k, Vec<T> w, Vec<T> slope) { sum += w * slope * load(s.gr + k); });
    tangents[g.functions[n].out] += g.functions[n].factor * simd::sum<T>(sum);
  }
}

// ---- triplets

/// The loops of a group: j one by one, blocks of k behind it.
template <class T>
struct Loops {
  int first_j, last_j, first_k, last_k;
  bool same;

  Loops(const AngularGroup<T>& g, const Shell<T>& s, bool swapped)
      : first_j(s.first[swapped ? g.species2 : g.species1]),
        last_j(first_j + s.count[swapped ? g.species2 : g.species1]),
        first_k(s.first[swapped ? g.species1 : g.species2]),
        last_k(first_k + s.count[swapped ? g.species1 : g.species2]),
        same(g.species1 == g.species2) {}

  long blocks() const {
    return static_cast<long>(last_j - first_j) * ((last_k - first_k + width<T> - 1) / width<T>);
  }
  int first_block(int j) const { return same ? (j + 1) / width<T> * width<T> : first_k; }
  /// Lanes of the block at k that hold a neighbor, and of two equal species one behind j.
  Mask lanes(int j, int k) const {
    Mask mask = simd::all_lanes<T>;
    if (k + width<T> > last_k) mask >>= k + width<T> - last_k;
    if (same && k <= j) mask &= mask << (j + 1 - k);
    return mask;
  }
};

/// Packs cosines, squared distances (into `far`) and products of shapes; with a direction also what tangent()
/// says.
template <class T, bool kDirection>
void find_triplets(const AngularGroup<T>& g, const Shell<T>& s, Triplets<T>& t) {
  t.swapped = Loops<T>(g, s, true).blocks() < Loops<T>(g, s, false).blocks();
  const Loops<T> loops(g, s, t.swapped);
  const Vec<T> radius2 = broadcast<T>(s.cutoff.radius * s.cutoff.radius);
  T* const rates = t.scratch + 2 * g.num_terms * t.stride;
  T* const cosine_rate = rates + g.num_shapes * t.stride;
  T* const far_rate = cosine_rate + t.stride;
  unsigned short* masks = t.masks;
  int count = 0;
  for (int j = loops.first_j; j < loops.last_j; ++j)
    for (int k = loops.first_block(j); k < loops.last_k; k += width<T>) {
      Mask mask = loops.lanes(j, k);
      const Vec<T> dx = load(s.x + k) - s.x[j], dy = load(s.y + k) - s.y[j], dz = load(s.z + k) - s.z[j];
      const Vec<T> distance2 = dx * dx + dy * dy + dz * dz;
      if (g.narrow) mask &= simd::less(distance2, radius2);
      *masks++ = static_cast<unsigned short>(mask);
      if (!mask) continue;
      const Vec<T> ux = load(s.ux + k), uy = load(s.uy + k), uz = load(s.uz + k);
      const Vec<T> cosine = ux * s.ux[j] + uy * s.uy[j] + uz * s.uz[j];
      simd::pack(t.cosine + count, mask, cosine);
      if (g.narrow) simd::pack(t.far + count, mask, distance2);
      for (int e = 0; e < g.num_shapes; ++e) {
        const T* const value = s.value + g.shapes[e] * s.stride;
        simd::pack(t.value + e * t.stride + count, mask, value[j] * load(value + k));
      }
      if (kDirection) {
        const Vec<T> vx = load(s.gx + k), vy = load(s.gy + k), vz = load(s.gz + k), vr = load(s.gr + k);
        const Vec<T> from_k = vx * s.ux[j] + vy * s.uy[j] + vz * s.uz[j] - cosine * vr;
        const Vec<T> from_j = ux * s.gx[j] + uy * s.gy[j] + uz * s.gz[j] - cosine * s.gr[j];
        simd::pack(cosine_rate + count, mask, from_k * load(s.inverse_r + k) + from_j * s.inverse_r[j]);
        simd::pack(far_rate + count, mask,
                   dx * (vx - s.gx[j]) + dy * (vy - s.gy[j]) + dz * (vz - s.gz[j]));
        for (int e = 0; e < g.num_shapes; ++e) {
          const T* const slope = s.slope + g.shapes[e] * s.stride;
          simd::pack(rates + e * t.stride + count, mask,
                     slope[j] * s.r[j] * s.gr[j] + load(slope + k) * load(s.r + k) * vr);
        }
      }
      count += simd::count_lanes(mask);
    }
  const int end = (count + width<T> - 1) / width<T> * width<T>;
  for (; count < end; ++count) {
    t.cosine[count] = T(0);
    if (g.narrow) t.far[count] = T(0.25) * s.cutoff.radius * s.cutoff.radius;
    for (int e = 0; e < g.num_shapes; ++e) t.value[e * t.stride + count] = T(0);
    if (kDirection)
      for (int e = 0; e < g.num_shapes + 2; ++e) rates[e * t.stride + count] = T(0);
  }
  t.count = end;
}

/// Multiplies the third side into the values of narrow triplets, whose squared r_jk stand in `far`, and leaves
/// its slopes there.
template <class T>
void third_sides(const AngularGroup<T>& g, const Shell<T>& s, Triplets<T>& t) {
  const bool compact = s.shapes[g.shapes[0]].compact;
  for (int n = 0; n < t.count; n += width<T>) {
    const Vec<T> r = simd::sqrt(simd::max<T>(load(t.far + n), T(1e-12))), inverse = T(1) / r;
    Vec<T> f = r, f_slope = r, w, slope;
    if (!compact) cutoff_function<T>(s.cutoff, r, f, f_slope);
    for (int e = 0; e < g.num_shapes; ++e) {
      shape<T>(s.shapes[g.shapes[e]], r, f, f_slope, w, slope);
      T* const value = t.value + e * t.stride + n;
      store<T>(value, load(value) * w);
      if (!g.common_slope) store<T>(t.far + e * t.stride + n, slope * inverse);
    }
    if (g.common_slope) store<T>(t.far + n, f_slope * inverse);
  }
}

/// w'/(w r) at r_jk of a shape; zero for wide functions.
template <class T>
inline Vec<T> far_slope(const AngularGroup<T>& g, const Shell<T>& s, const Triplets<T>& t, int e, int n) {
  if (!g.narrow) return broadcast<T>(T(0));
  if (!g.common_slope) return load(t.far + e * t.stride + n);
  return load(t.far + n) - T(2) * s.shapes[g.shapes[e]].eta;
}

/// P and dP/dc of all terms into the scratch arrays.
template <class T, bool kDerivative>
void angular_terms(const AngularGroup<T>& g, const Triplets<T>& t) {
  for (int u = 0; u < g.num_terms; ++u) {
    T* const p = t.scratch + u * t.stride;
    T* const dp = t.scratch + (g.num_terms + u) * t.stride;
    for (int n = 0; n < t.count; n += width<T>) {
      Vec<T> value, derivative;
      angular_term<T>(g.terms[u], load(t.cosine + n), value, derivative);
      store<T>(p + n, value);
      if (kDerivative) store<T>(dp + n, derivative);
    }
  }
}

// ---- angular functions

template <class T>
void angular_forward(const AngularGroup<T>& g, const Shell<T>& s, Triplets<T>& t, double* features) {
  find_triplets<T, false>(g, s, t);
  if (g.narrow) third_sides(g, s, t);
  angular_terms<T, false>(g, t);
  for (int i = 0; i < g.num_functions; ++i) {
    const AngularFunction<T>& f = g.functions[i];
    const T* const value = t.value + f.shape * t.stride;
    const T* const p = t.scratch + f.term * t.stride;
    Vec<T> sum = broadcast<T>(T(0)), other = sum;
    int n = 0;
    for (; n + 2 * width<T> <= t.count; n += 2 * width<T>) {
      sum += load(value + n) * load(p + n);
      other += load(value + n + width<T>) * load(p + n + width<T>);
    }
    if (n < t.count) sum += load(value + n) * load(p + n);
    features[f.out] += f.factor * (simd::sum<T>(sum) + simd::sum<T>(other));
  }
}

/// dE/dw of each shape, dE/dcos θ and (dE/dr_jk)/r_jk of every triplet into the scratch arrays behind the
/// terms.
template <class T>
void triplet_adjoints(const AngularGroup<T>& g, const Shell<T>& s, const Triplets<T>& t, const T* cotangents) {
  T coefficients[kMaxFunctions];
  for (int i = 0; i < g.num_functions; ++i)
    coefficients[i] = cotangents[g.functions[i].out] * g.functions[i].factor;
  T* const of_shapes = t.scratch + 2 * g.num_terms * t.stride;
  T* const of_cosine = of_shapes + g.num_shapes * t.stride;
  T* const of_far = of_cosine + t.stride;
  for (int n = 0; n < t.count; n += width<T>) {
    Vec<T> cosine = broadcast<T>(T(0)), far = cosine;
    for (int e = 0, i = 0; e < g.num_shapes; ++e) {
      Vec<T> p = broadcast<T>(T(0)), dp = p;
      for (; i < g.num_functions && g.functions[i].shape == e; ++i) {
        const T* const term = t.scratch + g.functions[i].term * t.stride + n;
        p += coefficients[i] * load(term);
        dp += coefficients[i] * load(term + g.num_terms * t.stride);
      }
      const Vec<T> value = load(t.value + e * t.stride + n), x = value * p;
      store<T>(of_shapes + e * t.stride + n, x);
      cosine += value * dp;
      far += x * far_slope(g, s, t, e, n);
    }
    store<T>(of_cosine + n, cosine);
    store<T>(of_far + n, far);
  }
}

template <class T>
void angular_reverse(const AngularGroup<T>& g, Shell<T>& s, const Triplets<T>& t, const T* cotangents) {
  angular_terms<T, true>(g, t);
  triplet_adjoints(g, s, t, cotangents);
  const Loops<T> loops(g, s, t.swapped);
  const T* of_shapes = t.scratch + 2 * g.num_terms * t.stride;
  const T* of_cosine = of_shapes + g.num_shapes * t.stride;
  const T* of_far = of_cosine + t.stride;
  const unsigned short* masks = t.masks;
  for (int j = loops.first_j; j < loops.last_j; ++j) {
    Vec<T> sum_x = broadcast<T>(T(0)), sum_y = sum_x, sum_z = sum_x, sum_r = sum_x;
    const T inverse_j = s.inverse_r[j];
    for (int k = loops.first_block(j); k < loops.last_k; k += width<T>) {
      const Mask mask = *masks++;
      if (!mask) continue;
      const Vec<T> d_cosine = simd::spread(of_cosine, mask), d_far = simd::spread(of_far, mask);
      const Vec<T> inverse_k = load(s.inverse_r + k);
      const Vec<T> cosine =
          load(s.ux + k) * s.ux[j] + load(s.uy + k) * s.uy[j] + load(s.uz + k) * s.uz[j];
      // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|², and dr_jk/dr_k likewise: a part along r_j, the
      // rest along r_k.
      const Vec<T> along = d_cosine * inverse_k * inverse_j - d_far, turn = d_cosine * cosine;
      Vec<T> radial_k = d_far - turn * inverse_k * inverse_k, radial_j = d_far - turn * (inverse_j * inverse_j);
      for (int e = 0; e < g.num_shapes; ++e) {
        const Vec<T> x = simd::spread(of_shapes + e * t.stride, mask);
        const T* const slope = s.slope + g.shapes[e] * s.stride;
        radial_k += x * load(slope + k);
        radial_j += x * slope[j];
      }
      store<T>(s.gx + k, load(s.gx + k) + along * s.x[j]);
      store<T>(s.gy + k, load(s.gy + k) + along * s.y[j]);
      store<T>(s.gz + k, load(s.gz + k) + along * s.z[j]);
      store<T>(s.gr + k, load(s.gr + k) + radial_k);
      sum_x += along * load(s.x + k);
      sum_y += along * load(s.y + k);
      sum_z += along * load(s.z + k);
      sum_r += radial_j;
      const int count = simd::count_lanes(mask);
      of_shapes += count;
      of_cosine += count;
      of_far += count;
    }
    T sums[4];
    simd::sum_four(sum_x, sum_y, sum_z, sum_r, sums);
    s.gx[j] += sums[0];
    s.gy[j] += sums[1];
    s.gz[j] += sums[2];
    s.gr[j] += sums[3];
  }
}

template <class T>
void angular_tangent(const AngularGroup<T>& g, const Shell<T>& s, Triplets<T>& t, double* tangents) {
  find_triplets<T, true>(g, s, t);
  if (g.narrow) third_sides(g, s, t);
  angular_terms<T, true>(g, t);
  const T* const rates = t.scratch + 2 * g.num_terms * t.stride;
  const T* const cosine_rate = rates + g.num_shapes * t.stride;
  const T* const far_rate = cosine_rate + t.stride;
  for (int i = 0; i < g.num_functions; ++i) {
    const AngularFunction<T>& f = g.functions[i];
    const T* const p = t.scratch + f.term * t.stride;
    const T* const dp = p + g.num_terms * t.stride;
    Vec<T> sum = broadcast<T>(T(0));
    for (int n = 0; n < t.count; n += width<T>) {
      const Vec<T> rate =
          load(rates + f.shape * t.stride + n) + far_slope(g, s, t, f.shape, n) * load(far_rate + n);
      sum += load(t.value + f.shape * t.stride + n) * (load(dp + n) * load(cosine_rate + n) + load(p + n) * rate);
    }
    tangents[f.out] += f.factor * simd::sum<T>(sum);
  }
}

// ---- the descriptor of one center

template <class T>
void forward(const CenterFunctions<T>& f, const Shell<T>* shells, T* radial_slopes, Triplets<T>* triplets,
             double* features) {
  for (int n = 0; n < f.num_features; ++n) features[n] = 0;
  for (int n = 0; n < f.num_radial; ++n) {
    const Shell<T>& s = shells[f.radial[n].shell];
    radial_forward(f.radial[n], s, radial_slopes, features);
    radial_slopes += f.radial[n].num_functions * s.stride;
  }
  for (int n = 0; n < f.num_angular; ++n)
    angular_forward(f.angular[n], shells[f.angular[n].shell], triplets[n], features);
}

template <class T>
void reverse(const CenterFunctions<T>& f, Shell<T>* shells, int num_shells, const T* radial_slopes,
             const Triplets<T>* triplets, const T* cotangents) {
  for (int n = 0; n < f.num_radial; ++n) {
    Shell<T>& s = shells[f.radial[n].shell];
    radial_reverse(f.radial[n], s, radial_slopes, cotangents);
    radial_slopes += f.radial[n].num_functions * s.stride;
  }
  for (int n = 0; n < f.num_angular; ++n)
    angular_reverse(f.angular[n], shells[f.angular[n].shell], triplets[n], cotangents);
  for (int n = 0; n < num_shells; ++n) {
    Shell<T>& s = shells[n];
    for (int k = 0; k < s.stride; k += width<T>) {
      const Vec<T> g = load(s.gr + k);
      store<T>(s.gx + k, load(s.gx + k) + g * load(s.x + k));
      store<T>(s.gy + k, load(s.gy + k) + g * load(s.y + k));
      store<T>(s.gz + k, load(s.gz + k) + g * load(s.z + k));
    }
  }
}

template <class T>
void tangent(const CenterFunctions<T>& f, Shell<T>* shells, int num_shells, Triplets<T>* triplets,
             double* tangents) {
  for (int n = 0; n < f.num_features; ++n) tangents[n] = 0;
  for (int n = 0; n < num_shells; ++n) {
    Shell<T>& s = shells[n];
    for (int k = 0; k < s.stride; k += width<T>)
      store<T>(s.gr + k, load(s.gx + k) * load(s.ux + k) + load(s.gy + k) * load(s.uy + k) +
                             load(s.gz + k) * load(s.uz + k));
  }
  for (int n = 0; n < f.num_radial; ++n) radial_tangent(f.radial[n], shells[f.radial[n].shell], tangents);
  for (int n = 0; n < f.num_angular; ++n)
    angular_tangent(f.angular[n], shells[f.angular[n].shell], triplets[n], tangents);
}

template <class T>
constexpr Kernels<T> table() {
  return {prepare<T>, forward<T>, reverse<T>, tangent<T>};
}

}  // namespace

namespace NEARSIGHT_ISA {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float = table<float>();
const Kernels<double> kernels_double = table<double>();
}  // namespace NEARSIGHT_ISA

}  // namespace acsf
}  // namespace nearsight
