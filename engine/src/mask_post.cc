#include "fgfast/mask_post.h"

#include <limits>
#include <stdexcept>
#include <string>

namespace fgfast {
namespace {

void CheckSize(const char* name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return;
  throw std::invalid_argument("mask_post: " + std::string(name) + " must be 1 to " + std::to_string(most) + ", not " +
                              std::to_string(value));
}

}  // namespace

void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, const Place& place, int threads,
              uint8_t* bits, int64_t* facts) {
  // Positions are float32, which knows whole numbers up to here.
  constexpr int64_t kMost = int64_t{1} << 24;
  CheckSize("side of the logits", sizes.low, kMost);
  CheckSize("side", sizes.side, kMost);
  CheckSize("height of the resized image", sizes.resized_height, sizes.side);
  CheckSize("width of the resized image", sizes.resized_width, sizes.side);
  CheckSize("height", sizes.height, kMost);
  CheckSize("width", sizes.width, kMost);
  CheckSize("threads", threads, std::numeric_limits<int>::max());
  if (count == 0) return;
  if (!place.cuda) return cpu::MaskPost(logits, count, sizes, threads, bits, facts);
#ifdef FGFAST_CUDA
  cuda::MaskPost(logits, count, sizes, place, bits, facts);
#else
  RefuseCuda();
#endif
}

}  // namespace fgfast
