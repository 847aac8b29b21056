// What the CUDA implementations of the ops share. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "fgfast/device.h"

namespace fgfast::cuda {

// Name first: fgfast/backends/cuda_errors.py recognises errors by it.
inline std::string TextOf(cudaError_t status) {
  return std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status);
}

inline void Check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + TextOf(status));
}

// Makes a device the current one of this thread, and at its end the one that was. Nothing is set where it is already:
// from CUDA 12 on, setting a device creates its context.
class Current {
 public:
  explicit Current(int device) {
    Check(cudaGetDevice(&before_), "CUDA's current device");
    if (device == before_) return;
    Check(cudaSetDevice(device), "CUDA's current device");
    changed_ = true;
  }
  ~Current() {
    if (changed_) (void)cudaSetDevice(before_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

inline cudaStream_t StreamOf(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

inline unsigned int Blocks(int64_t count, int64_t size) { return static_cast<unsigned int>((count + size - 1) / size); }

}  // namespace fgfast::cuda
