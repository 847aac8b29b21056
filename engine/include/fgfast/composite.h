// Crop and mask compositing in one pass over the image.
#pragma once

#include <cstdint>

#include "fgfast/device.h"

namespace fgfast {

// An image and its mask, both row-major and without gaps between rows.
struct MaskedImage {
  const uint8_t* pixels;  // height x width x 3
  const uint8_t* bits;    // height x width; anything but 0 is subject
  int64_t height;
  int64_t width;
};

// The part of the plane that is written; it may reach outside the image, or lie there altogether.
struct Window {
  int64_t x0;  // pixels of the image; may be negative
  int64_t y0;
  int64_t height;
  int64_t width;
};

// Writes window.height x window.width x 3 bytes: the image where the mask is set, else the background. `background`
// is one row of window.width x 3 bytes; row y starts at background + y * background_stride, so that a stride of 0
// repeats one row (a colour). All arrays on the same device.
void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               const Place& place, uint8_t* out);

// Writes window.height x window.width x 4 bytes: RGB and 255 where the mask is set, else four zeros.
void CompositeAlpha(const MaskedImage& image, const Window& window, const Place& place, uint8_t* out);

namespace cpu {
void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               uint8_t* out);
void CompositeAlpha(const MaskedImage& image, const Window& window, uint8_t* out);
}  // namespace cpu
namespace cuda {
void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               const Place& place, uint8_t* out);
void CompositeAlpha(const MaskedImage& image, const Window& window, const Place& place, uint8_t* out);
}  // namespace cuda

}  // namespace fgfast
