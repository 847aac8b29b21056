#include "fgfast/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fgfast/cpu.h"
#include "fgfast/threads.h"

#ifdef FGFAST_HAS_LEVELS
#include <immintrin.h>
#endif

// Along the rows first: rows of which that is done lie in a ring as long as the most that an output row is made from;
// each is made once. Down the columns first: an output row is made from the image's own, then resized itself.
namespace fgfast {
namespace {

constexpr int kBits = 22;                   // of a weight, behind the point: PRECISION_BITS
constexpr int kLowBits = 11;                // of a weight in its lower half
constexpr int64_t kSlack = 16;              // bytes behind a row that a vector may touch
constexpr int64_t kBlock = 512;             // bytes of a row summed up together
constexpr int64_t kThreadPixels = 1 << 20;  // a thread's least share

// Which inputs make an output, and with what weights.
struct Filter {
  Filter(int64_t in, int64_t out) : first(out), count(out) {
    const double scale = static_cast<double>(in) / static_cast<double>(out), reach = std::max(scale, 1.0);
    const int64_t room = static_cast<int64_t>(std::ceil(reach)) * 2 + 1;
    std::vector<double> rows(out * room);
    for (int64_t n = 0; n < out; ++n) {
      const double centre = (static_cast<double>(n) + 0.5) * scale;
      first[n] = std::max<int64_t>(static_cast<int64_t>(centre - reach + 0.5), 0);
      count[n] = std::min<int64_t>(static_cast<int64_t>(centre + reach + 0.5), in) - first[n];
      double* row = rows.data() + n * room;
      double sum = 0.0;
      for (int64_t t = 0; t < count[n]; ++t) {
        const double distance = std::abs((static_cast<double>(t + first[n]) - centre + 0.5) * (1.0 / reach));
        row[t] = distance < 1.0 ? 1.0 - distance : 0.0;
        sum += row[t];
      }
      for (int64_t t = 0; t < count[n] && sum != 0.0; ++t) row[t] /= sum;
      most = std::max(most, count[n]);
    }
    pairs = (most + 1) / 2;
    weights.resize(out * pairs * 2);
    for (int64_t n = 0; n < out; ++n) {
      for (int64_t t = 0; t < count[n]; ++t) {
        weights[n * pairs * 2 + t] = static_cast<int32_t>(0.5 + rows[n * room + t] * (1 << kBits));
      }
    }
  }
  const int32_t* WeightsOf(int64_t n) const { return weights.data() + n * pairs * 2; }
  std::vector<int64_t> first, count;
  int64_t most = 0, pairs = 0;
  std::vector<int32_t> weights;  // 2 x pairs an output; 0 where there are fewer
};

FGFAST_INLINE uint8_t Round(int32_t sum) { return static_cast<uint8_t>(std::min(sum >> kBits, 255)); }

// The columns of one row.
using ColumnsFunction = void (*)(const uint8_t* row, const Filter& filter, int64_t width, uint8_t* out);

void ColumnsPlain(const uint8_t* row, const Filter& filter, int64_t width, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x) {
    const uint8_t* pixel = row + 3 * filter.first[x];
    const int32_t* weights = filter.WeightsOf(x);
    int32_t sums[3] = {1 << (kBits - 1), 1 << (kBits - 1), 1 << (kBits - 1)};
    for (int64_t t = 0; t < filter.count[x]; ++t) {
      for (int c = 0; c < 3; ++c) sums[c] += pixel[3 * t + c] * weights[t];
    }
    for (int c = 0; c < 3; ++c) out[3 * x + c] = Round(sums[c]);
  }
}

// One row of the result from the rows it is made of.
FGFAST_INLINE void Rows(const uint8_t* const* rows, const int32_t* weights, int64_t count, int64_t length,
                        uint8_t* __restrict out) {
  for (int64_t from = 0; from < length; from += kBlock) {
    const int64_t size = std::min(kBlock, length - from);
    int32_t sums[kBlock];
    const uint8_t* row = rows[0] + from;
    for (int64_t n = 0; n < size; ++n) sums[n] = (1 << (kBits - 1)) + row[n] * weights[0];
    for (int64_t t = 1; t < count; ++t) {
      row = rows[t] + from;
      for (int64_t n = 0; n < size; ++n) sums[n] += row[n] * weights[t];
    }
    for (int64_t n = 0; n < size; ++n) out[from + n] = Round(sums[n]);
  }
}

using RowsFunction = void (*)(const uint8_t* const*, const int32_t*, int64_t, int64_t, uint8_t*);

void RowsPlain(const uint8_t* const* rows, const int32_t* weights, int64_t count, int64_t length, uint8_t* out) {
  Rows(rows, weights, count, length, out);
}

#ifdef FGFAST_HAS_LEVELS

// Two pixels at a time: their bytes as pairs of 16 bits, times both halves of their weights. Reads and writes up to
// kSlack bytes behind the row.
FGFAST_AVX2_LOOPS void ColumnsAvx2(const uint8_t* row, const Filter& filter, int64_t width, uint8_t* out) {
  const __m128i spread = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const __m128i low_half = _mm_set1_epi32((1 << kLowBits) - 1);
  const int64_t pairs = filter.pairs;
  for (int64_t x = 0; x < width; ++x) {
    const uint8_t* pixel = row + 3 * filter.first[x];
    const int32_t* weights = filter.WeightsOf(x);
    __m128i high = _mm_setzero_si128(), low = _mm_set1_epi32(1 << (kBits - 1));
    const int64_t used = std::min(pairs, (filter.count[x] + 1) / 2);
    for (int64_t t = 0; t < used; ++t) {
      const __m128i bytes = _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixel + 6 * t)), spread);
      const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(weights + 2 * t));
      const __m128i highs = _mm_srli_epi32(both, kLowBits), lows = _mm_and_si128(both, low_half);
      // The weights of the pair in the halves of every 32 bits.
      high = _mm_add_epi32(high, _mm_madd_epi16(bytes, _mm_broadcastd_epi32(_mm_packs_epi32(highs, highs))));
      low = _mm_add_epi32(low, _mm_madd_epi16(bytes, _mm_broadcastd_epi32(_mm_packs_epi32(lows, lows))));
    }
    const __m128i sums = _mm_srai_epi32(_mm_add_epi32(_mm_slli_epi32(high, kLowBits), low), kBits);
    const __m128i words = _mm_packus_epi32(sums, sums);
    const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(out + 3 * x, &four, sizeof four);
  }
}

