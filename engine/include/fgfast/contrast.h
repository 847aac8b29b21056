// How well colours tell a subject from what surrounds it: histograms of coarse colours by distance from the outline,
// classifiers fitted on one half of a checkerboard and tried on the other, and colours that leak over the outline.
//
// All in whole numbers until the last division, but for the distances, which are OpenCV's in its fixed point
// (opencv/opencv, imgproc/src/distransform.cpp: distanceTransform_5x5): the NumPy reference has the same bits.
#pragma once

#include <cstdint>

namespace fgfast {

struct Contrast {
  const uint8_t* lab;   // height x width x 3, OpenCV's 8 bits: L times 255 / 100, a and b plus 128
  const uint8_t* bits;  // height x width, anything but 0 is subject
  int64_t height;
  int64_t width;
};

// At most kMostContrastPixels pixels, for which the products of two sums fit 63 bits, and sides up to
// kMostContrastSide, for which distances fit 32.
constexpr int64_t kMostContrastPixels = int64_t{1} << 20;
constexpr int64_t kMostContrastSide = int64_t{1} << 14;
constexpr int kContrastNumbers = 4;

// Fills `out` with "alike colours", "alike surroundings", "colour leaks out", "colour leaks in"; NaN without enough
// pixels.
void ColourContrast(const Contrast& contrast, double* out);

}  // namespace fgfast
