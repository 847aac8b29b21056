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

// sums / area, rounded, a half upwards. Whole numbers of 32 bits: 255 x 2 x area + area is below 2^31. The quotient of
// float32 is wrong by one at most.
FGFAST_INLINE void RoundRow(const uint32_t* __restrict sums, int64_t length, int32_t area, uint8_t* __restrict out) {
  const int32_t whole = 2 * area;
  const float inverse = 1.0F / static_cast<float>(whole);
  for (int64_t n = 0; n < length; ++n) {
    const int32_t twice = 2 * static_cast<int32_t>(sums[n]) + area;
    int32_t quotient = static_cast<int32_t>(static_cast<float>(twice) * inverse);
    const int32_t rest = twice - quotient * whole;
    quotient += (rest >= whole) - (rest < 0);
    out[n] = static_cast<uint8_t>(quotient);
  }
}
constexpr int64_t kMostArea = (int64_t{1} << 31) / 512;

// The same of larger areas. sum x 2 + area is below 2^50, which doubles hold exactly; their quotient is wrong by one at
// most.
FGFAST_INLINE uint8_t Round(int64_t sum, int64_t area, double inverse) {
  const int64_t twice = 2 * sum + area, whole = 2 * area;
  int64_t quotient = static_cast<int64_t>(static_cast<double>(twice) * inverse);
  const int64_t rest = twice - quotient * whole;
  quotient += (rest >= whole) - (rest < 0);
  return static_cast<uint8_t>(quotient);
}

using AddFunction = void (*)(const uint8_t*, uint32_t, int64_t, uint32_t*);
using RoundFunction = void (*)(const uint32_t*, int64_t, int32_t, uint8_t*);

template <bool kMask>
void AddPlain(const uint8_t* row, uint32_t weight, int64_t length, uint32_t* sums) {
  AddRow<kMask>(row, weight, length, sums);
}
void RoundPlain(const uint32_t* sums, int64_t length, int32_t area, uint8_t* out) { RoundRow(sums, length, area, out); }

#ifdef FGFAST_HAS_LEVELS

template <bool kMask>
FGFAST_AVX2_LOOPS void AddAvx2(const uint8_t* row, uint32_t weight, int64_t length, uint32_t* sums) {
  AddRow<kMask>(row, weight, length, sums);
}
FGFAST_AVX2_LOOPS void RoundAvx2(const uint32_t* sums, int64_t length, int32_t area, uint8_t* out) {
  RoundRow(sums, length, area, out);
}

template <bool kMask>
AddFunction AddHere() {
  return HasAvx2() ? AddAvx2<kMask> : AddPlain<kMask>;
}
RoundFunction RoundHere() { return HasAvx2() ? RoundAvx2 : RoundPlain; }
#else
template <bool kMask>
AddFunction AddHere() {
  return AddPlain<kMask>;
}
RoundFunction RoundHere() { return RoundPlain; }
#endif

// The sums of one row of the result from those down the columns, each handed to `store`.
template <int kChannels, class Total, class Store>
FGFAST_INLINE void Along(const uint32_t* sums, const Axis& across, const Store& store) {
  const Total whole = static_cast<Total>(across.out);
  int64_t n = 0;
  for (const Axis::Span& span : across.spans) {
    const uint32_t *first = sums + span.first * kChannels, *last = sums + span.last * kChannels;
    Total total[kChannels] = {};
    for (const uint32_t* sum = first + kChannels; sum < last; sum += kChannels) {
      for (int c = 0; c < kChannels; ++c) total[c] += sum[c];
    }
    const Total of_first = static_cast<Total>(span.of_first), of_last = static_cast<Total>(span.of_last);
    for (int c = 0; c < kChannels; ++c) store(n++, total[c] * whole + first[c] * of_first + last[c] * of_last);
  }
}

// One row of the result.
template <int kChannels>
void Row(const uint32_t* sums, const Axis& across, int64_t area, RoundFunction round, uint32_t* space, uint8_t* out) {
  if (area < kMostArea) {
    Along<kChannels, uint32_t>(sums, across, [=](int64_t n, uint32_t sum) { space[n] = sum; });
    const int64_t length = static_cast<int64_t>(across.spans.size()) * kChannels;
    return round(space, length, static_cast<int32_t>(area), out);
  }
  const double inverse = 1.0 / static_cast<double>(2 * area);
  Along<kChannels, int64_t>(sums, across, [=](int64_t n, int64_t sum) { out[n] = Round(sum, area, inverse); });
}

}  // namespace

void AreaAverage(const Area& area, bool mask) {
  const Axis across(area.width, area.out_width), down(area.height, area.out_height);
  const int64_t length = area.width * area.channels, whole = across.in * down.in;
  const AddFunction add = mask ? AddHere<true>() : AddHere<false>();
  const RoundFunction round = RoundHere();
  const auto row = area.channels == 1 ? Row<1> : Row<3>;
  std::vector<uint32_t> sums(length), space(area.out_width * area.channels);
  uint8_t* out = area.out;
  for (const Axis::Span& span : down.spans) {
    std::fill(sums.begin(), sums.end(), 0U);
    for (int64_t y = span.first; y <= span.last; ++y) {
      const int64_t weight = y == span.first ? span.of_first : y == span.last ? span.of_last : down.out;
      add(area.pixels + y * length, static_cast<uint32_t>(weight), length, sums.data());
    }
    row(sums.data(), across, whole, round, space.data(), out);
    out += area.out_width * area.channels;
  }
}

}  // namespace fgfast
