#include "fgfast/area.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "fgfast/cpu.h"

// First down the columns, a row of sums for each row of the result, then along that row. Lengths are in units of which
// a pixel of the image has `out` and one of the result `in`, so that overlaps are whole numbers.
namespace fgfast {
namespace {

// One axis, its two lengths divided by what both are multiples of: less to multiply, and sums are smaller.
struct Axis {
  Axis(int64_t inputs, int64_t outputs)
      : in(inputs / std::gcd(inputs, outputs)), out(outputs / std::gcd(inputs, outputs)) {
    spans.reserve(outputs);
    for (int64_t n = 0; n < outputs; ++n) {
      const int64_t first = n * in / out, last = ((n + 1) * in - 1) / out;
      spans.push_back({first, last, Overlap(n, first), first == last ? 0 : Overlap(n, last)});
    }
  }
  // How much of result `n` comes from input `i`; over all inputs, `in`.
  int64_t Overlap(int64_t n, int64_t i) const {
    return std::min((i + 1) * out, (n + 1) * in) - std::max(i * out, n * in);
  }
  // The inputs of a result, and how much it has of the outer ones; of those between, `out`.
  struct Span {
    int64_t first, last, of_first, of_last;
  };
  int64_t in, out;
  std::vector<Span> spans;
};

// Adds a row to the sums. At most 255 x 2^20 in all: what one result's overlaps sum up to.
template <bool kMask>
FGFAST_INLINE void AddRow(const uint8_t* __restrict row, uint32_t weight, int64_t length, uint32_t* __restrict sums) {
  for (int64_t n = 0; n < length; ++n) sums[n] += weight * (kMask ? (row[n] ? 255U : 0U) : row[n]);
}

// sum / area, rounded, a half upwards. sum x 2 + area is below 2^50, which doubles hold exactly; their quotient is
// wrong by one at most.
FGFAST_INLINE uint8_t Round(int64_t sum, int64_t area, double inverse) {
  const int64_t twice = 2 * sum + area, whole = 2 * area;
  int64_t quotient = static_cast<int64_t>(static_cast<double>(twice) * inverse);
  const int64_t rest = twice - quotient * whole;
  quotient += (rest >= whole) - (rest < 0);
  return static_cast<uint8_t>(quotient);
}

using AddFunction = void (*)(const uint8_t*, uint32_t, int64_t, uint32_t*);

template <bool kMask>
void AddPlain(const uint8_t* row, uint32_t weight, int64_t length, uint32_t* sums) {
  AddRow<kMask>(row, weight, length, sums);
}

#ifdef FGFAST_HAS_LEVELS

template <bool kMask>
FGFAST_AVX2_LOOPS void AddAvx2(const uint8_t* row, uint32_t weight, int64_t length, uint32_t* sums) {
  AddRow<kMask>(row, weight, length, sums);
}

template <bool kMask>
AddFunction AddHere() {
  return HasAvx2() ? AddAvx2<kMask> : AddPlain<kMask>;
}
#else
template <bool kMask>
AddFunction AddHere() {
  return AddPlain<kMask>;
}
#endif

// One row of the result from the sums down the columns.
template <int kChannels>
void Along(const uint32_t* sums, const Axis& across, int64_t area, uint8_t* out) {
  const double inverse = 1.0 / static_cast<double>(2 * area);
  for (const Axis::Span& span : across.spans) {
    const uint32_t *first = sums + span.first * kChannels, *last = sums + span.last * kChannels;
    int64_t total[kChannels] = {};
    for (const uint32_t* sum = first + kChannels; sum < last; sum += kChannels) {
      for (int c = 0; c < kChannels; ++c) total[c] += sum[c];
    }
    for (int c = 0; c < kChannels; ++c) {
      *out++ = Round(total[c] * across.out + first[c] * span.of_first + last[c] * span.of_last, area, inverse);
    }
  }
}

}  // namespace

void AreaAverage(const Area& area, bool mask) {
  const Axis across(area.width, area.out_width), down(area.height, area.out_height);
  const int64_t length = area.width * area.channels, whole = across.in * down.in;
  const AddFunction add = mask ? AddHere<true>() : AddHere<false>();
  const auto along = area.channels == 1 ? Along<1> : Along<3>;
  std::vector<uint32_t> sums(length);
  uint8_t* out = area.out;
  for (const Axis::Span& span : down.spans) {
    std::fill(sums.begin(), sums.end(), 0U);
    for (int64_t y = span.first; y <= span.last; ++y) {
      const int64_t weight = y == span.first ? span.of_first : y == span.last ? span.of_last : down.out;
      add(area.pixels + y * length, static_cast<uint32_t>(weight), length, sums.data());
    }
    along(sums.data(), across, whole, out);
    out += area.out_width * area.channels;
  }
}

}  // namespace fgfast
