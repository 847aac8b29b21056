#include "fgfast/contrast.h"

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

void ColourContrast(nb::handle lab_, nb::handle bits_, nb::handle out_) {
  const CpuArray<const uint8_t, 3> lab("lab", lab_);
  const CpuArray<const bool, 2> bits("bits", bits_);
  const CpuArray<double, 1> out("out", out_);
  RequireShape(lab, {'H', 'W', 3});
  RequireShape(bits, {lab.shape(0), lab.shape(1)});
  RequireShape(out, {kContrastNumbers});
  RequireLengths(lab, 0, 1, kMostContrastSide);
  Require(bits.size() <= kMostContrastPixels, "bits must have at most 1048576 pixels");
  RequireApart({out}, {lab, bits});
  nb::gil_scoped_release release;
  fgfast::ColourContrast({lab.data(), Bytes(bits), lab.shape(0), lab.shape(1)}, out.data());
}

}  // namespace

void AddContrast(nb::module_& module) {
  module.def("colour_contrast", &ColourContrast, "lab"_a.none(), "bits"_a.none(), "out"_a.none(),
             "Fill out (4,) with how alike the colours of a mask and its surroundings are; NaN without enough pixels.");
}

}  // namespace fgfast::bindings
