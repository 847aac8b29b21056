#include "fgfast/mask_post.h"

#include "arrays.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

void MaskPost(const DeviceArray<const float, 3>& logits, int64_t side, int64_t resized_height, int64_t resized_width,
              const DeviceArray<bool, 3>& bits, const DeviceArray<int64_t, 2>& facts, int threads, uintptr_t stream) {
  const size_t count = logits.shape(0);
  Require(logits.shape(1) == logits.shape(2), "logits must be (N, s, s)");
  Require(bits.shape(0) == count, "bits must be (N, H, W)");
  Require(facts.shape(0) == count && facts.shape(1) == kMaskFacts, "facts must be (N, 7)");
  const Place place = PlaceOf({logits, bits, facts}, stream);
  const MaskSizes sizes{
      static_cast<int64_t>(logits.shape(1)), side, resized_height, resized_width, static_cast<int64_t>(bits.shape(1)),
      static_cast<int64_t>(bits.shape(2))};
  nb::gil_scoped_release release;
  fgfast::MaskPost(logits.data(), static_cast<int64_t>(count), sizes, place, threads,
                   reinterpret_cast<uint8_t*>(bits.data()), facts.data());
}

}  // namespace

void AddMaskPost(nb::module_& module) {
  module.def("mask_post", &MaskPost, "logits"_a.noconvert(), "side"_a, "resized_height"_a, "resized_width"_a,
             "bits"_a.noconvert(), "facts"_a.noconvert(), "threads"_a = 1, "stream"_a = 0,
             "Fill bits (N, H, W) and facts (N, 7: x0 y0 x1 y1, pixels above "
             "0, 1, -1) from logits (N, s, s).");
}

}  // namespace fgfast::bindings
