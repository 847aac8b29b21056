#include "fgfast/parts.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

// One pass over the runs of each row. A run of the subject joins those of the row above that it touches at sides or
// corners, a run of the background those that it touches at sides; what is joined, and how large it is, a forest of
// numbers knows. All background beyond the border is number 0.
namespace fgfast {
namespace {

struct Run {
  int32_t first, end;  // pixels of a row; the end is exclusive
  int32_t number;
};
using Runs = std::vector<Run>;

// Numbers that are joined have one root, the least of them.
class Forest {
 public:
  int32_t Add(int64_t pixels) {
    const int32_t number = static_cast<int32_t>(parents_.size());
    parents_.push_back(number);
    pixels_.push_back(static_cast<int32_t>(pixels));
    return number;
  }
  int32_t Root(int32_t number) {
    while (parents_[number] != number) {
      parents_[number] = parents_[parents_[number]];
      number = parents_[number];
    }
    return number;
  }
  // Returns the root of both.
  int32_t Join(int32_t one, int32_t other) {
    one = Root(one), other = Root(other);
    if (one == other) return one;
    if (other < one) std::swap(one, other);
    parents_[other] = one;
    pixels_[one] += pixels_[other];
    return one;
  }
  void Grow(int32_t root, int64_t pixels) { pixels_[root] += static_cast<int32_t>(pixels); }
  // Calls `visit` with the pixels of every root but 0.
  template <class Visit>
  void Each(const Visit& visit) const {
    for (size_t number = 1; number < parents_.size(); ++number) {
      if (parents_[number] == static_cast<int32_t>(number)) visit(pixels_[number]);
    }
  }

 private:
  std::vector<int32_t> parents_, pixels_;
};

// The first pixel from `x` on that is subject, or `width`.
int64_t NextSubject(const uint8_t* row, int64_t x, int64_t width) {
  for (; x + 8 <= width; x += 8) {
    uint64_t eight;
    std::memcpy(&eight, row + x, 8);
    if (eight != 0) break;
  }
  while (x < width && row[x] == 0) ++x;
  return x;
}

// The first pixel from `x` on that is none, or `width`.
int64_t NextOther(const uint8_t* row, int64_t x, int64_t width) {
  const void* found = std::memchr(row + x, 0, width - x);
  return found ? static_cast<const uint8_t*>(found) - row : width;
}

// Joins a run to those above that it touches; `at` is the first of them that may touch it or a later one. `reach` is 1
// where corners touch, else 0. Returns the run with its number.
Run Placed(Run run, const Runs& above, size_t& at, int32_t reach, bool outside, Forest& forest) {
  int32_t root = outside ? 0 : -1;
  const int64_t pixels = run.end - run.first;
  while (at < above.size() && above[at].end + reach <= run.first) ++at;
  for (size_t n = at; n < above.size() && above[n].first < run.end + reach; ++n) {
    root = root < 0 ? forest.Root(above[n].number) : forest.Join(root, above[n].number);
  }
  if (root < 0) {
    run.number = forest.Add(pixels);
  } else {
    run.number = root;
    forest.Grow(root, pixels);
  }
  return run;
}

}  // namespace

Parts PartsOf(const uint8_t* bits, int64_t height, int64_t width) {
  Forest subject, others;
  subject.Add(0), others.Add(0);
  Runs above, above_others, row, row_others;
  if (width == 0) height = 0;  // of which there may be any number
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* pixels = bits + y * width;
    const bool at_end = y == 0 || y == height - 1;
    size_t at = 0, at_others = 0;
    row.clear(), row_others.clear();
    for (int64_t x = 0; x < width;) {
      const int64_t first = NextSubject(pixels, x, width);
      if (first > x) {
        const bool outside = at_end || x == 0 || first == width;
        const Run run{static_cast<int32_t>(x), static_cast<int32_t>(first), 0};
        row_others.push_back(Placed(run, above_others, at_others, 0, outside, others));
      }
      if (first == width) break;
      x = NextOther(pixels, first, width);
      const Run run{static_cast<int32_t>(first), static_cast<int32_t>(x), 0};
      row.push_back(Placed(run, above, at, 1, false, subject));
    }
    above.swap(row), above_others.swap(row_others);
  }
  Parts found;
  subject.Each([&](int64_t pixels) { found.areas.push_back(pixels); });
  others.Each([&](int64_t pixels) { found.enclosed += pixels; });
  std::sort(found.areas.begin(), found.areas.end(), std::greater<int64_t>());
  return found;
}

}  // namespace fgfast
