#include "fgfast/resize.h"

#include "arrays.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

// Rows may lie apart: `out` may be part of a larger image.
using Part = nb::ndarray<uint8_t, nb::ndim<3>, nb::device::cpu>;

void ResizeInto(const Array<const uint8_t, 3>& pixels, const Part& out, bool down_first, int threads) {
  for (size_t axis = 0; axis < 2; ++axis) {
    Require(pixels.shape(axis) >= 1 && pixels.shape(axis) <= static_cast<size_t>(kMostResized) &&
                out.shape(axis) >= 1 && out.shape(axis) <= static_cast<size_t>(kMostResized),
            "pixels and out must have 1 to 2^20 rows and columns");
  }
  Require(pixels.shape(2) == 3 && out.shape(2) == 3, "pixels and out must be (H, W, 3)");
  Require(out.stride(2) == 1 && out.stride(1) == 3 && out.stride(0) >= 3 * static_cast<int64_t>(out.shape(1)),
          "out must have its pixels side by side");
  Require(threads >= 1, "threads must be at least 1");
  nb::gil_scoped_release release;
  ResizeBilinear(
      {pixels.data(), static_cast<int64_t>(pixels.shape(0)), static_cast<int64_t>(pixels.shape(1)), out.data(),
       static_cast<int64_t>(out.shape(0)), static_cast<int64_t>(out.shape(1)), out.stride(0), down_first},
      threads);
}

}  // namespace

void AddResize(nb::module_& module) {
  module.def("resize", &ResizeInto, "pixels"_a.noconvert(), "out"_a.noconvert(), "down_first"_a, "threads"_a,
             "Fill out (h, w, 3), rows at any distance, with pixels (H, W, 3), resized as Pillow's BILINEAR does.");
}

}  // namespace fgfast::bindings
