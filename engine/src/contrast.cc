#include "fgfast/contrast.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "fgfast/cpu.h"

// The constants are those of fgfast/ops/reference_contrast.py, with their reasons.
namespace fgfast {
namespace {

constexpr int kLight = 8, kA = 12, kB = 12, kBins = kLight * kA * kB;
constexpr int kLightStep = 32, kChromaStep = 10, kGrey = 128;  // grey levels
constexpr int64_t kLeast = 20;                                 // pixels of a region
constexpr int64_t kBlock = 24;                                 // pixels of a square
constexpr float kEdge = 1.0F, kOutline = 1.5F, kBand = 5.0F;   // pixels from the outline
constexpr double kRing = 0.12, kDeep = 0.1, kLeastRadius = 4.0;
constexpr int64_t kScale = 5, kPrior = 256;  // 0.1 pixels, where a pixel is 8 x 8 x 8 x kScale
constexpr int64_t kSide = 1, kMiddle = 6;    // smoothing; by 8 on each axis
constexpr int kPlaces = 6;                   // see PlaceOf

using Histogram = std::array<int64_t, kBins>;
using Halves = std::array<Histogram, 2>;  // of the white and the black squares

// Distances in OpenCV's fixed point.
constexpr int kShift = 16;
constexpr uint32_t kStraight = 65536, kDiagonal = 91750, kKnight = 143976;  // 1, 1.4 and 2.1969 times 2^16
constexpr uint32_t kFar = uint32_t{1} << 31;                                // above any distance here
constexpr int64_t kMargin = 2;                                              // columns and rows around the map, all kFar

// The least of a row's pixels through the two rows beyond it, 0 where the pixel is none of the region.
FGFAST_INLINE void Through(const uint32_t* __restrict next, const uint32_t* __restrict far,
                           const uint8_t* __restrict bits, bool wanted, int64_t width, uint32_t* __restrict row) {
  for (int64_t x = 0; x < width; ++x) {
    uint32_t least = std::min(row[x], std::min(far[x - 1], far[x + 1]) + kKnight);
    least = std::min(least, std::min(next[x - 2], next[x + 2]) + kKnight);
    least = std::min(least, std::min(next[x - 1], next[x + 1]) + kDiagonal);
    least = std::min(least, next[x] + kStraight);
    row[x] = (bits[x] != 0) == wanted ? least : 0;
  }
}

using ThroughFunction = void (*)(const uint32_t*, const uint32_t*, const uint8_t*, bool, int64_t, uint32_t*);

void ThroughPlain(const uint32_t* next, const uint32_t* far, const uint8_t* bits, bool wanted, int64_t width,
                  uint32_t* row) {
  Through(next, far, bits, wanted, width, row);
}

#ifdef FGFAST_HAS_LEVELS
FGFAST_AVX2_LOOPS void ThroughAvx2(const uint32_t* next, const uint32_t* far, const uint8_t* bits, bool wanted,
                                   int64_t width, uint32_t* row) {
  Through(next, far, bits, wanted, width, row);
}

ThroughFunction ThroughHere() { return HasAvx2() ? ThroughAvx2 : ThroughPlain; }
#else
ThroughFunction ThroughHere() { return ThroughPlain; }
#endif

// Each pixel's distance from the nearest one of the other kind, for the pixels whose bit is `wanted`. 0 on the others.
class Distances {
 public:
  Distances(const Contrast& contrast, bool wanted)
      : stride_(contrast.width + 2 * kMargin), map_((contrast.height + 2 * kMargin) * stride_, kFar) {
    const int64_t width = contrast.width;
    const ThroughFunction through = ThroughHere();
    for (int64_t y = 0; y < contrast.height; ++y) {
      uint32_t* row = Row(y);
      through(row - stride_, row - 2 * stride_, contrast.bits + y * width, wanted, width, row);
      for (int64_t x = 1; x < width; ++x) row[x] = std::min(row[x], row[x - 1] + kStraight);
    }
    for (int64_t y = contrast.height - 1; y >= 0; --y) {
      uint32_t* row = Row(y);
      through(row + stride_, row + 2 * stride_, contrast.bits + y * width, wanted, width, row);
      for (int64_t x = width - 2; x >= 0; --x) row[x] = std::min(row[x], row[x + 1] + kStraight);
    }
  }
  float At(int64_t y, int64_t x) const {
    return static_cast<float>(map_[(y + kMargin) * stride_ + x + kMargin]) * (1.0F / (1 << kShift));
  }

