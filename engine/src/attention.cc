#include "fgfast/attention.h"

#if defined(__x86_64__) && defined(__GNUC__) && defined(_OPENMP)

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fgfast/avx512.h"
#include "fgfast/threads.h"

// Flash attention on vectors of 16 floats: scores exist for six queries and 64 keys at a time, in registers, where the
// biases of the relative positions are added to them. They are in base 2, so that exp is cheap.
namespace fgfast {
namespace {

using avx512::Floats;
using avx512::kRows;
using avx512::kStep;
using avx512::kWide;
using avx512::Multiply;

static_assert(kStep == kAttentionStep);
constexpr int kTile = 16 * kRows;  // queries that share a block of keys while it is in the L1 cache
constexpr float kNever = -1e30f;   // the score of a place that does not exist; finite, because inf - inf is not
constexpr float kSlack = 16.0f;  // sums are rescaled when a score exceeds the largest so far by 2 to the power of this

int64_t Up(int64_t count, int64_t step) { return (count + step - 1) / step; }

// What follows from the sizes.
struct Plan {
  explicit Plan(const Attention& a)
      : row(Up(a.side, kStep)), keys(a.side * row), offsets(Up(2 * a.side - 1, kStep)), size(a.size) {}
  int64_t row;      // vectors in a row of keys; the last one may be partly empty
  int64_t keys;     // vectors in all rows
  int64_t offsets;  // vectors in a table of relative positions
  int64_t size;     // floats in a head
};

// The memory of one thread.
struct Scratch {
  explicit Scratch(const Plan& p)
      : k(p.keys * kStep * p.size),
        v(p.keys * kStep * p.size),
        q(kTile * p.size),
        by_y(kTile * p.offsets * kStep),
        by_x(kTile * p.offsets * kStep),
        bias_x(kTile * p.row * kStep),
        weights(kRows * kWide * kStep),
        top(kTile),
        total(kTile * kStep),
        out(kTile * p.size),
        bias_y(kTile) {}
  Floats k;                          // blocks of kWide vectors of keys: size x (width of the block)
  Floats v;                          // key by key
  Floats q;                          // kTile x size, scaled
  Floats by_y;                       // kTile x offsets: the query with every row of the table
  Floats by_x;                       // the same
  Floats bias_x;                     // kTile x row: those of the query's column
  Floats weights;                    // kRows x (width of the block)
  Floats top;                        // kTile: the largest score, more or less (kSlack)
  Floats total;                      // kTile x kStep: sums of weights, by lane
  Floats out;                        // kTile x size
  std::vector<const float*> bias_y;  // kTile: into by_y, those of the query's row
  int64_t packed = -1;               // which keys and values k and v hold
};

// A table of relative positions as matrix of size x offsets in blocks of kWide vectors, last offset first.
FGFAST_AVX512 void PackTable(const float* table, int64_t side, const Plan& plan, float* out) {
  const float gain = std::sqrt(static_cast<float>(plan.size));  // the query has been divided by it
  for (int64_t c = 0; c < plan.offsets; ++c) {
    const float* rows[kStep];
    for (int n = 0; n < kStep; ++n) {
      const int64_t offset = 2 * side - 2 - (c * kStep + n);
      rows[n] = offset < 0 ? nullptr : table + offset * plan.size;
    }
    const int64_t block = c / kWide * kWide;
    const int64_t width = std::min<int64_t>(kWide, plan.offsets - block);
    avx512::Transpose(rows, plan.size, gain, out + block * kStep * plan.size + (c - block) * kStep, width * kStep);
  }
}

// The keys and values of one head in one window.
FGFAST_AVX512 void PackKeys(const Attention& a, const Plan& plan, int64_t image, const int64_t* token_at, int64_t head,
                            Scratch& s) {
  const auto find = [&](const float* tokens, const float* padding, int64_t token) {
    const int64_t line = (image * a.tokens + token) * a.heads + head;
    return token == a.tokens ? padding + head * a.size : tokens + line * a.size;
  };
  for (int64_t c = 0; c < plan.keys; ++c) {
    const int64_t y = c / plan.row, x = c % plan.row * kStep;
    const float* rows[kStep];
    for (int n = 0; n < kStep; ++n) {
      float* value = s.v + (c * kStep + n) * a.size;
      const bool exists = x + n < a.side;
      const int64_t token = exists ? token_at[y * a.side + x + n] : 0;
      rows[n] = exists ? find(a.k, a.padding_k, token) : nullptr;
      if (exists) std::memcpy(value, find(a.v, a.padding_v, token), sizeof(float) * a.size);
      if (!exists) std::memset(value, 0, sizeof(float) * a.size);
    }
    const int64_t block = c / kWide * kWide;
    const int64_t width = std::min<int64_t>(kWide, plan.keys - block);
    avx512::Transpose(rows, a.size, 1.0f, s.k + block * kStep * a.size + (c - block) * kStep, width * kStep);
  }
}

template <int V>
FGFAST_AVX512 void MultiplyTable(const float* q, const float* table, int64_t size, float* out, int64_t stride) {
  __m512 sums[kRows][V];
  for (auto& row : sums) {
    for (auto& sum : row) sum = _mm512_setzero_ps();
  }
  Multiply<V>(q, size, table, V * kStep, size, sums);
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < V; ++n) _mm512_store_ps(out + m * stride + n * kStep, sums[m][n]);
  }
}

