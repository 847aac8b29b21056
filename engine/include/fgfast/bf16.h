// What the ops in bfloat16 for AVX-512 BF16 share: how operands lie in memory, exp, and rounding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "fgfast/attention_products.h"
#include "fgfast/avx512.h"

#define FGFAST_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define FGFAST_BF16_INLINE __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"), always_inline)) inline

namespace fgfast::bf16 {

constexpr float kNever = -1e30f;  // the score of a place that does not exist; finite, because inf - inf is not
constexpr float kLog2E = 1.44269504f;

inline int64_t Up(int64_t count, int64_t step) { return (count + step - 1) / step; }

// Memory on a cache line of its own, zero.
template <class T>
class Line {
 public:
  explicit Line(int64_t count)
      : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<size_t>(count), kAlign))) {
    std::fill_n(data_, count, T{});
  }
  ~Line() { ::operator delete(data_, kAlign); }
  Line(const Line&) = delete;
  Line(Line&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Line& operator=(const Line&) = delete;
  operator T*() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  T* data_;
};

// Sixteen vectors of words as the rows of a square: its columns.
FGFAST_BF16_INLINE void Transpose(__m512i (&square)[kLane]) {
  __m512i other[kLane];
  for (int n = 0; n < 8; ++n) {
    other[2 * n] = _mm512_unpacklo_epi32(square[2 * n], square[2 * n + 1]);
    other[2 * n + 1] = _mm512_unpackhi_epi32(square[2 * n], square[2 * n + 1]);
  }
  for (int n = 0; n < 4; ++n) {
    for (int half = 0; half < 2; ++half) {
      const __m512i low = other[4 * n + half], high = other[4 * n + 2 + half];
      square[4 * n + 2 * half] = _mm512_unpacklo_epi64(low, high);
      square[4 * n + 2 * half + 1] = _mm512_unpackhi_epi64(low, high);
    }
  }
  // Now vector 4 n + k has, of each quarter q, word 4 q + k of rows 4 n to 4 n + 3.
  for (int k = 0; k < 4; ++k) {
    const __m512i even_low = _mm512_shuffle_i32x4(square[k], square[4 + k], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(square[k], square[4 + k], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(square[8 + k], square[12 + k], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(square[8 + k], square[12 + k], 0xdd);
    other[k] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    other[4 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    other[8 + k] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    other[12 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
  std::copy_n(other, kLane, square);
}

// Rows of `size` bfloat16, a multiple of kLane, to columns: word d of 16 rows becomes line d. No row is zeros.
FGFAST_BF16 inline void PackColumns(const Bfloat16* const (&rows)[kLane], int64_t size, Word* out) {
  const int64_t words = size / 2;
  for (int64_t d = 0; d < words; d += kLane) {
    const auto there = static_cast<__mmask16>((1u << std::min<int64_t>(kLane, words - d)) - 1);
    __m512i square[kLane];
    for (int64_t n = 0; n < kLane; ++n) {
      square[n] = rows[n] ? _mm512_maskz_loadu_epi32(there, rows[n] + 2 * d) : _mm512_setzero_si512();
    }
    Transpose(square);
    for (int64_t n = 0; n < kLane && d + n < words; ++n) _mm512_store_si512(out + (d + n) * kLane, square[n]);
  }
}

// Sixteen bfloat16 of a row from d on, one in the lower half of each word.
FGFAST_BF16_INLINE __m512i Widened(const Bfloat16* row, int64_t d) {
  if (row == nullptr) return _mm512_setzero_si512();
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + d)));
}

// Rows of `size` bfloat16 to pairs: word d of line n is dimension d of rows 2 n and 2 n + 1; 16 dimensions, then lines.
FGFAST_BF16 inline void PackPairs(const Bfloat16* const (&rows)[kLane], int64_t size, Word* out) {
  for (int64_t n = 0; n < kLane; n += 2) {
    for (int64_t d = 0; d < size; d += kLane) {
      const __m512i low = Widened(rows[n], d), high = _mm512_slli_epi32(Widened(rows[n + 1], d), 16);
      _mm512_store_si512(out + d / kLane * kTileWords + n / 2 * kLane, _mm512_or_si512(low, high));
    }
  }
}

// 2 to the power of x, x at most 127; the relative error, 8e-5, is small beside that of bfloat16, 4e-3.
FGFAST_BF16_INLINE __m512 RoughExp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(x, whole);
  __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(0.055171669f), rest, _mm512_set1_ps(0.242611122f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.693260985f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.999928074f));
  return _mm512_scalef_ps(sum, whole);
}

FGFAST_BF16_INLINE __m512i Rounded(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// To the nearest bfloat16, a tie to the even one; of numbers, not of NaN.
inline Bfloat16 Nearest(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<Bfloat16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace fgfast::bf16
