#include "fgfast/nms.h"

#include <stdexcept>
#include <string>

namespace fgfast {
namespace {

// On a GPU, the kernels do it.
void CheckOrder(const Nms& nms) {
  for (int64_t n = 0; n < nms.count; ++n) {
    if (nms.order[n] >= 0 && nms.order[n] < nms.count) continue;
    throw std::invalid_argument("order must be 0 to " + std::to_string(nms.count - 1) + ", not " +
                                std::to_string(nms.order[n]) + " at " + std::to_string(n));
  }
}

}  // namespace

void Suppress(const Nms& nms, const Place& place, uint64_t* workspace, int64_t* kept, int64_t* kept_count) {
  if (!place.cuda) {
    CheckOrder(nms);
    *kept_count = cpu::Suppress(nms, kept);
    return;
  }
#ifdef FGFAST_CUDA
  if (nms.count > kMostCudaBoxes) {
    throw std::invalid_argument("boxes must be at most " + std::to_string(kMostCudaBoxes) + " on a GPU, not " +
                                std::to_string(nms.count));
  }
  cuda::Suppress(nms, place, workspace, kept, kept_count);
#else
  (void)workspace;
  RefuseCuda();
#endif
}

}  // namespace fgfast
