// The innermost loops of mask_post on the CPU, each along one row, for several kinds of processor. Rows of floats have
// whole vectors of kLane floats; what stands behind the image's width is never looked at.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fgfast/bilinear.h"

namespace fgfast::cpu {

constexpr int64_t kLane = 16;          // floats in a vector of AVX-512
constexpr int64_t kTable = 2 * kLane;  // floats that one of its instructions picks from

// One of the two pixels of the square between which a column of the image lies, made from a row of logits.
struct Pixels {
  explicit Pixels(int64_t padded) : first(padded), second(padded), first_weight(padded), second_weight(padded) {}
  std::vector<int32_t> first, second;  // into the row
  std::vector<float> first_weight, second_weight;
};

// What the columns of the image are made from.
struct Columns {
  Columns(int64_t low, int64_t width)
      : low(low),
        padded((width + kLane - 1) / kLane * kLane),
        near(padded),
        far(padded),
        near_weight(padded),
        far_weight(padded),
        base(padded / kLane) {}

  void Set(int64_t x, const Taps& square, const Taps& near_taps, const Taps& far_taps) {
    near_weight[x] = square.first_weight, far_weight[x] = square.second_weight;
    near.first[x] = near_taps.first, near.second[x] = near_taps.second;
    near.first_weight[x] = near_taps.first_weight, near.second_weight[x] = near_taps.second_weight;
    far.first[x] = far_taps.first, far.second[x] = far_taps.second;
    far.first_weight[x] = far_taps.first_weight, far.second_weight[x] = far_taps.second_weight;
    last = x;
  }

  // To be called once all columns are set.
  void Close() {
    for (int64_t x = last + 1; x < padded; ++x) {
      for (Pixels* pixels : {&near, &far}) pixels->first[x] = pixels->second[x] = far.second[last];
    }
    close = low >= kTable;
    for (int64_t v = 0; v < padded / kLane; ++v) {
      base[v] = std::max<int64_t>(0, std::min<int64_t>(near.first[v * kLane], low - kTable));
      close = close && far.second[std::min(last, v * kLane + kLane - 1)] - base[v] < kTable;
    }
  }

  int64_t low, padded, last = 0;
  Pixels near, far;
  std::vector<float> near_weight, far_weight;  // of the second step
  std::vector<int64_t> base;                   // of each vector: where its table begins in a row of logits
  bool close = false;                          // every vector of columns is made from one table
};

// Two rows of floats between which another one lies.
struct Pair {
  const float* first;
  const float* second;
};

// Pixels of a row above 0, above +kStabilityOffset, above -kStabilityOffset.
struct Counts {
  int64_t area = 0, surely = 0, perhaps = 0;
  void Add(const Counts& other) { area += other.area, surely += other.surely, perhaps += other.perhaps; }
};

struct Loops {
  // A row of logits to both pixels at each column.
  void (*gather)(const float* logits, const Columns& columns, float* near, float* far);
  // Both pixels of two such rows to a row of the square at the image's columns.
  void (*square)(Pair near, Pair far, const Taps& taps, const Columns& columns, float* out);
  // Two such rows to a row of the mask.
  Counts (*finish)(Pair square, const Taps& taps, int64_t width, uint8_t* bits);
};

// The fastest ones for this processor; all give the same bits.
Loops LoopsHere();

}  // namespace fgfast::cpu
