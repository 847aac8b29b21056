// Shrinking by exact averages over areas, of RGB images and of masks.
//
// A pixel of the result is the average of what it covers, with parts of pixels by their area, rounded to the nearest
// byte, a half upwards. All in whole numbers, so every implementation has the same bytes.
#pragma once

#include <cstdint>

namespace fgfast {

struct Area {
  const uint8_t* pixels;  // height x width x channels, without gaps
  int64_t height;
  int64_t width;
  int64_t channels;  // 1 or 3
  uint8_t* out;      // out_height x out_width x channels
  int64_t out_height;
  int64_t out_width;
};

// Sizes at least 1 and at most kMostAveraged, those of the result not above the image's. Of a mask (`mask`), any byte
// but 0 counts as 255.
constexpr int64_t kMostAveraged = int64_t{1} << 20;
void AreaAverage(const Area& area, bool mask);

}  // namespace fgfast