// What is known of the queries at the moment, once a block's scores have exceeded the largest so far by kSlack.
FGFAST_AVX512 void Rescale(__m512 largest, int64_t query, int64_t size, Scratch& s) {
  const float top = std::max(s.top[query], _mm512_reduce_max_ps(largest));
  const __m512 factor = _mm512_set1_ps(std::exp2(s.top[query] - top));
  s.top[query] = top;
  float* total = s.total + query * kStep;
  _mm512_store_ps(total, _mm512_mul_ps(_mm512_load_ps(total), factor));
  for (int64_t d = 0; d < size; d += kStep) {
    float* out = s.out + query * size + d;
    _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), factor));
  }
}

// Weights of kRows queries for the V vectors of keys from vector c on.
template <int V>
FGFAST_AVX512 void Weigh(int64_t query, int64_t c, const Plan& plan, Scratch& s) {
  __m512 sums[kRows][V];
  for (auto& row : sums) {
    for (auto& sum : row) sum = _mm512_setzero_ps();
  }
  Multiply<V>(s.q + query * plan.size, plan.size, s.k + c * kStep * plan.size, V * kStep, plan.size, sums);
  for (int m = 0; m < kRows; ++m) {
    // Added last: the sums would lose the bits of products much smaller than the biases.
    const float* bias_x = s.bias_x + (query + m) * plan.row * kStep;
    for (int n = 0; n < V; ++n) {
      const int64_t y = (c + n) / plan.row, x = (c + n) % plan.row;
      const __m512 bias = _mm512_add_ps(_mm512_load_ps(bias_x + x * kStep), _mm512_set1_ps(s.bias_y[query + m][y]));
      sums[m][n] = _mm512_add_ps(sums[m][n], bias);
    }
    __m512 largest = sums[m][0];
    for (int n = 1; n < V; ++n) largest = _mm512_max_ps(largest, sums[m][n]);
    const __m512 limit = _mm512_set1_ps(s.top[query + m] + kSlack);
    if (_mm512_cmp_ps_mask(largest, limit, _CMP_GT_OQ)) Rescale(largest, query + m, plan.size, s);
    const __m512 top = _mm512_set1_ps(s.top[query + m]);
    __m512 total = _mm512_load_ps(s.total + (query + m) * kStep);
    for (int n = 0; n < V; ++n) {
      const __m512 weight = avx512::Exp2(_mm512_sub_ps(sums[m][n], top));
      total = _mm512_add_ps(total, weight);
      _mm512_store_ps(s.weights + m * V * kStep + n * kStep, weight);
    }
    _mm512_store_ps(s.total + (query + m) * kStep, total);
  }
}

// Adds `depth` weighted values to V vectors of kRows results.
template <int V>
FGFAST_AVX512 void Mix(const float* weights, const float* values, int64_t depth, int64_t size, float* out) {
  __m512 sums[kRows][V];
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < V; ++n) sums[m][n] = _mm512_load_ps(out + m * size + n * kStep);
  }
  Multiply<V>(weights, depth, values, size, depth, sums);
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < V; ++n) _mm512_store_ps(out + m * size + n * kStep, sums[m][n]);
  }
}

// Calls the function made for `width` vectors, 1 to kWide.
#define FGFAST_FOR_WIDTH(width, function, ...) \
  switch (width) {                             \
    case 1:                                    \
      function<1>(__VA_ARGS__);                \
      break;                                   \
    case 2:                                    \
      function<2>(__VA_ARGS__);                \
      break;                                   \
    case 3:                                    \
      function<3>(__VA_ARGS__);                \
      break;                                   \
    default:                                   \
      function<4>(__VA_ARGS__);                \
  }

// Both biases of kRows queries at `places`.
FGFAST_AVX512 void Bias(const int64_t* places, int64_t query, int64_t side, const Plan& plan, const float* table_h,
                        const float* table_w, Scratch& s) {
  const int64_t length = plan.offsets * kStep;
  for (int64_t c = 0; c < plan.offsets; c += kWide) {
    const int64_t width = std::min<int64_t>(kWide, plan.offsets - c);
    const int64_t from = c * kStep * plan.size, to = query * length + c * kStep;
    const float* q = s.q + query * plan.size;
    FGFAST_FOR_WIDTH(width, MultiplyTable, q, table_h + from, plan.size, s.by_y + to, length);
    FGFAST_FOR_WIDTH(width, MultiplyTable, q, table_w + from, plan.size, s.by_x + to, length);
  }
  for (int64_t m = query; m < query + kRows; ++m) {
    const int64_t y = places[m] / side, x = places[m] % side;
    float* bias_x = s.bias_x + m * plan.row * kStep;
    s.bias_y[m] = s.by_y + m * length + side - 1 - y;
    std::copy_n(s.by_x + m * length + side - 1 - x, side, bias_x);
    std::fill(bias_x + side, bias_x + plan.row * kStep, kNever);
  }
}

