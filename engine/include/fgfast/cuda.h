// What the CUDA implementations of the ops share. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "fgfast/device.h"

namespace fgfast::cuda {

inline void Check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status));
}

// Makes a device the current one of this thread, and at its end the one that was.
class Current {
 public:
  explicit Current(int device) {
    Check(cudaGetDevice(&before_), "CUDA's current device");
    Check(cudaSetDevice(device), "CUDA's current device");
  }
  ~Current() { (void)cudaSetDevice(before_); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

inline cudaStream_t StreamOf(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

inline unsigned int Blocks(int64_t count, int64_t size) { return static_cast<unsigned int>((count + size - 1) / size); }

}  // namespace fgfast::cuda
