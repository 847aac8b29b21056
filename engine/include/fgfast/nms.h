// Non-maximum suppression: greedy, exact, class by class.
#pragma once

#include <cstdint>

#include "fgfast/device.h"

namespace fgfast {

struct Nms {
  const float* boxes;      // count x 4: x0 y0 x1 y1, any unit
  const int64_t* order;    // count: the boxes, best first
  const int64_t* classes;  // count, any numbers; null: all of one class
  int64_t count;
  float threshold;  // a box is suppressed by a kept one of its class with an IoU above this
  int64_t limit;    // most boxes to keep
};

// IoU of two boxes, rounded after each operation as PyTorch does; NaN where both are empty.
FGFAST_BOTH inline float Overlap(const float* a, const float* b) {
  const float area_a = (a[2] - a[0]) * (a[3] - a[1]), area_b = (b[2] - b[0]) * (b[3] - b[1]);
  const float width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
  const float height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
  const float shared = (0.0f > width ? 0.0f : width) * (0.0f > height ? 0.0f : height);
  return shared / (area_a + area_b - shared);
}

// Words of 64 bits in a row of the CUDA implementation's workspace, which has `count` rows: the boxes a box suppresses.
constexpr int64_t NmsWords(int64_t count) { return (count + 63) / 64; }
// The most boxes that the CUDA implementation takes: one bit each, in 48 KiB of a block's memory.
constexpr int64_t kMostCudaBoxes = 48 * 1024 * 8;

// Instead of the number of kept boxes, on a GPU: the order holds something else than 0 to count - 1, nothing was kept.
// On the CPU it is an exception, but what a GPU finds can only be written.
constexpr int64_t kWrongOrder = -1;

// Writes the kept boxes, best first, to `kept`, which has room for min(count, limit), and their number to `kept_count`.
// All arrays, and `kept_count`, on the same device; `workspace` may be null on the CPU.
void Suppress(const Nms& nms, const Place& place, uint64_t* workspace, int64_t* kept, int64_t* kept_count);

// Writes 0 to count - 1 by descending score; of equal scores the smaller number first, NaN before all. On the CPU.
void OrderByScore(const float* scores, int64_t count, int64_t* order);

namespace cpu {
int64_t Suppress(const Nms& nms, int64_t* kept);
}
namespace cuda {
void Suppress(const Nms& nms, const Place& place, uint64_t* workspace, int64_t* kept, int64_t* kept_count);
}

}  // namespace fgfast
