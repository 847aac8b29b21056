// Compares a kernel, run on the host, with the op for the CPU: `compare OP CASES`. It stops at the first case that
// differs and prints the number of those before it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "fgfast/composite.h"
#include "fgfast/mask_post.h"
#include "fgfast/nms.h"

namespace {

using namespace fgfast;

const Place kGpu{true, 0, nullptr};

using Random = std::mt19937;

int64_t Between(Random& random, int64_t least, int64_t most) {
  return least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1));
}

std::vector<uint8_t> Bytes(Random& random, int64_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// SAM's own sizes for a square of 1024 or 256 pixels; the first two are those of real images.
MaskSizes SizesOf(int n, Random& random) {
  const int64_t low = n < 2 ? 256 : n % 3 ? 64 : 33 + n, side = 4 * low;
  const int64_t height = n == 0 ? 375 : n == 1 ? 500 : Between(random, 1, 200);
  const int64_t width = n == 0 ? 500 : n == 1 ? 333 : Between(random, 1, 300);
  const double scale = static_cast<double>(side) / static_cast<double>(std::max(height, width));
  const auto resized = [&](int64_t edge) { return std::max<int64_t>(1, static_cast<int64_t>(edge * scale + 0.5)); };
  return {low, side, resized(height), resized(width), height, width};
}

bool MaskPostDiffers(int n, Random& random) {
  const MaskSizes sizes = SizesOf(n, random);
  const int64_t count = n < 2 ? 1 : Between(random, 1, 3), pixels = count * sizes.height * sizes.width;
  std::normal_distribution<float> normal(n % 5 == 4 ? -30.0f : 0.0f, 4.0f);  // -30: empty masks
  std::vector<float> logits(count * sizes.low * sizes.low);
  for (float& logit : logits) logit = normal(random);
  if (n % 7 == 3) logits[logits.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  if (n % 7 == 5) logits[logits.size() / 2] = std::numeric_limits<float>::infinity();
  std::vector<uint8_t> wanted(pixels, 7), found(pixels, 9);
  std::vector<int64_t> wanted_facts(count * kMaskFacts, -1), found_facts(count * kMaskFacts, -2);
  cpu::MaskPost(logits.data(), count, sizes, 1, wanted.data(), wanted_facts.data());
  cuda::MaskPost(logits.data(), count, sizes, kGpu, found.data(), found_facts.data());
  return wanted != found || wanted_facts != found_facts;
}

std::vector<float> Boxes(int n, int64_t count, Random& random) {
  std::uniform_real_distribution<float> edge(0.0f, 40.0f), corner(0.0f, 60.0f);
  std::vector<float> boxes(count * 4);
  for (int64_t box = 0; box < count; ++box) {
    float* at = &boxes[box * 4];
    at[0] = corner(random), at[1] = corner(random);
    at[2] = at[0] + edge(random) - (n % 4 == 0 ? 5.0f : 0.0f);  // some of negative width
    at[3] = at[1] + edge(random);
  }
  if (count > 3 && n % 6 == 0) {
    boxes[5] = std::numeric_limits<float>::quiet_NaN();
    boxes[8] = std::numeric_limits<float>::infinity();
  }
  return boxes;
}

// Cases 0 and 1 have the number of boxes that Detic has; n % 50 == 7 an order that names no box.
bool NmsDiffers(int n, Random& random) {
  const int64_t count = n < 2 ? 3350 : n < 6 ? n - 1 : Between(random, 1, 900);
  const std::vector<float> boxes = Boxes(n, count, random);
  std::vector<float> scores(count);
  std::uniform_real_distribution<float> score(0.0f, 1.0f);
  for (float& value : scores) value = n % 3 ? score(random) : std::round(score(random) * 10);  // many are equal
  std::vector<int64_t> classes(count), order(count);
  for (int64_t& value : classes) value = n % 2 ? Between(random, 0, 2) : 0;
  OrderByScore(scores.data(), count, order.data());
  const int64_t limit = n < 2 ? 256 : n % 5 == 0 ? 0 : Between(random, 1, count);
  const bool wrong = n % 50 == 7;
  if (wrong) order[count / 2] = count;
  const Nms nms{boxes.data(), order.data(), classes.data(), count, n % 2 ? 0.5f : 0.9f, limit};
  std::vector<int64_t> wanted(limit, -1), found(limit, -1);
  const int64_t wanted_count = wrong ? kWrongOrder : cpu::Suppress(nms, wanted.data());
  int64_t found_count = -2;
  std::vector<uint64_t> workspace(count * NmsWords(count), ~uint64_t{0});
  cuda::Suppress(nms, kGpu, workspace.data(), found.data(), &found_count);
  return wanted_count != found_count || wanted != found;
}

bool CompositeDiffers(int n, Random& random) {
  const int64_t height = Between(random, 1, 90), width = Between(random, 1, 90);
  const std::vector<uint8_t> pixels = Bytes(random, height * width * 3);
  std::vector<uint8_t> bits = Bytes(random, height * width);
  for (uint8_t& bit : bits) bit &= 1;
  const Window window{Between(random, -30, 29), Between(random, -30, 29), Between(random, 1, 100),
                      Between(random, 1, 100)};
  const bool colour = n % 2;
  const std::vector<uint8_t> background = Bytes(random, (colour ? 1 : window.height) * window.width * 3);
  const int64_t stride = colour ? 0 : window.width * 3, area = window.height * window.width;
  const MaskedImage image{pixels.data(), bits.data(), height, width};
  std::vector<uint8_t> wanted(area * 3, 1), found(area * 3, 2), wanted_alpha(area * 4, 3), found_alpha(area * 4, 4);
  cpu::Composite(image, window, background.data(), stride, wanted.data());
  cuda::Composite(image, window, background.data(), stride, kGpu, found.data());
  cpu::CompositeAlpha(image, window, wanted_alpha.data());
  cuda::CompositeAlpha(image, window, kGpu, found_alpha.data());
  return wanted != found || wanted_alpha != found_alpha;
}

struct Op {
  const char* name;
  bool (*differs)(int, Random&);
};

constexpr Op kOps[] = {{"mask_post", MaskPostDiffers}, {"nms", NmsDiffers}, {"composite", CompositeDiffers}};

}  // namespace

int main(int count, char** arguments) {
  for (const Op& op : kOps) {
    if (count != 3 || std::strcmp(arguments[1], op.name)) continue;
    const int cases = std::atoi(arguments[2]);
    int equal = 0;
    for (int n = 0; n < cases && equal == n; ++n) {
      Random random(n);
      equal += !op.differs(n, random);
    }
    if (equal < cases) std::fprintf(stderr, "%s: case %d differs\n", op.name, equal);
    std::printf("%d\n", equal);
    return 0;
  }
  std::fputs("usage: compare mask_post|nms|composite CASES\n", stderr);
  return 2;
}
