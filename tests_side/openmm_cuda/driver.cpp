// A stand-in for CUDA's driver under OpenMM's CUDA platform: one device, whose memory is the host's. Kernels
// are not compiled but known by name; those that this file does not know do nothing. It ends the program
// where no context is current, and reports at the end how often kernels were started. TEST_PRECISION in the
// environment is the platform's.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#define KERNEL inline
#define GLOBAL
#define RESTRICT __restrict__
#define GLOBAL_ID 0
#define GLOBAL_SIZE 1
#define ATOMIC_ADD(to, value) (*(to) += (value))
using mm_long = long long;
using mm_ulong = unsigned long long;

namespace in_double {
struct real4 {
  double x, y, z, w;
};
#include "cuda/transfer.cu"
}  // namespace in_double
namespace in_single {
struct real4 {
  float x, y, z, w;
};
#include "cuda/transfer.cu"
}  // namespace in_single
namespace in_mixed {
using in_single::real4;
#define USE_MIXED_PRECISION
#include "cuda/transfer.cu"
}  // namespace in_mixed

namespace {

using Address = unsigned long long;

thread_local std::vector<void*> contexts;
std::map<Address, void*> context_of;  // of memory
std::map<std::string, int> launches;

struct Report {
  ~Report() {
    for (const auto& [name, count] : launches) std::printf("%s %d\n", name.c_str(), count);
  }
} report;

void* current(const char* what) {
  if (!contexts.empty() && contexts.back()) return contexts.back();
  std::fprintf(stderr, "%s: no context is current\n", what);
  std::abort();
}

int copy(void* to, const void* from, std::size_t bytes) {
  current("copy");
  std::memcpy(to, from, bytes);
  return 0;
}

template <class T>
T argument(void** arguments, int k) {
  return *static_cast<T*>(arguments[k]);
}

template <class Real, class Real4>
void copy_positions(void** a) {
  for (int i = 0; i < argument<int>(a, 2); ++i) {
    const Real* const r = argument<const Real*>(a, 0) + 3 * i;
    Real4& to = argument<Real4*>(a, 1)[i];
    to.x = r[0], to.y = r[1], to.z = r[2];
  }
}

void clear(void** a, int buffers) {
  for (int k = 0; k < 2 * buffers; k += 2)
    std::memset(argument<void*>(a, k), 0, 4 * static_cast<std::size_t>(argument<int>(a, k + 1)));
}

void read_positions(void** a) {
  const std::string precision = std::getenv("TEST_PRECISION");
  const int* const order = argument<const int*>(a, precision == "mixed" ? 2 : 1);
  const int atoms = argument<int>(a, precision == "mixed" ? 4 : 3);
  if (!std::is_sorted(order, order + atoms)) ++launches["reordered"];
  if (precision == "mixed")
    in_mixed::readPositions(argument<const in_mixed::real4*>(a, 0), argument<const in_mixed::real4*>(a, 1),
                            order, argument<const int*>(a, 3), argument<int>(a, 4), argument<double>(a, 5),
                            argument<double*>(a, 6));
  else if (precision == "double")
    in_double::readPositions(argument<const in_double::real4*>(a, 0), order, argument<const int*>(a, 2),
                             argument<int>(a, 3), argument<double>(a, 4), argument<double*>(a, 5));
  else
    in_single::readPositions(argument<const in_single::real4*>(a, 0), order, argument<const int*>(a, 2),
                             argument<int>(a, 3), argument<double>(a, 4), argument<double*>(a, 5));
}

void add_forces(void** a) {
  in_double::addForces(argument<const double*>(a, 0), argument<const int*>(a, 1), argument<const int*>(a, 2),
                       argument<int>(a, 3), argument<int>(a, 4), argument<double>(a, 5),
                       argument<mm_ulong*>(a, 6));
}

const std::map<std::string, void (*)(void**)> kernels = {
    {"clearBuffer", [](void** a) { clear(a, 1); }},
    {"clearTwoBuffers", [](void** a) { clear(a, 2); }},
    {"clearThreeBuffers", [](void** a) { clear(a, 3); }},
    {"clearFourBuffers", [](void** a) { clear(a, 4); }},
    {"clearFiveBuffers", [](void** a) { clear(a, 5); }},
    {"clearSixBuffers", [](void** a) { clear(a, 6); }},
    {"copyFloatBuffer", copy_positions<float, in_single::real4>},
    {"copyDoubleBuffer", copy_positions<double, in_double::real4>},
    {"readPositions", read_positions},
    {"addForces", add_forces},
};

}  // namespace

