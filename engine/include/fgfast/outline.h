// How strong the edges of an image are under the outline of a mask, among those nearby.
//
// All in whole numbers but for one root, which every processor rounds alike: the NumPy reference has the same bits.
#pragma once

#include <cstdint>

namespace fgfast {

// Pixels whose squared edges a float32 holds exactly: at most 3 channels x 2 directions x (4 x 255)^2, below 2^23.
constexpr int64_t kMostOutlineSide = int64_t{1} << 14;
constexpr int64_t kMostOutlinePixels = int64_t{1} << 20;

struct Outline {
  const uint8_t* lab;      // height x width x 3: the smoothed image
  const uint8_t* bits;     // height x width, anything but 0 is subject
  const uint8_t* outline;  // height x width, anything but 0 is asked for; only within the subject
  int64_t height;
  int64_t width;
};

// For every pixel of the outline, row by row: how many pixels near the subject have a weaker edge, and how many have
// none stronger. Returns how many pixels are near; -1, with nothing said, where the outline leaves the subject.
int64_t OutlineEdges(const Outline& outline, int64_t* weaker, int64_t* upto);

}  // namespace fgfast
