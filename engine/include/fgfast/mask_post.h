// SAM's low-resolution logits to masks of the stored image's size, and what is asked about each mask.
#pragma once

#include <cstdint>

#include "fgfast/device.h"

namespace fgfast {

// Two bilinear steps (bilinear.h): from low x low to side x side, of which the resized image is the upper left part,
// and from that to height x width. All in pixels, all 1 to kMostLogits.
struct MaskSizes {
  int64_t low;
  int64_t side;
  int64_t resized_height;
  int64_t resized_width;
  int64_t height;
  int64_t width;
};

// The longest of them: positions are float32, which knows whole numbers up to here.
constexpr int64_t kMostLogits = int64_t{1} << 24;

// Numbers a mask, in this order: the tight box x0 y0 x1 y1 (all 0 where the mask is empty), the pixels above 0, above
// +kStabilityOffset and above -kStabilityOffset.
constexpr int64_t kMaskFacts = 7;
// segment-anything, automatic_mask_generator.py: stability_score_offset, in logits.
constexpr float kStabilityOffset = 1.0f;

// `logits` is count x low x low; writes `bits`, count x height x width, 1 where the logit at full size is above 0, and
// `facts`, count x kMaskFacts. All three on the same device. `threads` is for the CPU.
void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, const Place& place, int threads,
              uint8_t* bits, int64_t* facts);

namespace cpu {
void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, int threads, uint8_t* bits, int64_t* facts);
}
namespace cuda {
void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, const Place& place, uint8_t* bits,
              int64_t* facts);
}

}  // namespace fgfast
