// Attention within small windows with a learned bias, as Swin has it, in bfloat16.
#pragma once

#include <cstdint>

#include "fgfast/attention.h"

namespace fgfast {

// Tokens of a window, at most: their scores of a query are four vectors.
constexpr int64_t kMostWindowTokens = 64;

// All arrays are row-major and without gaps.
struct WindowAttention {
  const Bfloat16* qkv;  // windows x tokens x 3 x heads x size: queries, unscaled, keys, values
  const float* bias;    // heads x tokens x tokens: of a query (row) and a key (column), added to its logit
  const float* mask;    // windows x tokens x tokens, added as well; or null
  int64_t windows;
  int64_t tokens;  // at most kMostWindowTokens
  int64_t heads;
  int64_t size;  // a multiple of kAttentionStep
};

// Writes windows x tokens x heads x size: softmax(q.k / sqrt(size) + bias + mask) v. For processors of which
// Bfloat16AttendsBy says that they multiply bfloat16. Weights are rounded to it; all sums are float32.
void Attend(const WindowAttention& attention, int threads, Bfloat16* out);

}  // namespace fgfast
