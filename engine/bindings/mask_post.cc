#include "fgfast/mask_post.h"

#include <limits>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

void MaskPost(nb::handle logits_, nb::handle side_, nb::handle resized_height, nb::handle resized_width,
              nb::handle bits_, nb::handle facts_, nb::handle threads_, nb::handle stream) {
  const Array<const float, 3> logits("logits", logits_);
  const Array<bool, 3> bits("bits", bits_);
  const Array<int64_t, 2> facts("facts", facts_);
  const int64_t count = logits.shape(0), low = logits.shape(1), side = Integer("side", side_, 1, kMostLogits);
  RequireShape(logits, {'N', low, low});
  RequireShape(bits, {count, 'H', 'W'});
  RequireShape(facts, {count, kMaskFacts});
  RequireLengths(logits, 1, 2, kMostLogits);
  RequireLengths(bits, 1, 2, kMostLogits);
  const MaskSizes sizes{low,
                        side,
                        Integer("resized_height", resized_height, 1, side),
                        Integer("resized_width", resized_width, 1, side),
                        bits.shape(1),
                        bits.shape(2)};
  const int64_t threads = Integer("threads", threads_, 1, std::numeric_limits<int32_t>::max());
  RequireApart({bits, facts}, {logits});
  const Place place = PlaceOf({logits, bits, facts}, stream);
  nb::gil_scoped_release release;
  fgfast::MaskPost(logits.data(), count, sizes, place, static_cast<int>(threads),
                   reinterpret_cast<uint8_t*>(bits.data()), facts.data());
}

}  // namespace

void AddMaskPost(nb::module_& module) {
  module.def("mask_post", &MaskPost, "logits"_a.none(), "side"_a.none(), "resized_height"_a.none(),
             "resized_width"_a.none(), "bits"_a.none(), "facts"_a.none(), "threads"_a.none() = 1, "stream"_a.none() = 0,
             "Fill bits (N, H, W) and facts (N, 7: x0 y0 x1 y1, pixels above "
             "0, 1, -1) from logits (N, s, s).");
}

}  // namespace fgfast::bindings
