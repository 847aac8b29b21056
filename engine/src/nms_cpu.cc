#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <vector>

#include "fgfast/cpu.h"
#include "fgfast/nms.h"

// A box meets only the kept ones of its class, sixteen at a time; few are kept, so nothing is remembered of pairs.
namespace fgfast {
namespace {

constexpr int64_t kTogether = 16;  // boxes compared before looking whether one was enough

// Kept boxes of one class, in whole steps of kTogether; behind the last one NaN, which overlaps with nothing.
struct Kept {
  void Add(const float* box) {
    if (count % kTogether == 0) {
      for (auto* column : {&x0, &y0, &x1, &y1, &area}) {
        column->resize(count + kTogether, std::numeric_limits<float>::quiet_NaN());
      }
    }
    x0[count] = box[0], y0[count] = box[1], x1[count] = box[2], y1[count] = box[3];
    area[count] = (box[2] - box[0]) * (box[3] - box[1]);
    ++count;
  }
  int64_t count = 0;
  std::vector<float> x0, y0, x1, y1, area;
};

// Whether one of `kept` has an IoU above `threshold` with `box`; the arithmetic of Overlap in nms.h.
FGFAST_INLINE bool Meets(const Kept& kept, const float* box, float threshold) {
  const float left = box[0], top = box[1], right = box[2], bottom = box[3], area = (right - left) * (bottom - top);
  for (int64_t from = 0; from < kept.count; from += kTogether) {
    const float *x0 = kept.x0.data() + from, *y0 = kept.y0.data() + from, *x1 = kept.x1.data() + from;
    const float *y1 = kept.y1.data() + from, *areas = kept.area.data() + from;
    int32_t hits = 0;
    for (int64_t n = 0; n < kTogether; ++n) {
      const float width = (x1[n] < right ? x1[n] : right) - (x0[n] > left ? x0[n] : left);
      const float height = (y1[n] < bottom ? y1[n] : bottom) - (y0[n] > top ? y0[n] : top);
      const float shared = (0.0f > width ? 0.0f : width) * (0.0f > height ? 0.0f : height);
      hits += shared / (areas[n] + area - shared) > threshold;
    }
    if (hits) return true;
  }
  return false;
}

using MeetsFunction = bool (*)(const Kept&, const float*, float);

bool MeetsPlain(const Kept& kept, const float* box, float threshold) { return Meets(kept, box, threshold); }

#ifdef FGFAST_HAS_LEVELS
FGFAST_AVX512_LOOPS bool MeetsAvx512(const Kept& kept, const float* box, float threshold) {
  return Meets(kept, box, threshold);
}

FGFAST_AVX2_LOOPS bool MeetsAvx2(const Kept& kept, const float* box, float threshold) {
  return Meets(kept, box, threshold);
}

MeetsFunction Choose() { return HasAvx512() ? MeetsAvx512 : HasAvx2() ? MeetsAvx2 : MeetsPlain; }
#else
MeetsFunction Choose() { return MeetsPlain; }
#endif

// Greater for a greater score, greatest for NaN, equal for 0 and -0.
uint32_t Rank(float score) {
  if (score != score) return std::numeric_limits<uint32_t>::max();
  const float plain = score == 0.0f ? 0.0f : score;
  uint32_t bits;
  std::memcpy(&bits, &plain, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

}  // namespace

void OrderByScore(const float* scores, int64_t count, int64_t* order) {
  struct Entry {
    uint32_t rank;
    int64_t index;
    bool operator<(const Entry& other) const { return rank != other.rank ? rank > other.rank : index < other.index; }
  };
  std::vector<Entry> entries(count);
  for (int64_t n = 0; n < count; ++n) entries[n] = {Rank(scores[n]), n};
  std::sort(entries.begin(), entries.end());
  for (int64_t n = 0; n < count; ++n) order[n] = entries[n].index;
}

namespace cpu {

int64_t Suppress(const Nms& nms, int64_t* kept) {
  const MeetsFunction meets = Choose();
  std::unordered_map<int64_t, Kept> classes;
  int64_t count = 0;
  for (int64_t n = 0; n < nms.count && count < nms.limit; ++n) {
    const int64_t candidate = nms.order[n];
    const float* box = nms.boxes + candidate * 4;
    Kept& rivals = classes[nms.classes ? nms.classes[candidate] : 0];
    if (meets(rivals, box, nms.threshold)) continue;
    rivals.Add(box);
    kept[count++] = candidate;
  }
  return count;
}

}  // namespace cpu
}  // namespace fgfast