FGFAST_AVX2_LOOPS void RowsAvx2(const uint8_t* const* rows, const int32_t* weights, int64_t count, int64_t length,
                                uint8_t* out) {
  Rows(rows, weights, count, length, out);
}

FGFAST_AVX512_LOOPS void RowsAvx512(const uint8_t* const* rows, const int32_t* weights, int64_t count, int64_t length,
                                    uint8_t* out) {
  Rows(rows, weights, count, length, out);
}

ColumnsFunction ColumnsHere() { return HasAvx2() ? ColumnsAvx2 : ColumnsPlain; }
RowsFunction RowsHere() { return HasAvx512() ? RowsAvx512 : HasAvx2() ? RowsAvx2 : RowsPlain; }
#else
ColumnsFunction ColumnsHere() { return ColumnsPlain; }
RowsFunction RowsHere() { return RowsPlain; }
#endif

// The memory of one thread.
struct Scratch {
  Scratch(const Resize& r, int64_t most)
      : length(3 * r.out_width + kSlack), ring(most * length), row(3 * r.width + kSlack), rows(most) {}
  int64_t length;
  std::vector<uint8_t> ring;  // rows with their columns done, each at its number modulo `most`
  std::vector<uint8_t> row;   // one of the image's width; the bytes behind it may be written
  std::vector<const uint8_t*> rows;
};

struct Work {
  const Resize& resize;
  const Filter& across;
  const Filter& down;
  ColumnsFunction columns;
  RowsFunction rows;
};

// Output rows y0 to y1.
void Band(const Work& work, int64_t y0, int64_t y1, Scratch& s) {
  const Resize& r = work.resize;
  const int64_t length = 3 * r.width, most = work.down.most;
  int64_t done = work.down.first[y0];  // rows whose columns are done, or not needed
  for (int64_t y = y0; y < y1; ++y) {
    const int64_t first = work.down.first[y], count = work.down.count[y];
    for (; done < first + count; ++done) {
      const uint8_t* row = r.pixels + done * length;
      // What a vector may read behind the row belongs to the next ones, or to nobody.
      if ((r.height - 1 - done) * length < kSlack) row = static_cast<uint8_t*>(std::memcpy(s.row.data(), row, length));
      work.columns(row, work.across, r.out_width, s.ring.data() + done % most * s.length);
    }
    for (int64_t t = 0; t < count; ++t) s.rows[t] = s.ring.data() + (first + t) % most * s.length;
    work.rows(s.rows.data(), work.down.WeightsOf(y), count, 3 * r.out_width, r.out + y * r.out_stride);
  }
}

void BandDownFirst(const Work& work, int64_t y0, int64_t y1, Scratch& s) {
  const Resize& r = work.resize;
  const int64_t length = 3 * r.width;
  for (int64_t y = y0; y < y1; ++y) {
    const int64_t first = work.down.first[y], count = work.down.count[y];
    for (int64_t t = 0; t < count; ++t) s.rows[t] = r.pixels + (first + t) * length;
    work.rows(s.rows.data(), work.down.WeightsOf(y), count, length, s.row.data());
    work.columns(s.row.data(), work.across, r.out_width, s.ring.data());
    std::memcpy(r.out + y * r.out_stride, s.ring.data(), 3 * r.out_width);
  }
}

}  // namespace

void ResizeBilinear(const Resize& resize, int threads) {
  const Filter across(resize.width, resize.out_width), down(resize.height, resize.out_height);
  const Work work{resize, across, down, ColumnsHere(), RowsHere()};
  const int64_t pixels = std::max(resize.height * resize.width, resize.out_height * resize.out_width);
  threads = ThreadsFor(pixels / kThreadPixels, threads);
  const int64_t parts = threads == 1 ? 1 : std::clamp<int64_t>(resize.out_height / 64, 1, 4 * threads);
  std::vector<Scratch> scratch;  // all memory before the threads
  for (int n = 0; n < threads; ++n) scratch.emplace_back(resize, down.most);
  ForEachTask(parts, threads, [&](int64_t part, int thread) {
    (resize.down_first ? BandDownFirst : Band)(work, resize.out_height * part / parts,
                                               resize.out_height * (part + 1) / parts, scratch[thread]);
  });
}

}  // namespace fgfast
