// Products and exponentials on vectors of 16 floats, for ops that have a loop of their own for AVX-512.
//
// The module is compiled for any processor; what is marked FGFAST_AVX512 may only be called where AVX-512 is.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <new>

// GCC 12 takes the undefined operand of its own intrinsics for a mistake (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define FGFAST_AVX512 __attribute__((target("avx512f")))
#define FGFAST_AVX512_INLINE __attribute__((target("avx512f"), always_inline)) inline

namespace fgfast::avx512 {

constexpr int kStep = 16;  // floats in a vector
constexpr int kRows = 6;   // rows of a product: with four vectors each, 24 sums, 4 factors and 1 other of 32 registers
constexpr int kWide = 4;   // vectors in such a row, at most

// Floats on a cache line of their own.
class Floats {
 public:
  explicit Floats(int64_t count)
      : data_(static_cast<float*>(::operator new(sizeof(float) * static_cast<size_t>(count), kLine))) {}
  ~Floats() { ::operator delete(data_, kLine); }
  Floats(const Floats&) = delete;
  Floats(Floats&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Floats& operator=(const Floats&) = delete;
  operator float*() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  float* data_;
};

// sums += a . b, kRows x V vectors; a is kRows x depth, b is depth x V vectors, with the strides given in floats.
template <int V>
FGFAST_AVX512_INLINE void Multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
                                   __m512 (&sums)[kRows][V]) {
  for (int64_t d = 0; d < depth; ++d, b += b_stride) {
    __m512 factors[V];
    for (int n = 0; n < V; ++n) factors[n] = _mm512_loadu_ps(b + n * kStep);
    for (int m = 0; m < kRows; ++m) {
      const __m512 factor = _mm512_set1_ps(a[m * a_stride + d]);
      for (int n = 0; n < V; ++n) sums[m][n] = _mm512_fmadd_ps(factor, factors[n], sums[m][n]);
    }
  }
}

// 2 to the power of x, x at most 127: a polynomial on -1/2..1/2 whose relative error, 2e-9, is well below rounding's.
FGFAST_AVX512_INLINE __m512 Exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(x, whole);
  constexpr float kTerms[] = {
      1.53458118e-4f, 1.33999314e-3f, 9.61848896e-3f, 5.55032878e-2f, 2.40226469e-1f, 6.93147206e-1f, 1.0f};
  __m512 sum = _mm512_set1_ps(kTerms[0]);
  for (int n = 1; n < 7; ++n) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(kTerms[n]));
  return _mm512_scalef_ps(sum, whole);
}

// Rows of `size` floats to columns of a matrix: 16 rows become one vector in each of `size` lines.
FGFAST_AVX512 inline void Transpose(const float* const (&rows)[kStep], int64_t size, float gain, float* out,
                                    int64_t stride) {
  alignas(64) float square[kStep * kStep];
  const __m512i lanes = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                           _mm512_set1_epi32(kStep));
  for (int64_t d = 0; d < size; d += kStep) {
    for (int n = 0; n < kStep; ++n) {
      const __m512 part = rows[n] ? _mm512_loadu_ps(rows[n] + d) : _mm512_setzero_ps();
      _mm512_store_ps(square + n * kStep, _mm512_mul_ps(part, _mm512_set1_ps(gain)));
    }
    for (int n = 0; n < kStep; ++n) {
      _mm512_store_ps(out + (d + n) * stride, _mm512_i32gather_ps(lanes, square + n, sizeof(float)));
    }
  }
}

}  // namespace fgfast::avx512
