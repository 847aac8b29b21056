#include "fgfast/attention.h"
#include "fgfast/attention_products.h"

#ifdef FGFAST_BF16_COMPILES

#include <cpuid.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fgfast/bf16.h"
#include "fgfast/threads.h"

// Flash attention: scores of 32 queries and some keys lie in the L1 cache, where the biases of the relative positions
// are added to them and weights are made of them. Logits are in base 2, so that exp is cheap.
namespace fgfast {
namespace {

using bf16::kLog2E;
using bf16::kNever;
using bf16::Line;
using bf16::Nearest;
using bf16::PackColumns;
using bf16::PackPairs;
using bf16::RoughExp2;
using bf16::Rounded;
using bf16::Up;

constexpr float kSlack = 16.0f;  // sums are rescaled when a score exceeds the largest so far by 2 to the power of this
constexpr int64_t kBlocks = 16;  // blocks of keys at once: their scores are 32 KiB, as many as fit beside the weights

// What follows from the sizes. A row of keys is padded to whole blocks of kLane; blocks to an even number.
struct Plan {
  explicit Plan(const Bfloat16Attention& a)
      : depth(Up(a.size, kTileDepth) * kTileDepth),
        row(Up(a.side, kLane)),
        blocks(Up(a.side * row, 2) * 2),
        offsets(Up(2 * a.side - 1, kLane)),
        gain(kLog2E / std::sqrt(static_cast<float>(a.size))) {}
  int64_t depth;    // a head's dimensions, padded with zeros
  int64_t row;      // blocks in a row of keys
  int64_t blocks;   // in all rows
  int64_t offsets;  // blocks in a table of relative positions
  float gain;       // of products, to logits in base 2
};

// The memory of one thread.
struct Scratch {
  Scratch(const Plan& p, int64_t size)
      : k(p.blocks * kLane * p.depth / 2),
        v(p.blocks * kLane * size / 2),
        q(kQueries * p.depth),
        weights(kQueries * kBlocks * kLane),
        scores(kQueries * kBlocks * kLane),
        by_y(kQueries * p.offsets * kLane),
        by_x(kQueries * p.offsets * kLane),
        bias_x(kQueries * p.row * kLane),
        out(kQueries * size),
        top(kQueries),
        total(kQueries),
        bias_y(kQueries) {}
  Line<Word> k;                      // block by block: depth / 2 x kLane
  Line<Word> v;                      // 32 keys by 32 keys, 16 dimensions by 16 dimensions: 16 pairs of keys x kLane
  Line<Bfloat16> q;                  // kQueries x depth
  Line<Bfloat16> weights;            // kQueries x (kBlocks blocks)
  Line<float> scores;                // the same
  Line<float> by_y;                  // kQueries x offsets: the query with every row of the table
  Line<float> by_x;                  // the same
  Line<float> bias_x;                // kQueries x row: those of the query's column
  Line<float> out;                   // kQueries x size
  Line<float> top;                   // kQueries: the largest score, more or less (kSlack)
  Line<float> total;                 // kQueries: the sum of weights
  std::vector<const float*> bias_y;  // kQueries: into by_y, those of the query's row
  int64_t packed = -1;               // which keys and values k and v hold
};

// sums (R x V vectors) += R rows of `pairs` pairs, `stride` numbers apart, times V columns of words, `next` words
// apart.
template <int R, int V>
FGFAST_BF16_INLINE void Multiply(const Bfloat16* rows, int64_t stride, const Word* columns, int64_t next, int64_t pairs,
                                 __m512 (&sums)[R][V]) {
  for (int64_t d = 0; d < pairs; ++d) {
    __m512bh factors[V];
    for (int n = 0; n < V; ++n) factors[n] = (__m512bh)_mm512_load_si512(columns + n * next + d * kLane);
    for (int m = 0; m < R; ++m) {
      int pair;
      std::memcpy(&pair, rows + m * stride + 2 * d, sizeof pair);
      const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
      for (int n = 0; n < V; ++n) sums[m][n] = _mm512_dpbf16_ps(sums[m][n], factor, factors[n]);
    }
  }
}

// Rows of a product by vectors: with two vectors each, 16 sums, 2 factors and 1 other of 32 registers.
constexpr int kRows = 8;

template <int V>
FGFAST_BF16 void ScoreBlocks(const Bfloat16* q, int64_t pairs, const Word* columns, float* scores, int64_t stride) {
  for (int64_t m = 0; m < kQueries; m += kRows) {
    __m512 sums[kRows][V];
    for (auto& row : sums) {
      for (auto& sum : row) sum = _mm512_setzero_ps();
    }
    Multiply<kRows, V>(q + m * 2 * pairs, 2 * pairs, columns, pairs * kLane, pairs, sums);
    for (int r = 0; r < kRows; ++r) {
      for (int n = 0; n < V; ++n) _mm512_store_ps(scores + (m + r) * stride + n * kLane, sums[r][n]);
    }
  }
}

FGFAST_BF16 void Score(const Bfloat16* q, int64_t depth, const Word* columns, int64_t blocks, float* scores,
                       int64_t stride) {
  const int64_t pairs = depth / 2;
  int64_t n = 0;
  for (; n + 2 <= blocks; n += 2) ScoreBlocks<2>(q, pairs, columns + n * pairs * kLane, scores + n * kLane, stride);
  if (n < blocks) ScoreBlocks<1>(q, pairs, columns + n * pairs * kLane, scores + n * kLane, stride);
}

template <int V>
FGFAST_BF16 void MixBlocks(const Bfloat16* weights, int64_t stride, const Word* values, int64_t groups, int64_t group,
                           float* sums, int64_t size) {
  for (int64_t m = 0; m < kQueries; m += kRows) {
    __m512 found[kRows][V];
    for (int r = 0; r < kRows; ++r) {
      for (int n = 0; n < V; ++n) found[r][n] = _mm512_load_ps(sums + (m + r) * size + n * kLane);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const Bfloat16* const rows = weights + m * stride + g * kTileDepth;
      Multiply<kRows, V>(rows, stride, values + g * group, kTileWords, kPairs, found);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int n = 0; n < V; ++n) _mm512_store_ps(sums + (m + r) * size + n * kLane, found[r][n]);
    }
  }
}

FGFAST_BF16 void Mix(const Bfloat16* weights, int64_t stride, const Word* values, int64_t groups, float* sums,
                     int64_t size) {
  const int64_t group = size / kLane * kTileWords;
  int64_t d = 0;
  for (; d + 2 * kLane <= size; d += 2 * kLane) {
    MixBlocks<2>(weights, stride, values + d / kLane * kTileWords, groups, group, sums + d, size);
  }
  if (d < size) MixBlocks<1>(weights, stride, values + d / kLane * kTileWords, groups, group, sums + d, size);
}

void Nothing() {}

// The system must have turned AVX-512 on; of bfloat16 the processor says that it has it (CPUID 7.1, EAX).
bool VectorsHere() {
  constexpr unsigned kBf16 = 1u << 5;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kBf16) != 0;
}

