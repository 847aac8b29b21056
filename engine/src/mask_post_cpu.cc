#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "fgfast/bilinear.h"
#include "fgfast/mask_post.h"
#include "fgfast/mask_post_loops.h"
#include "fgfast/threads.h"

// The square of side x side, sixteen times the logits, never exists: each of its rows that the stored image needs is
// made, at the image's columns only, from two rows of logits that have been interpolated along the row before. What
// the second step reads at a column, the pixels `near` and `far`, lies in two arrays of the image's width; so all
// loops but the one over a row of logits go straight through memory. The loops: mask_post_loops.cc.
namespace fgfast::cpu {
namespace {

constexpr int64_t kThreadPixels = 1 << 20;  // a thread's least share, half a millisecond: less is not worth waking it
constexpr int64_t kTasks = 4;               // parts of the work a thread, so that the threads end together
constexpr int64_t kLeastRows = 24;          // of the image in such a part; the first of them costs two rows of logits

// What all masks share.
struct Plan {
  explicit Plan(const MaskSizes& sizes) : sizes(sizes), columns(sizes.low, sizes.width) {
    for (int64_t x = 0; x < sizes.width; ++x) {
      const Taps taps = TapsOf(x, sizes.resized_width, sizes.width);
      columns.Set(x, taps, TapsOf(taps.first, sizes.low, sizes.side), TapsOf(taps.second, sizes.low, sizes.side));
    }
    columns.Close();
  }
  MaskSizes sizes;
  Columns columns;
};

// The memory of one thread: the last two rows of logits and of the square, each at its number modulo 2.
struct Scratch {
  explicit Scratch(int64_t padded) : memory(6 * padded) {
    float* next = memory.data();
    for (float** row : {&near[0], &near[1], &far[0], &far[1], &square[0], &square[1]}) {
      *row = next;
      next += padded;
    }
  }
  void Forget() {
    std::fill_n(logits_row, 2, -1);
    std::fill_n(square_row, 2, -1);
  }
  std::vector<float> memory;
  float *near[2], *far[2], *square[2];
  int64_t logits_row[2], square_row[2];
};

// Of a mask, or of some rows of it.
struct Facts {
  int64_t x0 = std::numeric_limits<int64_t>::max(), y0 = 0, x1 = 0, y1 = 0;
  Counts counts;

  void Add(const Facts& below) {
    if (below.counts.area) {
      x0 = std::min(x0, below.x0), x1 = std::max(x1, below.x1);
      y0 = counts.area ? y0 : below.y0, y1 = below.y1;
    }
    counts.Add(below.counts);
  }

  void AddRow(const Counts& row, const uint8_t* bits, int64_t y, int64_t width) {
    if (row.area) {
      y0 = counts.area ? y0 : y, y1 = y + 1;
      // Only what lies outside the box so far is looked at.
      const void* left = std::memchr(bits, 1, std::min(x0, width));
      if (left) x0 = static_cast<const uint8_t*>(left) - bits;
      int64_t right = width;
      while (right > x1 && !bits[right - 1]) --right;
      x1 = std::max(x1, right);
    }
    counts.Add(row);
  }
};

// Row `y` of the square at the columns of the image.
const float* SquareRow(const float* logits, const Plan& plan, const Loops& loops, int64_t y, Scratch& s) {
  float* out = s.square[y % 2];
  if (s.square_row[y % 2] == y) return out;
  s.square_row[y % 2] = y;
  const Taps taps = TapsOf(y, plan.sizes.low, plan.sizes.side);
  for (const int64_t row : {taps.first, taps.second}) {
    if (s.logits_row[row % 2] == row) continue;
    s.logits_row[row % 2] = row;
    loops.gather(logits + row * plan.sizes.low, plan.columns, s.near[row % 2], s.far[row % 2]);
  }
  const int first = taps.first % 2, second = taps.second % 2;
  loops.square({s.near[first], s.near[second]}, {s.far[first], s.far[second]}, taps, plan.columns, out);
  return out;
}

// Rows y0 to y1 of a mask.
Facts Band(const float* logits, const Plan& plan, const Loops& loops, int64_t y0, int64_t y1, Scratch& s,
           uint8_t* bits) {
  const MaskSizes& sizes = plan.sizes;
  Facts facts;
  s.Forget();
  for (int64_t y = y0; y < y1; ++y) {
    const Taps taps = TapsOf(y, sizes.resized_height, sizes.height);
    const float* first = SquareRow(logits, plan, loops, taps.first, s);
    const float* second = SquareRow(logits, plan, loops, taps.second, s);
    uint8_t* row = bits + y * sizes.width;
    facts.AddRow(loops.finish({first, second}, taps, sizes.width, row), row, y, sizes.width);
  }
  return facts;
}

}  // namespace

void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, int threads, uint8_t* bits, int64_t* facts) {
  const Plan plan(sizes);
  const Loops loops = LoopsHere();
  const int64_t pixels = count * sizes.height * sizes.width;
  threads = ThreadsFor(pixels / kThreadPixels, threads);
  // A thread alone gains nothing from parts.
  const int64_t wanted = threads == 1 ? 1 : (kTasks * threads + count - 1) / std::max<int64_t>(count, 1);
  const int64_t parts = std::clamp<int64_t>(sizes.height / kLeastRows, 1, std::max<int64_t>(wanted, 1));
  std::vector<Scratch> scratch;  // all memory before the threads
  for (int n = 0; n < threads; ++n) scratch.emplace_back(plan.columns.padded);
  std::vector<Facts> found(count * parts);
  ForEachTask(count * parts, threads, [&](int64_t task, int thread) {
    const int64_t mask = task / parts, part = task % parts;
    found[task] = Band(logits + mask * sizes.low * sizes.low, plan, loops, sizes.height * part / parts,
                       sizes.height * (part + 1) / parts, scratch[thread], bits + mask * sizes.height * sizes.width);
  });
  for (int64_t mask = 0; mask < count; ++mask) {
    Facts all;
    for (int64_t part = 0; part < parts; ++part) all.Add(found[mask * parts + part]);
    const Counts& counts = all.counts;
    const int64_t x0 = counts.area ? all.x0 : 0;
    const int64_t row[kMaskFacts] = {x0, all.y0, all.x1, all.y1, counts.area, counts.surely, counts.perhaps};
    std::copy_n(row, kMaskFacts, facts + mask * kMaskFacts);
  }
}

}  // namespace fgfast::cpu
