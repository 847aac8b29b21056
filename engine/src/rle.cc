#include "fgfast/rle.h"

#include <cstring>
#include <stdexcept>

// One file, because there is one device: an op is split into .cc, _cpu.cc and _gpu.cu when it gets its second.

namespace fgfast {
namespace {

constexpr int64_t kBlock = 8;    // mask bytes looked at together
constexpr int kMaxDigits = 12;   // 60 bits: more than any mask has pixels, and no overflow in 64
constexpr int kZeroDigit = 48;   // '0'
constexpr int kLastDigit = 111;  // 'o'

// Eight mask bytes with the high bit of each set where the byte is not 0, everything else 0.
uint64_t LoadMarks(const uint8_t* bits) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu;
  uint64_t word;
  std::memcpy(&word, bits, sizeof word);
  return (((word & kLow) + kLow) | word) & ~kLow;
}

// Calls change(row, column) wherever a pixel differs from the one before it down the columns; the pixel
// before a column's first is the last one of the column to the left, and 0 before the very first. The mask is
// read row by row, as it lies in memory; within a column the calls come from top to bottom.
template <class Change>
void ForEachChange(const uint8_t* bits, int64_t height, int64_t width, Change change) {
  if (height == 0 || width == 0) return;
  const uint8_t* last = bits + (height - 1) * width;
  for (int64_t x = 0; x < width; ++x) {
    const bool before = x > 0 && last[x - 1] != 0;
    if ((bits[x] != 0) != before) change(0, x);
  }
  for (int64_t y = 1; y < height; ++y) {
    const uint8_t* row = bits + y * width;
    const uint8_t* above = row - width;
    int64_t x = 0;
    for (; x + kBlock <= width; x += kBlock) {
      if (LoadMarks(row + x) == LoadMarks(above + x)) continue;
      for (int64_t i = x; i < x + kBlock; ++i) {
        if ((row[i] != 0) != (above[i] != 0)) change(y, i);
      }
    }
    for (; x < width; ++x) {
      if ((row[x] != 0) != (above[x] != 0)) change(y, x);
    }
  }
}

void AppendNumber(int64_t number, std::string& text) {
  bool more = true;
  while (more) {
    int digit = static_cast<int>(number & 0x1f);
    number >>= 5;
    more = (digit & 0x10) ? number != -1 : number != 0;
    if (more) digit |= 0x20;
    text.push_back(static_cast<char>(digit + kZeroDigit));
  }
}

[[noreturn]] void Refuse(const std::string& problem) { throw std::invalid_argument("RLE: " + problem); }

// Reads the number that starts at `position` and moves `position` behind it.
int64_t ReadNumber(std::string_view text, size_t& position) {
  const size_t start = position;
  int64_t number = 0;
  for (int shift = 0;; shift += 5) {
    if (position == text.size()) Refuse("the string ends inside a number, at byte " + std::to_string(position));
    if (shift == 5 * kMaxDigits) {
      Refuse("the number at byte " + std::to_string(start) + " has more than " + std::to_string(kMaxDigits) +
             " digits");
    }
    const int character = static_cast<unsigned char>(text[position]);
    if (character < kZeroDigit || character > kLastDigit) {
      Refuse("byte " + std::to_string(position) + " is " + std::to_string(character) + "; allowed are " +
             std::to_string(kZeroDigit) + " to " + std::to_string(kLastDigit));
    }
    ++position;
    const int64_t digit = character - kZeroDigit;
    number |= (digit & 0x1f) << shift;
    if (digit & 0x20) continue;
    if (digit & 0x10) number -= int64_t{1} << (shift + 5);  // sign extension
    return number;
  }
}

}  // namespace

std::string RleEncode(const uint8_t* bits, int64_t height, int64_t width) {
  if (height == 0 || width == 0) return "0";  // one run of no zeros, however long the other side
  // Two walks over the mask: count the changes of each column, then put each one's row in its column's place.
  std::vector<int64_t> place(width + 1, 0);
  ForEachChange(bits, height, width, [&](int64_t, int64_t x) { ++place[x + 1]; });
  for (int64_t x = 0; x < width; ++x) place[x + 1] += place[x];
  std::vector<int64_t> ends(place[width] + 1);
  ForEachChange(bits, height, width, [&](int64_t y, int64_t x) { ends[place[x]++] = x * height + y; });
  ends.back() = height * width;

  std::string text;
  text.reserve(ends.size() * 2);
  int64_t runs[3] = {0, 0, 0};  // of which runs[i % 3] is run i
  int64_t previous_end = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    const int64_t run = ends[i] - previous_end;
    previous_end = ends[i];
    AppendNumber(i > 2 ? run - runs[(i - 2) % 3] : run, text);
    runs[i % 3] = run;
  }
  return text;
}

std::vector<int64_t> RleRuns(std::string_view counts, int64_t height, int64_t width) {
  const int64_t pixels = height * width;
  const std::string size =
      std::to_string(pixels) + " pixels of " + std::to_string(height) + " x " + std::to_string(width);
  std::vector<int64_t> runs;
  int64_t covered = 0;
  for (size_t position = 0; position < counts.size();) {
    int64_t run = ReadNumber(counts, position);
    if (runs.size() > 2) run += runs[runs.size() - 2];
    if (run < 0) Refuse("run " + std::to_string(runs.size()) + " is negative: " + std::to_string(run));
    if (run > pixels - covered) Refuse("run " + std::to_string(runs.size()) + " goes beyond the " + size);
    covered += run;
    runs.push_back(run);
  }
  if (covered != pixels) Refuse("the runs cover " + std::to_string(covered) + " of the " + size);
  return runs;
}

void RleDraw(const std::vector<int64_t>& runs, int64_t height, int64_t width, uint8_t* bits) {
  if (height == 0 || width == 0) return;
  // The way back of RleEncode: mark where a column changes, give every column its first pixel, then carry the
  // state down row by row. Only the marks go against the grain of the memory.
  int64_t begin = 0;
  for (size_t i = 0; i < runs.size(); begin += runs[i++]) {
    if (i % 2 == 0) continue;
    const int64_t end = begin + runs[i];
    if (begin == end) continue;
    if (begin % height) bits[(begin % height) * width + begin / height] ^= 1;
    if (end % height) bits[(end % height) * width + end / height] ^= 1;
    const int64_t first = (begin + height - 1) / height;  // columns whose first pixel is in the run
    const int64_t stop = (end + height - 1) / height;
    std::memset(bits + first, 1, stop - first);
  }
  for (int64_t y = 1; y < height; ++y) {
    uint8_t* __restrict row = bits + y * width;
    const uint8_t* __restrict above = row - width;
    for (int64_t x = 0; x < width; ++x) row[x] ^= above[x];
  }
}

}  // namespace fgfast