constexpr AttentionProducts kVectorProducts{"AVX-512 BF16", Nothing, Nothing, Score, Mix};

}  // namespace

const AttentionProducts* Bfloat16Products() {
  static const AttentionProducts* const products = []() -> const AttentionProducts* {
    if (!VectorsHere()) return nullptr;
    const char* const asked = std::getenv("FGFAST_ATTENTION");
    const bool tiles = asked == nullptr || std::string(asked) != "avx512";
    return tiles && TileProducts() ? TileProducts() : &kVectorProducts;
  }();
  return products;
}

namespace {

// A table of relative positions as columns, last offset first.
void PackTable(const float* table, int64_t side, int64_t size, const Plan& plan, Word* out) {
  std::vector<Bfloat16> rounded(static_cast<size_t>((2 * side - 1) * size));
  std::transform(table, table + (2 * side - 1) * size, rounded.begin(), Nearest);
  for (int64_t c = 0; c < plan.offsets; ++c) {
    const Bfloat16* rows[kLane];
    for (int64_t n = 0; n < kLane; ++n) {
      const int64_t offset = 2 * side - 2 - (c * kLane + n);
      rows[n] = offset < 0 ? nullptr : rounded.data() + offset * size;
    }
    PackColumns(rows, size, out + c * kLane * plan.depth / 2);
  }
}

// The keys and values of one head in one window.
void PackKeys(const Bfloat16Attention& a, const Plan& plan, int64_t image, const int64_t* token_at, int64_t head,
              Scratch& s) {
  const auto find = [&](const Bfloat16* tokens, const Bfloat16* padding, int64_t token) {
    const int64_t line = (image * a.tokens + token) * a.heads + head;
    return token == a.tokens ? padding + head * a.size : tokens + line * a.size;
  };
  for (int64_t c = 0; c < a.side * plan.row; ++c) {
    const int64_t y = c / plan.row, x = c % plan.row * kLane;
    const Bfloat16 *keys[kLane], *values[kLane];
    for (int64_t n = 0; n < kLane; ++n) {
      const bool exists = x + n < a.side;
      const int64_t token = exists ? token_at[y * a.side + x + n] : 0;
      keys[n] = exists ? find(a.k, a.padding_k, token) : nullptr;
      values[n] = exists ? find(a.v, a.padding_v, token) : nullptr;
    }
    PackColumns(keys, a.size, s.k + c * kLane * plan.depth / 2);
    PackPairs(values, a.size, s.v + c / 2 * a.size / kLane * kTileWords + c % 2 * (kTileWords / 2));
  }
}

// What is known of a query, once a score has exceeded the largest so far by kSlack.
FGFAST_BF16 void Rescale(float more, int64_t query, int64_t size, Scratch& s) {
  const float factor = std::exp2(-more);
  s.top[query] += more;
  s.total[query] *= factor;
  for (int64_t d = 0; d < size; d += kLane) {
    float* const out = s.out + query * size + d;
    _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), _mm512_set1_ps(factor)));
  }
}

