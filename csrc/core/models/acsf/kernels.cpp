#include "core/models/acsf/kernels.hpp"

#include "core/models/acsf/moments.hpp"
#include "core/models/acsf/triplets.hpp"

namespace nearsight {
namespace acsf {
namespace {

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

template <class T, bool kFeatures>
void radial_forward(const RadialGroup<T>& g, const Shell<T>& s, T* slopes, double* features) {
  for (int n = 0; n < g.num_functions; ++n, slopes += s.stride) {
    Vec<T> sum = broadcast<T>(T(0));
    for_neighbors<T>(g.functions[n], g.species, s, [&](int k, Vec<T> w, Vec<T> slope) {
      sum += w;
      store<T>(slopes + k, w * slope * load(s.inverse_r + k));
    });
    if (kFeatures) features[g.functions[n].out] += g.functions[n].factor * simd::sum<T>(sum);
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

// ---- angular functions

template <class T>
void angular_sides(const AngularGroup<T>& g, const Shell<T>& s, Triplets<T>& t) {
  find_triplets<T, false>(g, s, t);
  if (g.narrow) third_sides(g, s, t);
  if (g.compact_terms) find_angles(t);
}

template <class T>
void angular_forward(const AngularGroup<T>& g, const Triplets<T>& t, double* features) {
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
    features[f.out] += f.factor * simd::sum<T>(sum + other);
  }
}

/// dE/dw of each shape, dE/dcos θ and (dE/dr_jk)/r_jk of every triplet into the scratch arrays behind the
/// terms.
template <class T>
void triplet_adjoints(const AngularGroup<T>& group, const Shell<T>& s, const Triplets<T>& triplets,
                      const T* cotangents) {
  const AngularGroup<T> g = group;
  const Triplets<T> t = triplets;
  const Rows<T> values(t.value, g.num_shapes, t.stride);
  const Rows<T> adjoints(t.scratch + 2 * g.num_terms * t.stride, g.num_shapes + 2, t.stride);
  const int to_derivative = g.num_terms * t.stride;
  const T* terms[kMaxFunctions];
  T coefficients[kMaxFunctions], etas[kMaxFunctions];
  int last[kMaxFunctions] = {};  // behind the functions of each shape
  for (int i = 0; i < g.num_functions; ++i) {
    const AngularFunction<T>& f = g.functions[i];
    coefficients[i] = cotangents[f.out] * f.factor;
    terms[i] = t.scratch + f.term * t.stride;
    last[f.shape] = i + 1;
  }
  for (int e = 0; e < g.num_shapes; ++e) etas[e] = s.shapes[g.shapes[e]].eta;
  for (int n = 0; n < t.count; n += width<T>) {
    Vec<T> cosine = broadcast<T>(T(0)), far = cosine;
    for (int e = 0, i = 0; e < g.num_shapes; ++e) {
      Vec<T> p = broadcast<T>(T(0)), dp = p;
      for (; i < last[e]; ++i) {
        p += coefficients[i] * load(terms[i] + n);
        dp += coefficients[i] * load(terms[i] + to_derivative + n);
      }
      const Vec<T> value = load(values[e] + n), x = value * p;
      store<T>(adjoints[e] + n, x);
      cosine += value * dp;
      far += x * far_slope<T>(g, t, etas[e], e, n);
    }
    store<T>(adjoints[g.num_shapes] + n, cosine);
    store<T>(adjoints[g.num_shapes + 1] + n, far);
  }
}

template <class T>
void angular_reverse(const AngularGroup<T>& group, const Shell<T>& shell, const Triplets<T>& triplets,
                     const T* cotangents) {
  angular_terms<T, true>(group, triplets);
  triplet_adjoints(group, shell, triplets, cotangents);
  const AngularGroup<T> g = group;
  const Shell<T> s = shell;
  const Triplets<T> t = triplets;
  const Loops<T> loops(g, s, t.swapped);
  const Rows<T> slopes(s.slope, g.num_shapes, s.stride, g.shapes);
  const Rows<T> adjoints(t.scratch + 2 * g.num_terms * t.stride, g.num_shapes + 2, t.stride);
  const unsigned short* masks = t.masks;
  int place = 0;
  for (int j = loops.first_j; j < loops.last_j; ++j) {
    const Vec<T> xj = broadcast(s.x[j]), yj = broadcast(s.y[j]), zj = broadcast(s.z[j]);
    const Vec<T> uxj = broadcast(s.ux[j]), uyj = broadcast(s.uy[j]), uzj = broadcast(s.uz[j]);
    const Vec<T> inverse_j = broadcast(s.inverse_r[j]), inverse_j2 = inverse_j * inverse_j;
    Vec<T> sum_x = broadcast<T>(T(0)), sum_y = sum_x, sum_z = sum_x, sum_r = sum_x;
    for (int k = loops.first_block(j); k < loops.last_k; k += width<T>) {
      const Mask mask = *masks++;
      if (!mask) continue;
      const Vec<T> d_cosine = simd::spread(adjoints[g.num_shapes] + place, mask);
      const Vec<T> d_far = simd::spread(adjoints[g.num_shapes + 1] + place, mask);
      const Vec<T> inverse_k = load(s.inverse_r + k);
      const Vec<T> cosine = load(s.ux + k) * uxj + load(s.uy + k) * uyj + load(s.uz + k) * uzj;
      // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|², and dr_jk/dr_k likewise: a part along r_j, the
      // rest along r_k.
      const Vec<T> along = d_cosine * inverse_k * inverse_j - d_far, turn = d_cosine * cosine;
      Vec<T> radial_k = d_far - turn * inverse_k * inverse_k, radial_j = d_far - turn * inverse_j2;
      for (int e = 0; e < g.num_shapes; ++e) {
        const Vec<T> x = simd::spread(adjoints[e] + place, mask);
        radial_k += x * load(slopes[e] + k);
        radial_j += x * slopes[e][j];
      }
      store<T>(s.gx + k, load(s.gx + k) + along * xj);
      store<T>(s.gy + k, load(s.gy + k) + along * yj);
      store<T>(s.gz + k, load(s.gz + k) + along * zj);
      store<T>(s.gr + k, load(s.gr + k) + radial_k);
      sum_x += along * load(s.x + k);
      sum_y += along * load(s.y + k);
      sum_z += along * load(s.z + k);
      sum_r += radial_j;
      place += simd::count_lanes(mask);
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
  if (g.compact_terms) find_angles(t);
  angular_terms<T, true>(g, t);
  const Rows<T> rates(t.scratch + 2 * g.num_terms * t.stride, g.num_shapes + 2, t.stride);
  for (int i = 0; i < g.num_functions; ++i) {
    const AngularFunction<T>& f = g.functions[i];
    const T eta = s.shapes[g.shapes[f.shape]].eta;
    const T* const p = t.scratch + f.term * t.stride;
    const T* const dp = p + g.num_terms * t.stride;
    Vec<T> sum = broadcast<T>(T(0));
    for (int n = 0; n < t.count; n += width<T>) {
      const Vec<T> rate =
          load(rates[f.shape] + n) + far_slope<T>(g, t, eta, f.shape, n) * load(rates[g.num_shapes + 1] + n);
      sum += load(t.value + f.shape * t.stride + n) *
             (load(dp + n) * load(rates[g.num_shapes] + n) + load(p + n) * rate);
    }
    tangents[f.out] += f.factor * simd::sum<T>(sum);
  }
}

// ---- the descriptor of one center

template <class T>
double* moments_of(const CenterFunctions<T>& f, const Kept<T>& kept, int n) {
  return kept.moments + n * 2 * f.moment[n].num_species * kMomentStride;
}

template <class T, bool kFeatures>
void run_forward(const CenterFunctions<T>& f, const Shell<T>* shells, const Kept<T>& kept, double* features) {
  T* slopes = kept.radial_slopes;
  for (int n = 0; n < f.num_radial; ++n) {
    const Shell<T>& s = shells[f.radial[n].shell];
    radial_forward<T, kFeatures>(f.radial[n], s, slopes, features);
    slopes += f.radial[n].num_functions * s.stride;
  }
  for (int n = 0; n < f.num_angular; ++n) {
    angular_sides(f.angular[n], shells[f.angular[n].shell], kept.triplets[n]);
    if (kFeatures) angular_forward(f.angular[n], kept.triplets[n], features);
  }
  for (int n = 0; n < f.num_moment; ++n) {
    double* const moments = moments_of(f, kept, n);
    find_moments(f.moment[n], shells[f.moment[n].shell], moments);
    if (kFeatures) moment_forward(f.moment[n], moments, features);
  }
}

template <class T>
void forward(const CenterFunctions<T>& f, const Shell<T>* shells, const Kept<T>& kept, double* features) {
  for (int n = 0; n < f.num_features; ++n) features[n] = 0;
  run_forward<T, true>(f, shells, kept, features);
}

template <class T>
void remember(const CenterFunctions<T>& f, const Shell<T>* shells, const Kept<T>& kept) {
  run_forward<T, false>(f, shells, kept, nullptr);
}

template <class T>
void reverse(const CenterFunctions<T>& f, Shell<T>* shells, int num_shells, const Kept<T>& kept,
             const T* cotangents) {
  const T* slopes = kept.radial_slopes;
  for (int n = 0; n < f.num_radial; ++n) {
    Shell<T>& s = shells[f.radial[n].shell];
    radial_reverse(f.radial[n], s, slopes, cotangents);
    slopes += f.radial[n].num_functions * s.stride;
  }
  for (int n = 0; n < f.num_angular; ++n)
    angular_reverse(f.angular[n], shells[f.angular[n].shell], kept.triplets[n], cotangents);
  for (int n = 0; n < f.num_moment; ++n)
    moment_reverse(f.moment[n], shells[f.moment[n].shell], moments_of(f, kept, n), cotangents);
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
void tangent(const CenterFunctions<T>& f, Shell<T>* shells, int num_shells, const Kept<T>& kept,
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
    angular_tangent(f.angular[n], shells[f.angular[n].shell], kept.triplets[n], tangents);
  for (int n = 0; n < f.num_moment; ++n)
    moment_tangent(f.moment[n], shells[f.moment[n].shell], moments_of(f, kept, n), tangents);
}

template <class T>
constexpr Kernels<T> table() {
  return {prepare<T>, forward<T>, remember<T>, reverse<T>, tangent<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace acsf
}  // namespace nearsight
