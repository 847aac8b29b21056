#include "fgfast/mask_post_loops.h"

#include "fgfast/cpu.h"
#include "fgfast/mask_post.h"

#ifdef FGFAST_HAS_LEVELS
#include <immintrin.h>
// GCC 12 takes the undefined operand of its own intrinsics for a mistake (GCC bug 105593).
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace fgfast::cpu {
namespace {

FGFAST_INLINE float Mix(float first, float first_weight, float second, float second_weight) {
  return fmaf(first, first_weight, second * second_weight);
}

FGFAST_INLINE void GatherPixels(const float* logits, const Pixels& pixels, int64_t count, float* __restrict out) {
  const int32_t *first = pixels.first.data(), *second = pixels.second.data();
  const float *first_weight = pixels.first_weight.data(), *second_weight = pixels.second_weight.data();
  for (int64_t x = 0; x < count; ++x) {
    out[x] = Mix(logits[first[x]], first_weight[x], logits[second[x]], second_weight[x]);
  }
}

FGFAST_INLINE void Gather(const float* logits, const Columns& columns, float* near, float* far) {
  GatherPixels(logits, columns.near, columns.padded, near);
  GatherPixels(logits, columns.far, columns.padded, far);
}

FGFAST_INLINE void Square(Pair near, Pair far, const Taps& taps, const Columns& columns, float* __restrict out) {
  const float *near_weight = columns.near_weight.data(), *far_weight = columns.far_weight.data();
  const float first = taps.first_weight, second = taps.second_weight;
  for (int64_t x = 0; x < columns.padded; ++x) {
    const float n = Mix(near.first[x], first, near.second[x], second);
    const float f = Mix(far.first[x], first, far.second[x], second);
    out[x] = Mix(n, near_weight[x], f, far_weight[x]);
  }
}

FGFAST_INLINE Counts Finish(Pair square, const Taps& taps, int64_t width, uint8_t* __restrict bits) {
  int32_t area = 0, surely = 0, perhaps = 0;
  for (int64_t x = 0; x < width; ++x) {
    const float logit = Mix(square.first[x], taps.first_weight, square.second[x], taps.second_weight);
    bits[x] = logit > 0.0f;
    area += logit > 0.0f;
    surely += logit > kStabilityOffset;
    perhaps += logit > -kStabilityOffset;
  }
  return {area, surely, perhaps};
}

void GatherPlain(const float* logits, const Columns& columns, float* near, float* far) {
  Gather(logits, columns, near, far);
}

void SquarePlain(Pair near, Pair far, const Taps& taps, const Columns& columns, float* out) {
  Square(near, far, taps, columns, out);
}

Counts FinishPlain(Pair square, const Taps& taps, int64_t width, uint8_t* bits) {
  return Finish(square, taps, width, bits);
}

#ifdef FGFAST_HAS_LEVELS

FGFAST_AVX2_LOOPS void GatherAvx2(const float* logits, const Columns& columns, float* near, float* far) {
  Gather(logits, columns, near, far);
}

FGFAST_AVX2_LOOPS void SquareAvx2(Pair near, Pair far, const Taps& taps, const Columns& columns, float* out) {
  Square(near, far, taps, columns, out);
}

FGFAST_AVX2_LOOPS Counts FinishAvx2(Pair square, const Taps& taps, int64_t width, uint8_t* bits) {
  return Finish(square, taps, width, bits);
}

FGFAST_AVX512_LOOPS void SquareAvx512(Pair near, Pair far, const Taps& taps, const Columns& columns, float* out) {
  Square(near, far, taps, columns, out);
}

// A vector of pixels picked from a table of 32 logits.
FGFAST_AVX512_LOOPS inline __m512 Pick(__m512 low, __m512 high, __m512i base, const Pixels& pixels, int64_t x) {
  const __m512i first = _mm512_sub_epi32(_mm512_loadu_si512(pixels.first.data() + x), base);
  const __m512i second = _mm512_sub_epi32(_mm512_loadu_si512(pixels.second.data() + x), base);
  const __m512 b =
      _mm512_mul_ps(_mm512_permutex2var_ps(low, second, high), _mm512_loadu_ps(pixels.second_weight.data() + x));
  return _mm512_fmadd_ps(_mm512_permutex2var_ps(low, first, high), _mm512_loadu_ps(pixels.first_weight.data() + x), b);
}

FGFAST_AVX512_LOOPS void GatherAvx512(const float* logits, const Columns& columns, float* near, float* far) {
  if (!columns.close) return Gather(logits, columns, near, far);
  for (int64_t x = 0; x < columns.padded; x += kLane) {
    const int64_t from = columns.base[x / kLane];
    const __m512i base = _mm512_set1_epi32(static_cast<int32_t>(from));
    const __m512 low = _mm512_loadu_ps(logits + from), high = _mm512_loadu_ps(logits + from + kLane);
    _mm512_storeu_ps(near + x, Pick(low, high, base, columns.near, x));
    _mm512_storeu_ps(far + x, Pick(low, high, base, columns.far, x));
  }
}

FGFAST_AVX512_LOOPS Counts FinishAvx512(Pair square, const Taps& taps, int64_t width, uint8_t* bits) {
  const __m512 first_weight = _mm512_set1_ps(taps.first_weight), second_weight = _mm512_set1_ps(taps.second_weight);
  const __m512 offset = _mm512_set1_ps(kStabilityOffset);
  Counts counts;
  for (int64_t x = 0; x < width; x += kLane) {
    const __mmask16 there = width - x < kLane ? (1u << (width - x)) - 1 : 0xffff;
    const __m512 second = _mm512_mul_ps(_mm512_loadu_ps(square.second + x), second_weight);
    const __m512 logit = _mm512_fmadd_ps(_mm512_loadu_ps(square.first + x), first_weight, second);
    const __mmask16 set = _mm512_mask_cmp_ps_mask(there, logit, _mm512_setzero_ps(), _CMP_GT_OQ);
    counts.area += __builtin_popcount(set);
    counts.surely += __builtin_popcount(_mm512_mask_cmp_ps_mask(there, logit, offset, _CMP_GT_OQ));
    counts.perhaps += __builtin_popcount(
        _mm512_mask_cmp_ps_mask(there, logit, _mm512_sub_ps(_mm512_setzero_ps(), offset), _CMP_GT_OQ));
    _mm_mask_storeu_epi8(bits + x, there, _mm_maskz_set1_epi8(set, 1));
  }
  return counts;
}

#endif

}  // namespace

Loops LoopsHere() {
#ifdef FGFAST_HAS_LEVELS
  if (HasAvx512()) return {GatherAvx512, SquareAvx512, FinishAvx512};
  if (HasAvx2()) return {GatherAvx2, SquareAvx2, FinishAvx2};
#endif
  return {GatherPlain, SquarePlain, FinishPlain};
}

}  // namespace fgfast::cpu
