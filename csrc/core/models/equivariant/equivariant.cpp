#include "core/models/equivariant/equivariant.hpp"

#include <algorithm>
#include <atomic>

#include "core/models/shared/denormals.hpp"

namespace nearsight {
namespace equivariant {

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

namespace {

constexpr std::int64_t kMostChunks = 16;    // parts of a convolution, whatever the number of threads
constexpr std::int64_t kEdgesOfChunk = 64;  // that are worth one

/// Calls body(number, thread) for every number below count, each in the thread that comes first.
template <class Body>
void for_each(std::int64_t count, ThreadPool& threads, const Body& body) {
  std::atomic<std::int64_t> next{0};
  threads.run([&](int thread) {
    const FlushDenormals flush;
    for (std::int64_t n = next++; n < count; n = next++) body(n, thread);
  });
}

}  // namespace

Paths::Paths(Span<const std::int64_t> paths, std::int64_t num_atoms, int channels) {
  const std::size_t num_paths = paths.size() / 4;
  std::vector<std::int64_t> of_irrep;  // number of paths
  for (std::size_t p = 0; p < num_paths; ++p) {
    of_irrep.resize(static_cast<std::size_t>(paths[4 * p + 3]) + 1, 0);
    ++of_irrep.back();
  }
  std::int64_t phi = 0, block = 0, before = 0, irrep = 0, last = 0;
  for (std::size_t p = 0; p < num_paths; ++p) {
    const std::int64_t first = paths[4 * p], s1 = paths[4 * p + 1], s3 = paths[4 * p + 2];
    if (paths[4 * p + 3] != irrep) {
      block += num_atoms * paths[4 * p - 2] * of_irrep[irrep] * channels;
      irrep = paths[4 * p + 3];
      before = 0;
    }
    const std::int64_t row = of_irrep[irrep] * channels;
    list.push_back({static_cast<int>(first), static_cast<int>(s1), static_cast<int>(s3),
                    static_cast<int>(phi), first * num_atoms * channels, s1 * channels,
                    block + before++ * channels, s3 * row, row});
    phi += s1 * s3;
    last = std::max(last, first + s1);
  }
  components = static_cast<int>(last);
  num_phi = static_cast<int>(phi);
}

template <class T>
EdgeSums<T>::EdgeSums(const Neighborhoods& graph, int channels, int num_harmonics,
                      Span<const std::int64_t> paths, Span<const T> dense)
    : arguments{}, paths_(paths, graph.num_atoms, channels) {
  const std::int64_t phi = paths_.num_phi;
  const std::int64_t stride = (phi + kRun<T> - 1) / kRun<T> * kRun<T>;
  dense_.assign(num_harmonics * stride, T(0));
  for (int h = 0; h < num_harmonics; ++h)
    for (std::int64_t k = 0; k < phi; ++k)
      if (const T value = dense[h * phi + k]) {
        dense_[h * stride + k] = value;
        couplings_.push_back({static_cast<int>(k), h, static_cast<double>(value)});
      }
  for (std::int64_t i = 0; i < graph.num_atoms; ++i)
    most_edges_ = std::max(most_edges_, graph.offsets[i + 1] - graph.offsets[i]);
  arguments.graph = graph;
  arguments.channels = channels;
  arguments.components = paths_.components;
  arguments.num_paths = static_cast<int>(paths_.list.size());
  arguments.num_harmonics = num_harmonics;
  arguments.num_phi = paths_.num_phi;
  arguments.num_couplings = static_cast<int>(couplings_.size());
  arguments.paths = paths_.list.data();
  arguments.couplings = couplings_.data();
  arguments.dense = dense_.data();
  make_chunks();
}

/// Divides the centers into runs with about as many edges each.
template <class T>
void EdgeSums<T>::make_chunks() {
  const Neighborhoods& graph = arguments.graph;
  const std::int64_t count = std::clamp<std::int64_t>(graph.num_edges / kEdgesOfChunk, 1, kMostChunks);
  std::int64_t first = 0;
  for (std::int64_t n = 1; n <= count; ++n) {
    std::int64_t last = first;
    while (last < graph.num_atoms && (n == count || graph.offsets[last] * count < graph.num_edges * n))
      ++last;
    Chunk chunk{first, last, 0, 0, {}};
    if (graph.offsets[first] < graph.offsets[last]) {
      const auto ends =
          std::minmax_element(graph.neighbors + graph.offsets[first], graph.neighbors + graph.offsets[last]);
      chunk.first_source = *ends.first;
      chunk.last_source = *ends.second + 1;
    }
    chunks_.push_back(std::move(chunk));
    first = last;
  }
}

template <class T>
template <class Body>
void EdgeSums<T>::for_chunks(ThreadPool& threads, bool with_sources, const Body& body) {
  const std::size_t scratch = kernels<T>().scratch(arguments, most_edges_);
  std::vector<std::vector<T>> of_thread(threads.size());
  for_each(static_cast<std::int64_t>(chunks_.size()), threads, [&](std::int64_t n, int thread) {
    Chunk& chunk = chunks_[n];
    of_thread[thread].resize(scratch);
    if (with_sources)
      chunk.source_adjoints.resize((chunk.last_source - chunk.first_source) * arguments.components *
                                   arguments.channels);
    body(Rows<T>{chunk.first, chunk.last, chunk.first_source,
                 with_sources ? chunk.source_adjoints.data() : nullptr, of_thread[thread].data()});
  });
}

/// The sum of all chunks' adjoints of sources, always in the same order.
template <class T>
void EdgeSums<T>::add_sources(T* source_adjoints, ThreadPool& threads) {
  const std::int64_t channels = arguments.channels, components = arguments.components;
  const std::int64_t atoms = arguments.graph.num_atoms;
  std::vector<std::int64_t> sizes(components, 0);  // of the irrep that begins at a component
  for (const Path& path : paths_.list) sizes[path.component] = path.s1;
  for_each((atoms + 15) / 16, threads, [&](std::int64_t n, int) {
    for (std::int64_t atom = 16 * n; atom < std::min(atoms, 16 * n + 16); ++atom)
      for (std::int64_t first = 0; first < components; ++first) {
        if (sizes[first] == 0) continue;
        const std::int64_t count = sizes[first] * channels;
        T* const out = source_adjoints + first * atoms * channels + arguments.graph.places[atom] * count;
        std::fill_n(out, count, T(0));
        for (const Chunk& chunk : chunks_) {
          if (atom < chunk.first_source || atom >= chunk.last_source) continue;
          const T* const part =
              chunk.source_adjoints.data() + ((atom - chunk.first_source) * components + first) * channels;
          for (std::int64_t k = 0; k < count; ++k) out[k] += part[k];
        }
      }
  });
}

template <class T>
void EdgeSums<T>::convolve(ThreadPool& threads) {
  for_chunks(threads, false, [&](const Rows<T>& rows) { kernels<T>().convolve(arguments, rows); });
}

template <class T>
void EdgeSums<T>::by_geometry(T* source_adjoints, double* distance_adjoints, ThreadPool& threads) {
  const Neighborhoods& graph = arguments.graph;
  std::vector<double> of_edges(graph.num_edges);
  arguments.distance_adjoints = of_edges.data();
  for_chunks(threads, source_adjoints != nullptr,
             [&](const Rows<T>& rows) { kernels<T>().by_geometry(arguments, rows); });
  if (source_adjoints) add_sources(source_adjoints, threads);
  std::fill_n(distance_adjoints, graph.num_pairs, 0.0);
  for (std::int64_t e = 0; e < graph.num_edges; ++e) distance_adjoints[graph.pairs[e]] += of_edges[e];
}

template <class T>
void EdgeSums<T>::by_parameters(T* source_adjoints, ThreadPool& threads) {
  for (const Part part : {Part::first_of_pair, Part::second_of_pair})
    for_chunks(threads, true,
               [&](const Rows<T>& rows) { kernels<T>().by_parameters(arguments, rows, part); });
  add_sources(source_adjoints, threads);
}

template <class T>
void EdgeSums<T>::of_tangent(T* source_adjoints, ThreadPool& threads) {
  for (const Part part : {Part::first_of_pair, Part::second_of_pair})
    for_chunks(threads, true, [&](const Rows<T>& rows) { kernels<T>().of_tangent(arguments, rows, part); });
  add_sources(source_adjoints, threads);
}

Layout::Layout(Span<const std::int64_t> sizes, std::int64_t atoms, int channels) {
  std::int64_t place = 0;
  for (const std::int64_t size : sizes) {
    for (std::int64_t m = 0; m < size; ++m) {
      places.push_back(place + m * channels);
      strides.push_back(size * channels);
    }
    place += atoms * size * channels;
  }
}

template <class T>
void contract(Contraction<T> arguments, Contracted what, Span<const std::int64_t> counts,
              ThreadPool& threads) {
  const Kernels<T>& table = kernels<T>();
  const auto kernel = what == Contracted::value     ? table.contract
                      : what == Contracted::reverse ? table.contract_reverse
                                                    : table.contract_tangent;
  std::vector<std::vector<T>> scratch(threads.size());
  const std::int64_t size = std::int64_t(arguments.num_terms) * arguments.channels;
  for_each(arguments.channels / kRun<T>, threads, [&](std::int64_t run, int thread) {
    scratch[thread].resize(table.contraction_scratch(arguments));
    Contraction<T> part = arguments;
    const auto advance = [&](auto*& pointer) {
      if (pointer) pointer += size;
    };
    for (const std::int64_t count : counts) {
      part.last_atom = part.first_atom + count;
      kernel(part, static_cast<int>(run) * kRun<T>, scratch[thread].data());
      part.first_atom = part.last_atom;
      advance(part.weights);
      advance(part.weight_tangents);
      advance(part.weight_adjoints);
    }
  });
}

template class EdgeSums<float>;
template class EdgeSums<double>;
template void contract(Contraction<float>, Contracted, Span<const std::int64_t>, ThreadPool&);
template void contract(Contraction<double>, Contracted, Span<const std::int64_t>, ThreadPool&);

}  // namespace equivariant
}  // namespace nearsight
