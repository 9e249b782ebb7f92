// A stand-in for CUDA's runtime, of which one function fails: STAND_IN=cudaMalloc:2 in the environment. Only
// what csrc/cuda/runtime.cu calls, for the sentences that it says.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <string>

#define CUDART_VERSION 13000

using cudaError_t = int;
using cudaStream_t = void*;
using cudaEvent_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35,
                      cudaErrorNoDevice = 100;
constexpr int cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaMemcpyHostToDevice = 1,
              cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3,
              cudaFuncAttributeMaxDynamicSharedMemorySize = 8;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
};

inline cudaError_t result_of(const std::string& function) {
  const char* const given = std::getenv("STAND_IN");
  const std::string fails = given ? given : "";
  return fails.rfind(function + ":", 0) == 0 ? std::stoi(fails.substr(function.size() + 1)) : cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t) {
  return "an illegal memory access was encountered";
}
inline cudaError_t cudaGetLastError() {
  return result_of("cudaGetLastError");
}

/// Two GPUs and a driver of CUDA 12.4.
inline cudaError_t cudaGetDeviceCount(int* count) {
  return *count = 2, result_of("cudaGetDeviceCount");
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  const char* const given = std::getenv("STAND_IN_DRIVER");
  return *version = given ? std::atoi(given) : 12040, result_of("cudaDriverGetVersion");
}
inline cudaError_t cudaSetDevice(int) {
  return result_of("cudaSetDevice");
}
inline cudaError_t cudaGetDevice(int* device) {
  return *device = 0, cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int) {
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return *free = std::size_t(3) << 29, *total = std::size_t(80) << 30, cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, int) {
  return *stream = nullptr, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return result_of("cudaStreamSynchronize");
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, int) {
  return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t*) {
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, int) {
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t) {
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t) {
  return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t) {
  return *memory = nullptr, result_of("cudaMalloc");
}
inline cudaError_t cudaMallocHost(void** memory, std::size_t) {
  return *memory = nullptr, result_of("cudaMallocHost");
}
inline cudaError_t cudaFree(void*) {
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void*) {
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, int, cudaStream_t) {
  return result_of("cudaMemcpyAsync");
}
inline cudaError_t cudaMemset(void*, int, std::size_t) {
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void*, int, std::size_t, cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, int, int) {
  return result_of("cudaFuncSetAttribute");
}
