#include "fgfast/outline.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fgfast/cpu.h"

// The constants are those of fgfast/ops/reference_outline.py, with their reasons.
namespace fgfast {
namespace {

constexpr int64_t kNear = 15;  // pixels to each side: a square of 31
constexpr int kLevels = 4;
constexpr int64_t kRanks = 4 * 2499;  // above any: the root of 6 x 1020 x 1020, times kLevels

// What is beyond the border is what is as far within, the border itself not repeated.
int64_t Mirrored(int64_t n, int64_t length) {
  if (length == 1) return 0;
  return n < 0 ? -n : n >= length ? 2 * length - 2 - n : n;
}

// One row of squared edges: Sobel's kernel across and down, squared and summed over the channels. The three rows of the
// image are padded with a pixel at each end.
FGFAST_INLINE void Squared(const uint8_t* __restrict above, const uint8_t* __restrict row,
                           const uint8_t* __restrict below, int64_t width, int32_t* __restrict channels,
                           int32_t* __restrict out) {
  for (int64_t n = 0; n < 3 * width; ++n) {  // sums fit 16 bits, of which twice as many are computed at a time
    const int16_t across =
        static_cast<int16_t>((above[n + 6] - above[n]) + 2 * (row[n + 6] - row[n]) + (below[n + 6] - below[n]));
    const int16_t down =
        static_cast<int16_t>((below[n] - above[n]) + 2 * (below[n + 3] - above[n + 3]) + (below[n + 6] - above[n + 6]));
    channels[n] = across * across + down * down;
  }
  for (int64_t x = 0; x < width; ++x) out[x] = channels[3 * x] + channels[3 * x + 1] + channels[3 * x + 2];
}

// The strongest of the 3 x 3 around each pixel, as a rank. The rows are padded with a 0 at each end.
FGFAST_INLINE void Ranks(const int32_t* __restrict above, const int32_t* __restrict row,
                         const int32_t* __restrict below, int64_t width, int32_t* __restrict columns,
                         uint16_t* __restrict out) {
  for (int64_t n = 0; n < width + 2; ++n) columns[n] = std::max(std::max(above[n], row[n]), below[n]);
  for (int64_t x = 0; x < width; ++x) {
    const int32_t most = std::max(std::max(columns[x], columns[x + 1]), columns[x + 2]);
    out[x] = static_cast<uint16_t>(static_cast<int32_t>(std::sqrt(static_cast<float>(most)) * kLevels));
  }
}

FGFAST_INLINE void Or(const uint8_t* __restrict from, int64_t length, uint8_t* __restrict to) {
  for (int64_t n = 0; n < length; ++n) to[n] |= from[n];
}

struct Loops {
  void (*squared)(const uint8_t*, const uint8_t*, const uint8_t*, int64_t, int32_t*, int32_t*);
  void (*ranks)(const int32_t*, const int32_t*, const int32_t*, int64_t, int32_t*, uint16_t*);
};

void SquaredPlain(const uint8_t* above, const uint8_t* row, const uint8_t* below, int64_t width, int32_t* channels,
                  int32_t* out) {
  Squared(above, row, below, width, channels, out);
}
void RanksPlain(const int32_t* above, const int32_t* row, const int32_t* below, int64_t width, int32_t* columns,
                uint16_t* out) {
  Ranks(above, row, below, width, columns, out);
}

#ifdef FGFAST_HAS_LEVELS
FGFAST_AVX2_LOOPS void SquaredAvx2(const uint8_t* above, const uint8_t* row, const uint8_t* below, int64_t width,
                                   int32_t* channels, int32_t* out) {
  Squared(above, row, below, width, channels, out);
}
FGFAST_AVX2_LOOPS void RanksAvx2(const int32_t* above, const int32_t* row, const int32_t* below, int64_t width,
                                 int32_t* columns, uint16_t* out) {
  Ranks(above, row, below, width, columns, out);
}

Loops LoopsHere() { return HasAvx2() ? Loops{SquaredAvx2, RanksAvx2} : Loops{SquaredPlain, RanksPlain}; }
#else
Loops LoopsHere() { return {SquaredPlain, RanksPlain}; }
#endif

// The rank of every pixel's edge. Of the rows in between only three at a time are kept: little memory is fast memory.
std::vector<uint16_t> AllRanks(const Outline& o) {
  const Loops loops = LoopsHere();
  const int64_t height = o.height, width = o.width, padded = width + 2;
  std::vector<uint8_t> image(3 * 3 * padded);
  std::vector<int32_t> edges(3 * padded), none(padded), space(3 * padded);
  std::vector<uint16_t> ranks(height * width);
  const auto image_row = [&](int64_t y) { return image.data() + (y % 3) * 3 * padded; };
  const auto edge_row = [&](int64_t y) { return y < 0 || y >= height ? none.data() : edges.data() + (y % 3) * padded; };
  const auto read = [&](int64_t y) {
    const uint8_t* from = o.lab + 3 * y * width;
    uint8_t* row = image_row(y);
    std::memcpy(row + 3, from, 3 * width);
    std::memcpy(row, from + 3 * Mirrored(-1, width), 3);
    std::memcpy(row + 3 + 3 * width, from + 3 * Mirrored(width, width), 3);
  };
  read(0);
  for (int64_t y = 0; y <= height; ++y) {
    if (y + 1 < height) read(y + 1);
    if (y < height) {
      const uint8_t *above = image_row(Mirrored(y - 1, height)), *below = image_row(Mirrored(y + 1, height));
      loops.squared(above, image_row(y), below, width, space.data(), edge_row(y) + 1);
    }
    if (y > 0) {
      uint16_t* out = ranks.data() + (y - 1) * width;
      loops.ranks(edge_row(y - 2), edge_row(y - 1), edge_row(y), width, space.data(), out);
    }
  }
  return ranks;
}

// Spreads what is not 0 by kNear pixels in steps of `stride` bytes, over all of `length`: each round doubles how far.
void Spread(std::vector<uint8_t>& bytes, std::vector<uint8_t>& space, int64_t stride) {
  const int64_t length = static_cast<int64_t>(bytes.size());
  for (int64_t reach = 1, left = kNear; left > 0; left -= reach, reach = std::min(2 * reach, left)) {
    const int64_t shift = reach * stride;
    if (shift >= length) return;
    std::memcpy(space.data(), bytes.data(), length);
    Or(space.data(), length - shift, bytes.data() + shift);
    Or(space.data() + shift, length - shift, bytes.data());
  }
}

// Whether each pixel is near the subject: height x (width + kNear) bytes, the gap keeps a row from reaching the next.
std::vector<uint8_t> Near(const Outline& o, int64_t stride) {
  std::vector<uint8_t> near(o.height * stride), space(near.size());
  for (int64_t y = 0; y < o.height; ++y) std::memcpy(near.data() + y * stride, o.bits + y * o.width, o.width);
  Spread(near, space, stride);
  Spread(near, space, 1);
  return near;
}

// Whether the outline has a pixel that is not subject.
bool Leaves(const uint8_t* outline, const uint8_t* bits, int64_t pixels) {
  int beyond = 0;
  for (int64_t n = 0; n < pixels; ++n) beyond |= (outline[n] != 0) & (bits[n] == 0);
  return beyond != 0;
}

// The first pixel from `n` on that is not 0, or `end`.
int64_t NextSet(const uint8_t* bytes, int64_t n, int64_t end) {
  for (; n + 8 <= end; n += 8) {
    uint64_t eight;
    std::memcpy(&eight, bytes + n, 8);
    if (eight != 0) break;
  }
  while (n < end && bytes[n] == 0) ++n;
  return n;
}

}  // namespace

int64_t OutlineEdges(const Outline& o, int64_t* weaker, int64_t* upto) {
  const int64_t pixels = o.height * o.width, stride = o.width + kNear;
  if (Leaves(o.outline, o.bits, pixels)) return -1;
  const std::vector<uint16_t> ranks = AllRanks(o);
  const std::vector<uint8_t> near = Near(o, stride);
  // How many have each rank: of even and of odd columns, as pixels beside each other often have the same. One rank more
  // than there are, so that those below rank n are the sum up to n.
  std::vector<int32_t> counts(kRanks + 1), odd(kRanks + 1);
  for (int64_t y = 0; y < o.height; ++y) {
    const uint8_t* counted = near.data() + y * stride;
    const uint16_t* row = ranks.data() + y * o.width;
    int64_t x = 0;
    for (; x + 1 < o.width; x += 2) {
      counts[row[x] + 1] += counted[x] != 0;
      odd[row[x + 1] + 1] += counted[x + 1] != 0;
    }
    if (x < o.width) counts[row[x] + 1] += counted[x] != 0;
  }
  int32_t sum = 0;
  for (int64_t n = 0; n <= kRanks; ++n) counts[n] = sum += counts[n] + odd[n];
  for (int64_t y = 0, n = 0; y < o.height; ++y) {
    for (const int64_t end = n + o.width; n < end; ++n) {
      n = NextSet(o.outline, n, end);
      if (n == end) break;
      *weaker++ = counts[ranks[n]];
      *upto++ = counts[ranks[n] + 1];
    }
  }
  return sum;
}

}  // namespace fgfast
