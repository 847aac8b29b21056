#include "fgfast/area.h"

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

// The result may not be larger than the image on either axis.
void RequireSmaller(const View& image, const View& out) {
  RequireLengths(image, 0, 1, kMostAveraged);
  for (int axis = 0; axis < 2; ++axis) RequireLengths(out, axis, axis, image.shape[axis]);
}

void AreaAveragePixels(nb::handle pixels_, nb::handle out_) {
  const CpuArray<const uint8_t, 3> pixels("pixels", pixels_);
  const CpuArray<uint8_t, 3> out("out", out_);
  RequireShape(pixels, {'H', 'W', 3});
  RequireShape(out, {'h', 'w', 3});
  RequireSmaller(pixels, out);
  RequireApart({out}, {pixels});
  nb::gil_scoped_release release;
  AreaAverage({pixels.data(), pixels.shape(0), pixels.shape(1), 3, out.data(), out.shape(0), out.shape(1)}, false);
}

void AreaAverageBits(nb::handle bits_, nb::handle out_) {
  const CpuArray<const bool, 2> bits("bits", bits_);
  const CpuArray<uint8_t, 2> out("out", out_);
  RequireSmaller(bits, out);
  RequireApart({out}, {bits});
  nb::gil_scoped_release release;
  AreaAverage({Bytes(bits), bits.shape(0), bits.shape(1), 1, out.data(), out.shape(0), out.shape(1)}, true);
}

}  // namespace

void AddArea(nb::module_& module) {
  module.def("area_average", &AreaAveragePixels, "pixels"_a.none(), "out"_a.none(),
             "Fill out (h, w, 3) with the averages of pixels (H, W, 3) over areas.");
  module.def("area_coverage", &AreaAverageBits, "bits"_a.none(), "out"_a.none(),
             "Fill out (h, w) with how much of each area is True in bits (H, W), 255 all of it.");
}

}  // namespace fgfast::bindings
