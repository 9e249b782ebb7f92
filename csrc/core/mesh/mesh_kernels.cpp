#include "core/mesh/mesh_kernels.hpp"

#include "core/models/shared/simd.hpp"
#include "core/models/shared/simd_unaligned.hpp"

namespace nearsight {
namespace mesh {
namespace {

/// Eight numbers at any address.
template <class T>
struct Types {
  typedef T eight __attribute__((vector_size(8 * sizeof(T)), aligned(alignof(T)), may_alias));
  typedef T line __attribute__((vector_size(64), may_alias));  // a cache line
};
template <class T>
using Eight = typename Types<T>::eight;

template <class T>
inline Eight<T>& eight(T* p) {
  return *reinterpret_cast<Eight<T>*>(p);
}
template <class T>
inline Eight<T> eight(const T* p) {
  return *reinterpret_cast<const Eight<T>*>(p);
}

template <class T>
inline T sum(Eight<T> v) {
  T total = 0;
  for (int l = 0; l < 8; ++l) total += v[l];
  return total;
}

/// Weights of the cardinal B-spline M_p at the p mesh points that a charge reaches, and their derivatives by
/// its place: weights[j] = M_p(place + p - 1 - j). Essmann et al., J. Chem. Phys. 103, 8577 (1995), eqs. 4.1
/// and 4.2. Of a batch of charges along one direction: [j][charge].
template <int order>
struct Splines {
  Eight<double> weights[order], slopes[order];

  explicit Splines(const double* place) {
    const Eight<double> f = eight(place);
    Eight<double> m[order] = {f, 1.0 - f};  // M_2(place + i)
    for (int n = 3; n < order; ++n) raise(n, f, m);
    for (int i = 0; i < order; ++i) slopes[order - 1 - i] = i ? m[i] - m[i - 1] : m[i];
    raise(order, f, m);
    for (int i = 0; i < order; ++i) weights[order - 1 - i] = m[i];
  }

