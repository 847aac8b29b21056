#include "fgfast/window_attention.h"

#include "fgfast/attention_products.h"

#ifdef FGFAST_BF16_COMPILES

#include <algorithm>
#include <cmath>
#include <vector>

#include "fgfast/bf16.h"
#include "fgfast/threads.h"

// A head of a window at a time: all of it lies in the L1 cache, and a query's scores are four vectors in registers.
namespace fgfast {
namespace {

using bf16::kLog2E;
using bf16::kNever;
using bf16::Line;
using bf16::Up;

constexpr int64_t kKeys = kMostWindowTokens;
constexpr int64_t kVectors = kKeys / kLane;

// The memory of one thread.
struct Scratch {
  Scratch(int64_t depth, int64_t size)
      : k(kKeys * depth / 2),
        v(kKeys * size / 2),
        q(kQueries * depth),
        weights(kQueries * kKeys),
        scores(kQueries * kKeys),
        total(kQueries),
        out(kQueries * size) {}
  Line<Word> k;            // kVectors blocks: depth / 2 x kLane
  Line<Word> v;            // 32 keys by 32 keys, 16 dimensions by 16 dimensions: 16 pairs of keys x kLane
  Line<Bfloat16> q;        // kQueries x depth
  Line<Bfloat16> weights;  // kQueries x kKeys
  Line<float> scores;      // the same
  Line<float> total;       // kQueries
  Line<float> out;         // kQueries x size
};

// The keys and values of a head of a window; `first` is that of its first query.
FGFAST_BF16 void PackKeys(const WindowAttention& a, const Bfloat16* first, int64_t depth, Scratch& s) {
  const int64_t width = a.heads * a.size;
  for (int64_t c = 0; c < kVectors; ++c) {
    const Bfloat16 *keys[kLane], *values[kLane];
    for (int64_t n = 0; n < kLane; ++n) {
      const int64_t token = c * kLane + n;
      keys[n] = token < a.tokens ? first + (3 * token + 1) * width : nullptr;
      values[n] = token < a.tokens ? first + (3 * token + 2) * width : nullptr;
    }
    bf16::PackColumns(keys, a.size, s.k + c * kLane * depth / 2);
    bf16::PackPairs(values, a.size, s.v + c / 2 * a.size / kLane * kTileWords + c % 2 * (kTileWords / 2));
  }
}

// Weights of a query, rounded; their sum is that before rounding. `bias` is padded and in base 2, `mask` neither.
FGFAST_BF16 void Weigh(int64_t query, float gain, const float* bias, const float* mask, int64_t tokens, Scratch& s) {
  __m512 logits[kVectors], largest = _mm512_set1_ps(kNever);
  for (int64_t n = 0; n < kVectors; ++n) {
    __m512 added = _mm512_load_ps(bias + n * kLane);
    if (mask != nullptr) {
      const int64_t left = std::clamp<int64_t>(tokens - n * kLane, 0, kLane);
      const __m512 part = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), mask + n * kLane);
      added = _mm512_fmadd_ps(part, _mm512_set1_ps(kLog2E), added);
    }
    const __m512 score = _mm512_load_ps(s.scores + query * kKeys + n * kLane);
    logits[n] = _mm512_fmadd_ps(score, _mm512_set1_ps(gain), added);
    largest = _mm512_max_ps(largest, logits[n]);
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  __m512 total = _mm512_setzero_ps();
  for (int64_t n = 0; n < kVectors; n += 2) {
    const __m512 one = bf16::RoughExp2(_mm512_sub_ps(logits[n], top));
    const __m512 other = bf16::RoughExp2(_mm512_sub_ps(logits[n + 1], top));
    total = _mm512_add_ps(total, _mm512_add_ps(one, other));
    _mm512_store_si512(s.weights + query * kKeys + n * kLane, bf16::Rounded(one, other));
  }
  s.total[query] = _mm512_reduce_add_ps(total);
}

FGFAST_BF16 void AttendHead(const WindowAttention& a, const AttentionProducts& products, int64_t depth, float gain,
                            int64_t window, int64_t head, const float* bias, Scratch& s, Bfloat16* out) {
  const int64_t width = a.heads * a.size;
  const Bfloat16* const first = a.qkv + window * a.tokens * 3 * width + head * a.size;
  const float* const mask = a.mask == nullptr ? nullptr : a.mask + window * a.tokens * a.tokens;
  PackKeys(a, first, depth, s);
  for (int64_t from = 0; from < a.tokens; from += kQueries) {
    const int64_t count = std::min(kQueries, a.tokens - from);
    for (int64_t m = 0; m < count; ++m) std::copy_n(first + (from + m) * 3 * width, a.size, s.q + m * depth);
    products.score(s.q, depth, s.k, kVectors, s.scores, kKeys);
    for (int64_t m = 0; m < count; ++m) {
      const int64_t query = from + m;
      Weigh(m, gain, bias + query * kKeys, mask ? mask + query * a.tokens : nullptr, a.tokens, s);
    }
    std::fill_n(static_cast<float*>(s.out), kQueries * a.size, 0.0f);
    products.mix(s.weights, kKeys, s.v, kKeys / kTileDepth, s.out, a.size);
    for (int64_t m = 0; m < count; ++m) {
      const __m512 share = _mm512_set1_ps(1 / s.total[m]);
      Bfloat16* const line = out + (window * a.tokens + from + m) * width + head * a.size;
      for (int64_t d = 0; d < a.size; d += kLane) {
        const __m512 values = _mm512_mul_ps(_mm512_load_ps(s.out + m * a.size + d), share);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + d), (__m256i)_mm512_cvtneps_pbh(values));
      }
    }
  }
}

}  // namespace

void Attend(const WindowAttention& a, int threads, Bfloat16* out) {
  if (a.windows * a.heads * a.tokens == 0) return;
  const AttentionProducts& products = *Bfloat16Products();
  const int64_t depth = Up(a.size, kTileDepth) * kTileDepth;
  const float gain = kLog2E / std::sqrt(static_cast<float>(a.size));
  const Line<float> bias(a.heads * a.tokens * kKeys);
  for (int64_t row = 0; row < a.heads * a.tokens; ++row) {
    for (int64_t n = 0; n < kKeys; ++n) {
      bias[row * kKeys + n] = n < a.tokens ? a.bias[row * a.tokens + n] * kLog2E : kNever;
    }
  }
  threads = ThreadsFor(a.windows, threads);
  std::vector<Scratch> scratch;  // all memory before the threads
  for (int n = 0; n < threads; ++n) scratch.emplace_back(depth, a.size);
  ForEachTask(a.windows, threads, [&](int64_t window, int thread) {
    products.begin();
    for (int64_t head = 0; head < a.heads; ++head) {
      AttendHead(a, products, depth, gain, window, head, bias + head * a.tokens * kKeys, scratch[thread], out);
    }
    products.end();
  });
}

}  // namespace fgfast

#else

#include <stdexcept>

namespace fgfast {

void Attend(const WindowAttention&, int, Bfloat16*) { throw std::logic_error("attention: not for this processor"); }

}  // namespace fgfast

#endif
