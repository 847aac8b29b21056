#include <thread>

#include "fgfast/cuda.h"

namespace fgfast::cuda {
namespace {

// Compiled for the same architectures as all kernels (CMakeLists.txt), so that it stands for them.
__global__ void Nothing() {}

// CUDA loads a kernel's code when its attributes are asked for. Nothing is launched.
cudaError_t LoadOn(int device) {
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) return status;
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, Nothing);
}

}  // namespace

std::string Refusal(int device) {
  cudaError_t status = cudaSuccess;
  // The current device and the last error are a thread's own (CUDA runtime API, cudaSetDevice and cudaGetLastError). So
  // the caller's stay as they are, and no context is created on the device that it had, as setting it back would.
  std::thread([&] {
    status = LoadOn(device);
    (void)cudaGetLastError();
  }).join();
  return status == cudaSuccess ? "" : TextOf(status);
}

}  // namespace fgfast::cuda
