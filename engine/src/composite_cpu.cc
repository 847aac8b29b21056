#include <algorithm>
#include <cstring>

#include "fgfast/composite.h"

namespace fgfast::cpu {
namespace {

constexpr int64_t kBlock = 8;  // mask bytes looked at together

uint64_t Load(const uint8_t* bits) {
  uint64_t word;
  std::memcpy(&word, bits, sizeof word);
  return word;
}

bool AllClear(const uint8_t* bits) { return Load(bits) == 0; }

// No byte is 0 (the classic has-zero-byte test, exact for "is there any").
bool AllSet(const uint8_t* bits) {
  const uint64_t word = Load(bits);
  return ((word - 0x0101010101010101u) & ~word & 0x8080808080808080u) == 0;
}

// Cuts bits[0, count) into spans: set(begin, end) and clear(begin, end) for long runs in whole blocks, and mixed(begin,
// end), at most one block, for the outline and the tail. Masks are mostly long runs, and these become one memcpy each;
// the work for the worst mask stays bounded by one block of pixel-wise selection per block.
template <class Set, class Clear, class Mixed>
void ForEachSpan(const uint8_t* bits, int64_t count, Set set, Clear clear, Mixed mixed) {
  int64_t x = 0;
  while (x < count) {
    int64_t end = x;
    while (end + kBlock <= count && AllClear(bits + end)) end += kBlock;
    if (end > x) clear(x, end);
    x = end;
    while (end + kBlock <= count && AllSet(bits + end)) end += kBlock;
    if (end > x) set(x, end);
    x = end;
    end = std::min(x + kBlock, count);
    if (end > x && !(end - x == kBlock && AllClear(bits + x))) {
      mixed(x, end);
      x = end;
    }
  }
}

// Where window and image overlap, in pixels of the window; empty (0, 0, 0, 0) where they do not.
struct Overlap {
  int64_t left, top, right, bottom;
};

Overlap Intersect(const MaskedImage& image, const Window& window) {
  const int64_t left = std::max<int64_t>(0, -window.x0);
  const int64_t top = std::max<int64_t>(0, -window.y0);
  const int64_t right = std::min(window.width, image.width - window.x0);
  const int64_t bottom = std::min(window.height, image.height - window.y0);
  if (left >= right || top >= bottom) return {0, 0, 0, 0};
  return {left, top, right, bottom};
}

void CompositeRow(const uint8_t* __restrict pixels, const uint8_t* __restrict bits,
                  const uint8_t* __restrict background, int64_t count, uint8_t* __restrict out) {
  ForEachSpan(
      bits, count,
      [=](int64_t begin, int64_t end) { std::memcpy(out + 3 * begin, pixels + 3 * begin, 3 * (end - begin)); },
      [=](int64_t begin, int64_t end) { std::memcpy(out + 3 * begin, background + 3 * begin, 3 * (end - begin)); },
      [=](int64_t begin, int64_t end) {
        for (int64_t x = begin; x < end; ++x) {
          const uint8_t* from = (bits[x] ? pixels : background) + 3 * x;
          out[3 * x + 0] = from[0];
          out[3 * x + 1] = from[1];
          out[3 * x + 2] = from[2];
        }
      });
}

void CompositeAlphaRow(const uint8_t* __restrict pixels, const uint8_t* __restrict bits, int64_t count,
                       uint8_t* __restrict out) {
  const auto opaque = [=](int64_t begin, int64_t end) {
    for (int64_t x = begin; x < end; ++x) {
      out[4 * x + 0] = pixels[3 * x + 0];
      out[4 * x + 1] = pixels[3 * x + 1];
      out[4 * x + 2] = pixels[3 * x + 2];
      out[4 * x + 3] = 255;
    }
  };
  ForEachSpan(
      bits, count, opaque, [=](int64_t begin, int64_t end) { std::memset(out + 4 * begin, 0, 4 * (end - begin)); },
      [=](int64_t begin, int64_t end) {
        for (int64_t x = begin; x < end; ++x) {
          const uint8_t keep = bits[x] ? 255 : 0;
          out[4 * x + 0] = pixels[3 * x + 0] & keep;
          out[4 * x + 1] = pixels[3 * x + 1] & keep;
          out[4 * x + 2] = pixels[3 * x + 2] & keep;
          out[4 * x + 3] = keep;
        }
      });
}

}  // namespace

void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               uint8_t* out) {
  const Overlap inside = Intersect(image, window);
  for (int64_t y = 0; y < window.height; ++y) {
    const uint8_t* fill = background + y * background_stride;
    uint8_t* row = out + y * window.width * 3;
    if (y < inside.top || y >= inside.bottom) {
      std::memcpy(row, fill, window.width * 3);
      continue;
    }
    const int64_t first = (window.y0 + y) * image.width + window.x0 + inside.left;
    std::memcpy(row, fill, inside.left * 3);
    CompositeRow(image.pixels + first * 3, image.bits + first, fill + inside.left * 3, inside.right - inside.left,
                 row + inside.left * 3);
    std::memcpy(row + inside.right * 3, fill + inside.right * 3, (window.width - inside.right) * 3);
  }
}

void CompositeAlpha(const MaskedImage& image, const Window& window, uint8_t* out) {
  const Overlap inside = Intersect(image, window);
  for (int64_t y = 0; y < window.height; ++y) {
    uint8_t* row = out + y * window.width * 4;
    if (y < inside.top || y >= inside.bottom) {
      std::memset(row, 0, window.width * 4);
      continue;
    }
    const int64_t first = (window.y0 + y) * image.width + window.x0 + inside.left;
    std::memset(row, 0, inside.left * 4);
    CompositeAlphaRow(image.pixels + first * 3, image.bits + first, inside.right - inside.left, row + inside.left * 4);
    std::memset(row + inside.right * 4, 0, (window.width - inside.right) * 4);
  }
}

}  // namespace fgfast::cpu
