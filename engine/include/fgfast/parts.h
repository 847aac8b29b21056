// The parts of a mask, whose pixels touch at sides or corners, and what they enclose.
#pragma once

#include <cstdint>
#include <vector>

namespace fgfast {

// As many pixels as 32 bits can number.
constexpr int64_t kMostPartsPixels = int64_t{1} << 30;

struct Parts {
  std::vector<int64_t> areas;  // pixels of each, the largest first
  int64_t enclosed = 0;        // pixels of no part that no path by sides leads from to the border
};

// `bits`: height x width, at most kMostPartsPixels, anything but 0 is subject.
Parts PartsOf(const uint8_t* bits, int64_t height, int64_t width);

}  // namespace fgfast