  /// M_n from M_(n-1).
  static void raise(int n, Eight<double> f, Eight<double>* m) {
    const double share = 1.0 / (n - 1);
    for (int i = n - 1; i > 0; --i) m[i] = share * ((f + double(i)) * m[i] + (double(n - i) - f) * m[i - 1]);
    m[0] = share * f * m[0];
  }
};

/// [j][charge] in T.
template <class T, int order>
inline void convert(const Eight<double>* from, T (*to)[kBatch]) {
  for (int j = 0; j < order; ++j) eight(to[j]) = __builtin_convertvector(from[j], Eight<T>);
}

/// [charge][j], with zeros to the end of a line.
template <class T, int order>
inline void turn(const Eight<double>* from, T (*to)[kLine]) {
  for (int l = 0; l < kBatch; ++l)
    for (int j = 0; j < kLine; ++j) to[l][j] = j < order ? static_cast<T>(from[j][l]) : T(0);
}

/// Offsets of the lines that a charge reaches.
template <class T, int order>
inline void find_lines(const Brick<T>& brick, int first, std::size_t* lines) {
  for (int b = 0; b < order; ++b) {
    int line = first + b;
    while (line >= brick.lines) line -= brick.lines;
    lines[b] = line * brick.row;
  }
}

template <class T, int order>
void spread(const Placed<T>& placed, std::size_t first, std::size_t last, int from, int begin, int end,
            const Brick<T>& brick) {
  const int first_a = begin > from ? begin - from : 0, last_a = end - from < order ? end - from : order;
  const std::size_t plane = brick.lines * brick.row;
  T x[order][kBatch], y[order][kBatch], z[kBatch][kLine];
  for (std::size_t batch = first; batch < last; batch += kBatch) {
    convert<T, order>(Splines<order>(placed.place[0] + batch).weights, x);
    convert<T, order>(Splines<order>(placed.place[1] + batch).weights, y);
    turn<T, order>(Splines<order>(placed.place[2] + batch).weights, z);
    for (std::size_t i = batch; i < last && i < batch + kBatch; ++i) {
      const std::size_t l = i - batch;
      std::size_t lines[order];
      find_lines<T, order>(brick, placed.first[1][i], lines);
      const Eight<T> charge = placed.charge[i] * eight(static_cast<const T*>(z[l]));
      for (int a = first_a; a < last_a; ++a) {
        T* const values = brick.values + (from + a) * plane + placed.first[2][i];
        const Eight<T> share = x[a][l] * charge;
        for (int b = 0; b < order; ++b) eight(values + lines[b]) += y[b][l] * share;
      }
    }
  }
}

template <class T, int order, bool kSlopes>
void gather(const Placed<T>& placed, std::size_t first, std::size_t last, const Brick<T>& brick,
            T (*results)[4]) {
  const std::size_t plane = brick.lines * brick.row;
  T x[order][kBatch], y[order][kBatch], z[kBatch][kLine];
  T dx[order][kBatch], dy[order][kBatch], dz[kBatch][kLine];
  for (std::size_t batch = first; batch < last; batch += kBatch) {
    const Splines<order> along_x(placed.place[0] + batch), along_y(placed.place[1] + batch),
        along_z(placed.place[2] + batch);
    convert<T, order>(along_x.weights, x);
    convert<T, order>(along_y.weights, y);
    turn<T, order>(along_z.weights, z);
    if constexpr (kSlopes) {
      convert<T, order>(along_x.slopes, dx);
      convert<T, order>(along_y.slopes, dy);
      turn<T, order>(along_z.slopes, dz);
    }
    for (std::size_t i = batch; i < last && i < batch + kBatch; ++i) {
      const std::size_t l = i - batch;
      std::size_t lines[order];
      find_lines<T, order>(brick, placed.first[1][i], lines);
      Eight<T> value = {}, by_x = {}, by_y = {};
      int p = placed.first[0][i];
      for (int a = 0; a < order; ++a, ++p) {
        while (p >= brick.planes) p -= brick.planes;
        const T* const values = brick.values + p * plane + placed.first[2][i];
        Eight<T> sum_y = {}, slope_y = {};
        for (int b = 0; b < order; ++b) {
          const Eight<T> line = eight(values + lines[b]);
          sum_y += y[b][l] * line;
          if constexpr (kSlopes) slope_y += dy[b][l] * line;
        }
        value += x[a][l] * sum_y;
        if constexpr (!kSlopes) continue;
        by_x += dx[a][l] * sum_y;
        by_y += x[a][l] * slope_y;
      }
      const Eight<T> weights = eight(static_cast<const T*>(z[l]));
      T* const result = results[i - first];
      result[0] = sum<T>(value * weights);
      if constexpr (!kSlopes) continue;
      result[1] = sum<T>(by_x * weights);
      result[2] = sum<T>(by_y * weights);
      result[3] = sum<T>(value * eight(static_cast<const T*>(dz[l])));
    }
  }
}

template <int n>
struct Constant {
  static constexpr int value = n;
};

/// Calls body with the order as a constant.
template <int order = 4, class Body>
inline void with_order(int wanted, const Body& body) {
  if constexpr (order <= kMaxOrder) {
    if (wanted == order) return body(Constant<order>{});
    with_order<order + 1>(wanted, body);
  }
}

template <class T>
void spread_any(int order, const Placed<T>& placed, std::size_t first, std::size_t last, int from, int begin,
                int end, const Brick<T>& brick) {
  with_order(order, [&](auto constant) {
    spread<T, decltype(constant)::value>(placed, first, last, from, begin, end, brick);
  });
}

template <class T, bool kSlopes>
void gather_any(int order, const Placed<T>& placed, std::size_t first, std::size_t last,
                const Brick<T>& brick, T (*results)[4]) {
  with_order(order, [&](auto constant) {
    gather<T, decltype(constant)::value, kSlopes>(placed, first, last, brick, results);
  });
}

/// The transform of odd length R, in place: pairs j and R - j share their products.
template <int R, class T, class V>
inline void butterfly(const T* roots, V* re, V* im) {
  constexpr int half = (R - 1) / 2;
  V plus_re[half], plus_im[half], minus_re[half], minus_im[half];
  V sum_re = re[0], sum_im = im[0];
  for (int j = 1; j <= half; ++j) {
    plus_re[j - 1] = re[j] + re[R - j];
    plus_im[j - 1] = im[j] + im[R - j];
    minus_re[j - 1] = re[j] - re[R - j];
    minus_im[j - 1] = im[j] - im[R - j];
    sum_re += plus_re[j - 1];
    sum_im += plus_im[j - 1];
  }
  for (int k = 1; k <= half; ++k) {
    V even_re = re[0], even_im = im[0], odd_re = re[0] - re[0], odd_im = odd_re;
    for (int j = 1; j <= half; ++j) {
      const T c = roots[2 * (j * k % R)], s = roots[2 * (j * k % R) + 1];
      even_re += c * plus_re[j - 1];
      even_im += c * plus_im[j - 1];
      odd_re += s * minus_re[j - 1];
      odd_im += s * minus_im[j - 1];
    }
    re[k] = even_re + odd_im;
    im[k] = even_im - odd_re;
    re[R - k] = even_re - odd_im;
    im[R - k] = even_im + odd_re;
  }
  re[0] = sum_re;
  im[0] = sum_im;
}

template <class V>
inline void butterfly2(V* re, V* im) {
  const V a = re[0], b = im[0];
  re[0] = a + re[1];
  im[0] = b + im[1];
  re[1] = a - re[1];
  im[1] = b - im[1];
}

template <class V>
inline void butterfly4(V* re, V* im) {
  const V s0r = re[0] + re[2], s0i = im[0] + im[2], d0r = re[0] - re[2], d0i = im[0] - im[2];
  const V s1r = re[1] + re[3], s1i = im[1] + im[3], d1r = re[1] - re[3], d1i = im[1] - im[3];
  re[0] = s0r + s1r;
  im[0] = s0i + s1i;
  re[1] = d0r + d1i;
  im[1] = d0i - d1r;
  re[2] = s0r - s1r;
  im[2] = s0i - s1i;
  re[3] = d0r - d1i;
  im[3] = d0i + d1r;
}

template <int R, class T>
void pass(int rest, int stride, const T* twiddles, const T* roots, const T* from_re, const T* from_im,
          T* to_re, T* to_im) {
  using V = typename Types<T>::line;
  const V* const xr = reinterpret_cast<const V*>(from_re);
  const V* const xi = reinterpret_cast<const V*>(from_im);
  V* const yr = reinterpret_cast<V*>(to_re);
  V* const yi = reinterpret_cast<V*>(to_im);
  for (int p = 0; p < rest; ++p) {
    const T* const w = twiddles + 2 * (R - 1) * static_cast<std::size_t>(p);
    for (int q = 0; q < stride; ++q) {
      V re[R], im[R];
      for (int j = 0; j < R; ++j) {
        const std::size_t from = q + static_cast<std::size_t>(stride) * (p + rest * j);
        re[j] = xr[from];
        im[j] = xi[from];
      }
      if constexpr (R == 4)
        butterfly4(re, im);
      else if constexpr (R == 2)
        butterfly2(re, im);
      else
        butterfly<R>(roots, re, im);
      const std::size_t to = q + static_cast<std::size_t>(stride) * R * p;
      yr[to] = re[0];
      yi[to] = im[0];
      for (int k = 1; k < R; ++k) {
        const T c = w[2 * k - 2], s = w[2 * k - 1];
        yr[to + stride * k] = c * re[k] - s * im[k];
        yi[to + stride * k] = c * im[k] + s * re[k];
      }
    }
  }
}

template <class T>
void pass_any(int radix, int rest, int stride, const T* twiddles, const T* roots, const T* from_re,
              const T* from_im, T* to_re, T* to_im) {
  switch (radix) {
    case 2:
      return pass<2>(rest, stride, twiddles, roots, from_re, from_im, to_re, to_im);
    case 3:
      return pass<3>(rest, stride, twiddles, roots, from_re, from_im, to_re, to_im);
    case 4:
      return pass<4>(rest, stride, twiddles, roots, from_re, from_im, to_re, to_im);
    case 5:
      return pass<5>(rest, stride, twiddles, roots, from_re, from_im, to_re, to_im);
    default:
      return pass<7>(rest, stride, twiddles, roots, from_re, from_im, to_re, to_im);
  }
}

template <class T>
void multiply(const Waves<T>& waves, T* real, T* imaginary, T* sums) {
  using simd::load;
  using simd::Vec;
  constexpr int width = simd::width<T>;
  for (int l = 0; l < waves.lanes; l += width) {
    const Vec<T> b = load(waves.b + l), c = load(waves.c + l);
    Vec<T> total[4] = {};
    for (int row = 0; row < waves.length; ++row) {
      const T h = static_cast<T>(2 * row < waves.length ? row : row - waves.length);
      T *const re = real + row * waves.lanes + l, *const im = imaginary + row * waves.lanes + l;
      const Vec<T> g = simd::load_anywhere(waves.influence + row * waves.columns + l), x = load(re),
                   y = load(im);
      const Vec<T> k2 = simd::max<T>((waves.a * h + b) * h + c, T(1e-30));  // of k = 0 g is 0
      const Vec<T> e = g * (x * x + y * y), f = e * (T(2) * (T(1) / k2 + waves.quarter));
      total[0] += e;
      total[1] += f;
      total[2] += f * h;
      total[3] += f * h * h;
      simd::store<T>(re, g * x);
      simd::store<T>(im, g * y);
    }
    for (int s = 0; s < 4; ++s) simd::store<T>(sums + s * waves.lanes + l, total[s]);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {spread_any<T>, gather_any<T, true>, gather_any<T, false>, pass_any<T>, multiply<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace mesh
}  // namespace nearsight