// Attention of at most kTile queries, at `places` of a window whose keys are packed.
FGFAST_AVX512 void AttendTile(const Attention& a, const Plan& plan, const float* const (&tables)[2], int64_t first_line,
                              const int64_t* token_at, const int64_t* queries, int64_t count, Scratch& s, float* out) {
  // The last few queries are done twice where count is no multiple of kRows.
  int64_t places[kTile];
  const int64_t padded = Up(count, kRows) * kRows;
  const float gain = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(a.size)));
  for (int64_t m = 0; m < padded; ++m) {
    places[m] = queries[std::min(m, count - 1)];
    const float* q = a.q + (first_line + token_at[places[m]] * a.heads) * a.size;
    for (int64_t d = 0; d < a.size; ++d) s.q[m * a.size + d] = q[d] * gain;
  }
  std::fill_n(static_cast<float*>(s.top), padded, kNever);
  std::fill_n(static_cast<float*>(s.total), padded * kStep, 0.0f);
  std::fill_n(static_cast<float*>(s.out), padded * a.size, 0.0f);
  for (int64_t m = 0; m < padded; m += kRows) Bias(places, m, a.side, plan, tables[0], tables[1], s);
  for (int64_t c = 0; c < plan.keys; c += kWide) {
    const int64_t width = std::min<int64_t>(kWide, plan.keys - c);
    for (int64_t m = 0; m < padded; m += kRows) {
      FGFAST_FOR_WIDTH(width, Weigh, m, c, plan, s);
      for (int64_t d = 0; d < a.size; d += kWide * kStep) {
        const int64_t part = std::min<int64_t>(kWide, (a.size - d) / kStep);
        const float* values = s.v + c * kStep * a.size + d;
        FGFAST_FOR_WIDTH(part, Mix, s.weights, values, width * kStep, a.size, s.out + m * a.size + d);
      }
    }
  }
  for (int64_t m = 0; m < count; ++m) {
    const float share = 1 / _mm512_reduce_add_ps(_mm512_load_ps(s.total + m * kStep));
    float* line = out + (first_line + token_at[places[m]] * a.heads) * a.size;
    for (int64_t d = 0; d < a.size; ++d) line[d] = s.out[m * a.size + d] * share;
  }
}

}  // namespace

bool AttendsHere() { return __builtin_cpu_supports("avx512f"); }

void Attend(const Attention& a, int threads, float* out) {
  if (a.batch * a.windows * a.heads == 0) return;
  const Plan plan(a);
  const int64_t places = a.side * a.side, groups = a.batch * a.windows * a.heads;
  const Floats table_h(plan.offsets * kStep * a.size), table_w(plan.offsets * kStep * a.size);
  const float* const tables[2] = {table_h, table_w};
  PackTable(a.rel_pos_h, a.side, plan, table_h);
  PackTable(a.rel_pos_w, a.side, plan, table_w);
  std::vector<std::vector<int64_t>> queries(a.windows);
  for (int64_t w = 0; w < a.windows; ++w) {
    for (int64_t n = 0; n < places; ++n) {
      if (a.token_at[w * places + n] < a.tokens) queries[w].push_back(n);
    }
  }
  // Heads are shared out; where there are few of them, in parts, so that the threads end together.
  threads = ThreadsFor(groups * Up(places, kTile), threads);
  const int64_t parts = Up(int64_t{8} * threads, groups);
  std::vector<Scratch> scratch;  // all memory before the threads
  for (int n = 0; n < threads; ++n) scratch.emplace_back(plan);
  ForEachTask(groups * parts, threads, [&](int64_t task, int thread) {
    Scratch& own = scratch[thread];
    const int64_t group = task / parts, part = task % parts, head = group % a.heads;
    const int64_t window = group / a.heads % a.windows, image = group / a.heads / a.windows;
    const int64_t* token_at = a.token_at + window * places;
    const int64_t count = static_cast<int64_t>(queries[window].size());
    const int64_t last = count * (part + 1) / parts;
    if (own.packed != group) PackKeys(a, plan, image, token_at, head, own);
    own.packed = group;
    for (int64_t m = count * part / parts; m < last; m += kTile) {
      AttendTile(a, plan, tables, image * a.tokens * a.heads + head, token_at, queries[window].data() + m,
                 std::min<int64_t>(kTile, last - m), own, out);
    }
  });
}

}  // namespace fgfast

#else

#include <stdexcept>

namespace fgfast {

bool AttendsHere() { return false; }

void Attend(const Attention&, int, float*) { throw std::logic_error("attention: not for this processor"); }

}  // namespace fgfast

#endif