 private:
  uint32_t* Row(int64_t y) { return map_.data() + (y + kMargin) * stride_ + kMargin; }
  int64_t stride_;
  std::vector<uint32_t> map_;
};

// Which bin a value of each channel falls into, times the bins of the channels behind it.
struct Tables {
  Tables() {
    for (int n = 0; n < 256; ++n) {
      const int chroma = (n >= kGrey ? (n - kGrey) / kChromaStep : -((kGrey - n + kChromaStep - 1) / kChromaStep));
      light[n] = std::min(n / kLightStep, kLight - 1) * kA * kB;
      a[n] = std::clamp(chroma + kA / 2, 0, kA - 1) * kB;
      b[n] = std::clamp(chroma + kB / 2, 0, kB - 1);
    }
  }
  int light[256], a[256], b[256];
};

// 0 and 1 are nearest to the outline; from 2 on, add 1 beyond the band and 2 beyond `radius`.
FGFAST_INLINE int PlaceOf(float distance, float radius) {
  if (!(distance > kOutline)) return distance > kEdge;
  return 2 + (distance > kBand) + 2 * (distance > radius);
}

// The colours of one side of the outline: by place, by square, by bin.
struct Counts {
  Counts() : cells(kPlaces * 2 * kBins) {}
  Halves Of(std::initializer_list<int> places) const {
    Halves sums{};
    for (const int place : places) {
      for (int square = 0; square < 2; ++square) {
        const int32_t* from = cells.data() + (place * 2 + square) * kBins;
        for (int bin = 0; bin < kBins; ++bin) sums[square][bin] += from[bin];
      }
    }
    return sums;
  }
  std::vector<int32_t> cells;
};

int64_t Sum(const Histogram& counts) {
  int64_t sum = 0;
  for (const int64_t count : counts) sum += count;
  return sum;
}
int64_t Sum(const Halves& counts) { return Sum(counts[0]) + Sum(counts[1]); }

Histogram Both(const Halves& counts) {
  Histogram sums;
  for (int bin = 0; bin < kBins; ++bin) sums[bin] = counts[0][bin] + counts[1][bin];
  return sums;
}

// Smoothed along one axis of `kLength` bins that lie `kStep` apart; what is beyond the ends is like the ends. Lengths
// and steps are known when it is compiled, and rows that lie beside each other are smoothed together.
template <int kLength, int kStep>
void SmoothAlong(const Histogram& counts, Histogram& out) {
  for (int first = 0; first < kBins; first += kLength * kStep) {
    for (int at = 0; at < kLength; ++at) {
      const int64_t* middle = counts.data() + first + at * kStep;
      const int64_t* low = at > 0 ? middle - kStep : middle;
      const int64_t* high = at < kLength - 1 ? middle + kStep : middle;
      int64_t* to = out.data() + first + at * kStep;
      for (int n = 0; n < kStep; ++n) to[n] = kSide * (low[n] + high[n]) + kMiddle * middle[n];
    }
  }
}

// Smoothed, with every colour's prior, in whole numbers.
Histogram Weights(const Histogram& counts) {
  Histogram light, out;
  SmoothAlong<kLight, kA * kB>(counts, light);
  SmoothAlong<kA, kB>(light, out);
  SmoothAlong<kB, 1>(out, light);
  for (int bin = 0; bin < kBins; ++bin) out[bin] = kScale * light[bin] + kPrior;
  return out;
}

// The area under the ROC curve of a classifier fitted on two histograms and tried on two others.
double AreaOf(const Histogram& fit_subject, const Histogram& fit_other, const Histogram& subject,
              const Histogram& other) {
  const Histogram mine = Weights(fit_subject), theirs = Weights(fit_other);
  std::vector<std::pair<double, int>> order;
  for (int bin = 0; bin < kBins; ++bin) {
    if (subject[bin] + other[bin] == 0) continue;
    order.emplace_back(static_cast<double>(mine[bin]) / static_cast<double>(theirs[bin]), bin);
  }
  std::sort(order.begin(), order.end());
  int64_t twice = 0, before = 0;
  for (size_t n = 0; n < order.size();) {
    int64_t ours = 0, others = 0;
    const double odds = order[n].first;
    for (; n < order.size() && order[n].first == odds; ++n) {
      ours += subject[order[n].second];
      others += other[order[n].second];
    }
    twice += ours * (2 * before + others);
    before += others;
  }
  return static_cast<double>(twice) / static_cast<double>(2 * Sum(subject) * Sum(other));
}

// 1 - the mean area of both halves, or NaN.
double Alike(const Halves& subject, const Halves& other) {
  for (const Histogram* half : {&subject[0], &subject[1], &other[0], &other[1]}) {
    if (Sum(*half) < kLeast) return std::numeric_limits<double>::quiet_NaN();
  }
  const double first = AreaOf(subject[0], other[0], subject[1], other[1]);
  const double second = AreaOf(subject[1], other[1], subject[0], other[0]);
  return 1.0 - (first + second) / 2;
}

// The part of a band whose colours are rather those of `foreign` than of `own`, or NaN.
double Leaks(const Halves& band, const Histogram& foreign, const Histogram& own) {
  const Histogram counts = Both(band), theirs = Weights(foreign), ours = Weights(own);
  const int64_t all_theirs = Sum(theirs), all_ours = Sum(ours), all = Sum(counts);
  if (all == 0) return std::numeric_limits<double>::quiet_NaN();
  int64_t wrong = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    if (theirs[bin] * all_ours > ours[bin] * all_theirs) wrong += counts[bin];
  }
  return static_cast<double>(wrong) / static_cast<double>(all);
}

// Counts the colours of the subject and of its surroundings.
void Count(const Contrast& contrast, int64_t subject_pixels, Counts& inside, Counts& outside) {
  static const Tables tables;
  const double root = std::sqrt(static_cast<double>(subject_pixels));
  const float deep = static_cast<float>(std::max(kLeastRadius, kDeep * root));
  const float ring = static_cast<float>(std::max(kLeastRadius, kRing * root) + kLeastRadius);
  const Distances within(contrast, true), beyond(contrast, false);
  const float all = static_cast<float>(std::max(contrast.height, contrast.width));
  for (int64_t y = 0; y < contrast.height; ++y) {
    const uint8_t* bits = contrast.bits + y * contrast.width;
    const uint8_t* lab = contrast.lab + 3 * y * contrast.width;
    for (int64_t x = 0; x < contrast.width; ++x, lab += 3) {
      const bool subject = bits[x] != 0;
      const float distance = subject ? within.At(y, x) : subject_pixels == 0 ? all : beyond.At(y, x);
      const int place = PlaceOf(distance, subject ? deep : ring);
      const int square = static_cast<int>((y / kBlock + x / kBlock) % 2);
      const int bin = tables.light[lab[0]] + tables.a[lab[1]] + tables.b[lab[2]];
      ++(subject ? inside : outside).cells[(place * 2 + square) * kBins + bin];
    }
  }
}

}  // namespace

