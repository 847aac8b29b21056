// Bilinear interpolation as PyTorch's CPU kernel rounds it, to the bit: ATen/native/cpu/UpSampleKernel.cpp, the generic
// kernel for contiguous tensors (upsample_generic_Nd_kernel_impl, HelperInterpLinear; align_corners=False, no
// antialiasing), as PyTorch's builds for x86 with AVX2 or AVX-512 compute it. There the compiler fuses a product with
// the sum it goes into, and so must we: `a x + b y` is fma(a, x, b y), and positions are fma(scale, i + 1/2, -1/2).
#pragma once

#include <cmath>
#include <cstdint>

#include "fgfast/device.h"

namespace fgfast {

// The two inputs that make an output along one axis, and their weights.
struct Taps {
  int32_t first;
  int32_t second;
  float first_weight;
  float second_weight;
};

// Of output `index` of `out`, interpolated from `in` inputs.
FGFAST_BOTH inline Taps TapsOf(int64_t index, int64_t in, int64_t out) {
  const int32_t same = static_cast<int32_t>(index);
  if (in == out) return {same, same, 1.0f, 0.0f};
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float position = fmaf(scale, static_cast<float>(index) + 0.5f, -0.5f);
  const float inside = position < 0.0f ? 0.0f : position;
  const int32_t last = static_cast<int32_t>(in) - 1;
  const int32_t below = static_cast<int32_t>(inside);
  const int32_t first = below < last ? below : last;
  const float rest = inside - static_cast<float>(first);
  const float second_weight = rest > 1.0f ? 1.0f : rest;
  return {first, first < last ? first + 1 : last, 1.0f - second_weight, second_weight};
}

}  // namespace fgfast
