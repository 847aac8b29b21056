#include "fgfast/parts.h"

#include <memory>
#include <utility>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

nb::tuple MaskParts(nb::handle bits_) {
  const CpuArray<const bool, 2> bits("bits", bits_);
  Require(bits.size() <= kMostPartsPixels, "bits must have at most 1073741824 pixels");
  std::unique_ptr<Parts> parts;
  {
    nb::gil_scoped_release release;
    parts = std::make_unique<Parts>(PartsOf(Bytes(bits), bits.shape(0), bits.shape(1)));
  }
  const size_t count = parts->areas.size();
  const int64_t enclosed = parts->enclosed;
  int64_t* data = parts->areas.data();
  const nb::capsule owner(parts.get(), [](void* memory) noexcept { delete static_cast<Parts*>(memory); });
  parts.release();
  return nb::make_tuple(nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>(data, {count}, owner), enclosed);
}

}  // namespace

void AddParts(nb::module_& module) {
  module.def("mask_parts", &MaskParts, "bits"_a.none(),
             "The pixels of each part of bits (H, W), the largest first, (P,) int64, and those that they enclose.");
}

}  // namespace fgfast::bindings