// The logits of a query for two blocks of keys, less its `top`.
struct Two {
  __m512 first, second;
};

FGFAST_BF16_INLINE Two Logits(const float* scores, const float* bias_x, const float* bias_y, int64_t block,
                              const Plan& plan, int64_t side, __m512 top) {
  __m512 made[2];
  for (int n = 0; n < 2; ++n) {
    const int64_t y = (block + n) / plan.row, x = (block + n) % plan.row;
    const float by_y = y < side ? bias_y[y] * kLog2E : kNever;
    const __m512 bias = _mm512_add_ps(_mm512_sub_ps(_mm512_set1_ps(by_y), top), _mm512_load_ps(bias_x + x * kLane));
    made[n] = _mm512_fmadd_ps(_mm512_load_ps(scores + n * kLane), _mm512_set1_ps(plan.gain), bias);
  }
  return {made[0], made[1]};
}

// Weights of a query for `count` blocks of keys from block `first` on, rounded; their sum is that before rounding.
FGFAST_BF16 void Weigh(int64_t query, int64_t first, int64_t count, const Plan& plan, const Bfloat16Attention& a,
                       Scratch& s) {
  const float* const scores = s.scores + query * kBlocks * kLane;
  const float* const bias_x = s.bias_x + query * plan.row * kLane;
  const float* const bias_y = s.bias_y[query];
  Bfloat16* const weights = s.weights + query * kBlocks * kLane;
  if (first == 0) {
    __m512 largest = _mm512_set1_ps(kNever);
    for (int64_t n = 0; n < count; n += 2) {
      const Two two = Logits(scores + n * kLane, bias_x, bias_y, n, plan, a.side, _mm512_setzero_ps());
      largest = _mm512_max_ps(largest, _mm512_max_ps(two.first, two.second));
    }
    s.top[query] = _mm512_reduce_max_ps(largest);
  }
  // Once more after a rescaling; only scores of 2^24 and more, which float32 does not know to 1, would need a third
  // time.
  for (bool again = false;; again = true) {
    const __m512 top = _mm512_set1_ps(s.top[query]);
    __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, largest = _mm512_set1_ps(kNever);
    for (int64_t n = 0; n < count; n += 2) {
      const Two two = Logits(scores + n * kLane, bias_x, bias_y, first + n, plan, a.side, top);
      largest = _mm512_max_ps(largest, _mm512_max_ps(two.first, two.second));
      const __m512 one = RoughExp2(two.first), other = RoughExp2(two.second);
      total[0] = _mm512_add_ps(total[0], one);
      total[1] = _mm512_add_ps(total[1], other);
      _mm512_store_si512(weights + n * kLane, Rounded(one, other));
    }
    if (again || _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kSlack), _CMP_GT_OQ) == 0) {
      s.total[query] += _mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1]));
      return;
    }
    Rescale(_mm512_reduce_max_ps(largest), query, a.size, s);
  }
}

// The biases of kQueries queries at `places`.
void Bias(const int64_t* places, int64_t side, const Plan& plan, const AttentionProducts& products, const Word* table_h,
          const Word* table_w, Scratch& s) {
  const int64_t length = plan.offsets * kLane;
  products.score(s.q, plan.depth, table_h, plan.offsets, s.by_y, length);
  products.score(s.q, plan.depth, table_w, plan.offsets, s.by_x, length);
  for (int64_t m = 0; m < kQueries; ++m) {
    const int64_t y = places[m] / side, x = places[m] % side;
    s.bias_y[m] = s.by_y + m * length + side - 1 - y;
    const float* const from = s.by_x + m * length + side - 1 - x;
    float* const to = s.bias_x + m * plan.row * kLane;
    for (int64_t n = 0; n < side; ++n) to[n] = from[n] * kLog2E;
    std::fill(to + side, to + plan.row * kLane, kNever);
  }
}

