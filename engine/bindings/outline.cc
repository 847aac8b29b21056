#include "fgfast/outline.h"

#include <algorithm>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

int64_t OutlineEdges(nb::handle lab_, nb::handle bits_, nb::handle outline_, nb::handle out_) {
  const CpuArray<const uint8_t, 3> lab("lab", lab_);
  const CpuArray<const bool, 2> bits("bits", bits_), outline("outline", outline_);
  const CpuArray<int64_t, 2> out("out", out_);
  RequireShape(lab, {'H', 'W', 3});
  RequireShape(bits, {lab.shape(0), lab.shape(1)});
  RequireShape(outline, {lab.shape(0), lab.shape(1)});
  RequireLengths(lab, 0, 1, kMostOutlineSide);
  Require(bits.size() <= kMostOutlinePixels, "bits must have at most 1048576 pixels");
  const uint8_t* asked = Bytes(outline);
  const int64_t count = std::count_if(asked, asked + outline.size(), [](uint8_t byte) { return byte != 0; });
  RequireShape(out, {2, count});
  RequireApart({out}, {lab, bits, outline});
  int64_t near;
  {
    nb::gil_scoped_release release;
    near = fgfast::OutlineEdges({lab.data(), Bytes(bits), asked, lab.shape(0), lab.shape(1)}, out.data(),
                                out.data() + count);
  }
  Require(near >= 0, "outline must be part of bits");
  return near;
}

}  // namespace

void AddOutline(nb::module_& module) {
  module.def("outline_edges", &OutlineEdges, "lab"_a.none(), "bits"_a.none(), "outline"_a.none(), "out"_a.none(),
             "Fill out (2, N), for each of the N pixels of outline, with the number of pixels near bits whose edge is "
             "weaker, and of those whose is not stronger. How many are near.");
}

}  // namespace fgfast::bindings
