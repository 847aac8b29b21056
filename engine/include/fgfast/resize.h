// Pillow's bilinear resizing of RGB images, to the bit: it enlarges, and averages when it shrinks.
//
// Along the rows and down the columns, each time rounded to bytes; weights have 22 bits behind the point
// (python-pillow/Pillow, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc,
// ImagingResampleHorizontal_8bpc, ImagingResampleVertical_8bpc).
#pragma once

#include <cstdint>

namespace fgfast {

struct Resize {
  const uint8_t* pixels;  // height x width x 3, without gaps
  int64_t height;
  int64_t width;
  uint8_t* out;  // out_height rows of out_width x 3 bytes
  int64_t out_height;
  int64_t out_width;
  int64_t out_stride;  // bytes from row to row
  bool down_first;     // down the columns before along the rows, which rounds otherwise
};

// All sizes at least 1 and at most kMostResized.
constexpr int64_t kMostResized = int64_t{1} << 20;
void ResizeBilinear(const Resize& resize, int threads);

}  // namespace fgfast