extern "C" {
int cuInit(unsigned) {
  return 0;
}
int cuDriverGetVersion(int* version) {
  return *version = 13000, 0;
}
int cuGetErrorName(int, const char** name) {
  return *name = "an error of the stand-in", 0;
}
int cuProfilerStop() {
  return 0;
}

int cuDeviceGetCount(int* count) {
  return *count = 1, 0;
}
int cuDeviceGet(int* device, int number) {
  return *device = number, 0;
}
int cuDeviceGetName(char* name, int, int) {
  return std::strcpy(name, "stand-in"), 0;
}
int cuDeviceCanAccessPeer(int* can, int, int) {
  return *can = 0, 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const std::map<int, int> known = {{16, 4}, {75, 9}, {76, 0}};  // multiprocessors, compute capability
  const auto found = known.find(attribute);
  return *value = found == known.end() ? 1024 : found->second, 0;
}

int cuCtxCreate_v2(void** context, unsigned, int) {
  return contexts.push_back(*context = std::malloc(1)), 0;
}
int cuCtxDestroy_v2(void*) {
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  return contexts.push_back(context), 0;
}
int cuCtxPopCurrent_v2(void** context) {
  void* const last = current("cuCtxPopCurrent");
  if (context) *context = last;
  return contexts.pop_back(), 0;
}
int cuCtxSetCurrent(void* context) {
  if (!contexts.empty()) contexts.pop_back();
  return contexts.push_back(context), 0;
}
int cuCtxEnablePeerAccess(void*, unsigned) {
  return 0;
}
int cuCtxSetCacheConfig(int) {
  return 0;
}
int cuCtxSynchronize() {
  return current("cuCtxSynchronize"), 0;
}

int cuMemAlloc_v2(Address* memory, std::size_t bytes) {
  *memory = reinterpret_cast<Address>(std::calloc(1, bytes));  // which OpenMM's kernels do not write here
  context_of[*memory] = current("cuMemAlloc");
  return 0;
}
int cuMemFree_v2(Address memory) {
  if (context_of.at(memory) != current("cuMemFree")) std::abort();
  context_of.erase(memory);
  return std::free(reinterpret_cast<void*>(memory)), 0;
}
int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  return *memory = std::calloc(1, bytes), 0;
}
int cuMemFreeHost(void* memory) {
  return std::free(memory), 0;
}
int cuMemHostGetDevicePointer_v2(void** device, void* memory, unsigned) {
  return *device = memory, 0;
}
int cuMemcpyAsync(void* to, void* from, std::size_t bytes, void*) {
  return copy(to, from, bytes);
}
int cuMemcpyDtoDAsync_v2(void* to, void* from, std::size_t bytes, void*) {
  return copy(to, from, bytes);
}
int cuMemcpyDtoHAsync_v2(void* to, void* from, std::size_t bytes, void*) {
  return copy(to, from, bytes);
}
int cuMemcpyDtoH_v2(void* to, void* from, std::size_t bytes) {
  return copy(to, from, bytes);
}
int cuMemcpyHtoDAsync_v2(void* to, const void* from, std::size_t bytes, void*) {
  return copy(to, from, bytes);
}
int cuMemcpyHtoD_v2(void* to, const void* from, std::size_t bytes) {
  return copy(to, from, bytes);
}

int cuEventCreate(void** event, unsigned) {
  return *event = std::malloc(1), 0;
}
int cuEventDestroy_v2(void* event) {
  return std::free(event), 0;
}
int cuEventRecord(void*, void*) {
  return 0;
}
int cuEventSynchronize(void*) {
  return 0;
}
int cuStreamCreate(void** stream, unsigned) {
  return current("cuStreamCreate"), *stream = std::malloc(1), 0;
}
int cuStreamDestroy_v2(void* stream) {
  return std::free(stream), 0;
}
int cuStreamSynchronize(void*) {
  return 0;
}
int cuStreamWaitEvent(void*, void*, unsigned) {
  return 0;
}

int cuModuleLoad(void** module, const char*) {
  return *module = current("cuModuleLoad"), 0;
}
int cuModuleLoadDataEx(void** module, const void*, unsigned, void*, void*) {
  return *module = current("cuModuleLoadDataEx"), 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  return *function = new std::string(name), 0;
}
int cuFuncGetAttribute(int* value, int, void*) {
  return *value = 1024, 0;
}
int cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void*, void** arguments, void**) {
  current("cuLaunchKernel");
  const std::string& name = *static_cast<std::string*>(function);
  ++launches[name];
  const auto kernel = kernels.find(name);
  if (kernel != kernels.end()) kernel->second(arguments);
  return 0;
}
}