void ColourContrast(const Contrast& contrast, double* out) {
  std::fill_n(out, kContrastNumbers, std::numeric_limits<double>::quiet_NaN());
  const int64_t pixels = contrast.height * contrast.width;
  int64_t subject_pixels = 0;
  for (int64_t n = 0; n < pixels; ++n) subject_pixels += contrast.bits[n] != 0;
  if (pixels - subject_pixels < kLeast) return;
  Counts inside, outside;
  Count(contrast, subject_pixels, inside, outside);
  const Halves around = outside.Of({2, 3, 4, 5});
  if (Sum(around) < kLeast) return;
  const auto enough = [](const Halves& wanted, const Halves& instead) {
    return Sum(wanted) >= kLeast ? wanted : instead;
  };
  const Halves core = enough(inside.Of({2, 3, 4, 5}), inside.Of({0, 1, 2, 3, 4, 5}));
  out[0] = Alike(core, enough(outside.Of({2, 3}), around));
  out[1] = Alike(core, around);
  const Histogram subject = Both(enough(inside.Of({4, 5}), core)), far = Both(enough(outside.Of({4, 5}), around));
  out[2] = Leaks(outside.Of({1, 2, 4}), subject, far);
  out[3] = Leaks(inside.Of({1, 2, 4}), far, subject);
}

}  // namespace fgfast
