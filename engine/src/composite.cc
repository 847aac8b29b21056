#include "fgfast/composite.h"

namespace fgfast {

void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               const Place& place, uint8_t* out) {
  if (window.height == 0 || window.width == 0) return;
  if (!place.cuda) return cpu::Composite(image, window, background, background_stride, out);
#ifdef FGFAST_CUDA
  cuda::Composite(image, window, background, background_stride, place, out);
#else
  RefuseCuda();
#endif
}

void CompositeAlpha(const MaskedImage& image, const Window& window, const Place& place, uint8_t* out) {
  if (window.height == 0 || window.width == 0) return;
  if (!place.cuda) return cpu::CompositeAlpha(image, window, out);
#ifdef FGFAST_CUDA
  cuda::CompositeAlpha(image, window, place, out);
#else
  RefuseCuda();
#endif
}

}  // namespace fgfast
