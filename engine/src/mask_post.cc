#include "fgfast/mask_post.h"

namespace fgfast {

void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, const Place& place, int threads,
              uint8_t* bits, int64_t* facts) {
  if (count == 0) return;
  if (!place.cuda) return cpu::MaskPost(logits, count, sizes, threads, bits, facts);
#ifdef FGFAST_CUDA
  cuda::MaskPost(logits, count, sizes, place, bits, facts);
#else
  RefuseCuda();
#endif
}

}  // namespace fgfast
