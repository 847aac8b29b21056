// Prints, for each number of a CUDA error, what an op throws for it, and what CudaRefusal says where loading the ops'
// code ends with it: two lines each. The error must not be left to the caller.
#include <cstdio>
#include <cstdlib>

#include "fgfast/cuda.h"

int main(int count, char** numbers) {
  for (int n = 1; n < count; ++n) {
    const cudaError_t error = static_cast<cudaError_t>(std::atoi(numbers[n]));
    try {
      fgfast::cuda::Check(error, "nms on the GPU");
      std::puts("");
    } catch (const std::exception& thrown) {
      std::puts(thrown.what());
    }
    host::loading = error;
    std::puts(fgfast::CudaRefusal(0).c_str());
    if (cudaGetLastError() != cudaSuccess) return 1;
  }
}