// Attention of at most kQueries queries, at `queries` of a window whose keys are packed.
FGFAST_BF16 void AttendTile(const Bfloat16Attention& a, const Plan& plan, const AttentionProducts& products,
                            const Word* table_h, const Word* table_w, int64_t first_line, const int64_t* token_at,
                            const int64_t* queries, int64_t count, Scratch& s, Bfloat16* out) {
  int64_t places[kQueries];  // the last one is computed again where there are fewer
  for (int64_t m = 0; m < kQueries; ++m) {
    places[m] = queries[std::min(m, count - 1)];
    const Bfloat16* const q = a.q + (first_line + token_at[places[m]] * a.heads) * a.size;
    std::copy_n(q, a.size, s.q + m * plan.depth);
  }
  Bias(places, a.side, plan, products, table_h, table_w, s);
  std::fill_n(static_cast<float*>(s.total), kQueries, 0.0f);
  std::fill_n(static_cast<float*>(s.out), kQueries * a.size, 0.0f);
  for (int64_t c = 0; c < plan.blocks; c += kBlocks) {
    const int64_t blocks = std::min(kBlocks, plan.blocks - c);
    products.score(s.q, plan.depth, s.k + c * kLane * plan.depth / 2, blocks, s.scores, kBlocks * kLane);
    for (int64_t m = 0; m < count; ++m) Weigh(m, c, blocks, plan, a, s);
    const Word* const values = s.v + c / 2 * a.size / kLane * kTileWords;
    products.mix(s.weights, kBlocks * kLane, values, blocks / 2, s.out, a.size);
  }
  for (int64_t m = 0; m < count; ++m) {
    const __m512 share = _mm512_set1_ps(1 / s.total[m]);
    Bfloat16* const line = out + (first_line + token_at[places[m]] * a.heads) * a.size;
    for (int64_t d = 0; d < a.size; d += kLane) {
      const __m512 values = _mm512_mul_ps(_mm512_load_ps(s.out + m * a.size + d), share);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + d), (__m256i)_mm512_cvtneps_pbh(values));
    }
  }
}

}  // namespace

const char* Bfloat16AttendsBy() { return Bfloat16Products() ? Bfloat16Products()->name : ""; }

void Attend(const Bfloat16Attention& a, int threads, Bfloat16* out) {
  if (a.batch * a.windows * a.heads == 0) return;
  const AttentionProducts& products = *Bfloat16Products();
  const Plan plan(a);
  const int64_t places = a.side * a.side, groups = a.batch * a.windows * a.heads;
  const Line<Word> table_h(plan.offsets * kLane * plan.depth / 2), table_w(plan.offsets * kLane * plan.depth / 2);
  PackTable(a.rel_pos_h, a.side, a.size, plan, table_h);
  PackTable(a.rel_pos_w, a.side, a.size, plan, table_w);
  std::vector<std::vector<int64_t>> queries(a.windows);
  for (int64_t w = 0; w < a.windows; ++w) {
    for (int64_t n = 0; n < places; ++n) {
      if (a.token_at[w * places + n] < a.tokens) queries[w].push_back(n);
    }
  }
  // Heads are shared out; where there are few of them, in parts, so that the threads end together.
  threads = ThreadsFor(groups * Up(places, kQueries), threads);
  const int64_t parts = Up(int64_t{8} * threads, groups);
  std::vector<Scratch> scratch;  // all memory before the threads
  for (int n = 0; n < threads; ++n) scratch.emplace_back(plan, a.size);
  ForEachTask(groups * parts, threads, [&](int64_t task, int thread) {
    Scratch& own = scratch[thread];
    const int64_t group = task / parts, part = task % parts, head = group % a.heads;
    const int64_t window = group / a.heads % a.windows, image = group / a.heads / a.windows;
    const int64_t* token_at = a.token_at + window * places;
    const int64_t count = static_cast<int64_t>(queries[window].size());
    const int64_t last = count * (part + 1) / parts;
    if (own.packed != group) PackKeys(a, plan, image, token_at, head, own);
    own.packed = group;
    products.begin();
    for (int64_t m = count * part / parts; m < last; m += kQueries) {
      AttendTile(a, plan, products, table_h, table_w, image * a.tokens * a.heads + head, token_at,
                 queries[window].data() + m, std::min(kQueries, last - m), own, out);
    }
    products.end();
  });
}

}  // namespace fgfast

#else

#include <stdexcept>

namespace fgfast {

const char* Bfloat16AttendsBy() { return ""; }

void Attend(const Bfloat16Attention&, int, Bfloat16*) { throw std::logic_error("attention: not for this processor"); }

}  // namespace fgfast

#endif
