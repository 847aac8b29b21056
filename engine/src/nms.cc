#include "fgfast/nms.h"

#include <stdexcept>
#include <string>

namespace fgfast {

void Suppress(const Nms& nms, const Place& place, uint64_t* workspace, int64_t* kept, int64_t* kept_count) {
  if (nms.limit < 0) throw std::invalid_argument("nms: limit must be at least 0, not " + std::to_string(nms.limit));
  if (!place.cuda) {
    *kept_count = cpu::Suppress(nms, kept);
    return;
  }
#ifdef FGFAST_CUDA
  if (nms.count > kMostCudaBoxes) {
    throw std::invalid_argument("nms: at most " + std::to_string(kMostCudaBoxes) + " boxes on a GPU, not " +
                                std::to_string(nms.count));
  }
  cuda::Suppress(nms, place, workspace, kept, kept_count);
#else
  (void)workspace;
  RefuseCuda();
#endif
}

}  // namespace fgfast
