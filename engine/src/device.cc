#include "fgfast/device.h"

#include <stdexcept>

namespace fgfast {

bool HasCuda() {
#ifdef FGFAST_CUDA
  return true;
#else
  return false;
#endif
}

std::string CudaRefusal(int device) {
#ifdef FGFAST_CUDA
  return cuda::Refusal(device);
#else
  (void)device;
  return "fgfast._native was built without CUDA";
#endif
}

void RefuseCuda() {
  throw std::invalid_argument(
      "the arrays are on a GPU, but fgfast._native was built without CUDA: "
      "bring them to the CPU, or reinstall with "
      "--config-settings=cmake.define.FGFAST_CUDA=ON");
}

}  // namespace fgfast
