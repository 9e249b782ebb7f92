#pragma once
// For formulas that kernels for GPUs use as well.
#ifdef __CUDACC__
#define NEARSIGHT_HOST_DEVICE __host__ __device__
#else
#define NEARSIGHT_HOST_DEVICE
#endif
