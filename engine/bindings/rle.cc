#include "fgfast/rle.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

nb::bytes Encode(nb::handle bits_) {
  const CpuArray<const bool, 2> bits("bits", bits_);
  std::string counts;
  {
    nb::gil_scoped_release release;
    counts = RleEncode(Bytes(bits), bits.shape(0), bits.shape(1));
  }
  return nb::bytes(counts.data(), counts.size());
}

nb::ndarray<nb::numpy, bool, nb::ndim<2>> Decode(nb::handle counts_, nb::handle height_, nb::handle width_) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (!nb::isinstance<nb::bytes>(counts_)) {
    RefuseType("counts must be bytes, not " + TypeOf(counts_));
  }
  const nb::bytes counts = nb::borrow<nb::bytes>(counts_);
  const int64_t height = Integer("height", height_, 0, kMost), width = Integer("width", width_, 0, kMost);
  const std::string_view text(counts.c_str(), counts.size());
  // Allocated only once the runs are known to be right: a damaged string costs no memory.
  std::unique_ptr<uint8_t, decltype(&std::free)> bits(nullptr, &std::free);
  {
    nb::gil_scoped_release release;
    const std::vector<int64_t> runs = RleRuns(text, height, width);
    const size_t size = static_cast<size_t>(height) * static_cast<size_t>(width);
    bits.reset(static_cast<uint8_t*>(std::calloc(std::max<size_t>(size, 1), 1)));
    if (!bits) throw std::bad_alloc();
    RleDraw(runs, height, width, bits.get());
  }
  const nb::capsule owner(bits.get(), [](void* memory) noexcept { std::free(memory); });
  bool* data = reinterpret_cast<bool*>(bits.release());
  return {data, {static_cast<size_t>(height), static_cast<size_t>(width)}, owner};
}

}  // namespace

void AddRle(nb::module_& module) {
  module.def("rle_encode", &Encode, "bits"_a.none(), "COCO run-length string of bits (H, W).");
  module.def("rle_decode", &Decode, "counts"_a.none(), "height"_a.none(), "width"_a.none(),
             "The mask (height, width) of a COCO run-length string; ValueError "
             "where it does not fit.");
}

}  // namespace fgfast::bindings
