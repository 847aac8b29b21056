#include "fgfast/resize.h"

#include <limits>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

void ResizeInto(nb::handle pixels_, nb::handle out_, nb::handle down_first_, nb::handle threads_) {
  const CpuArray<const uint8_t, 3> pixels("pixels", pixels_);
  const CpuArray<uint8_t, 3> out("out", out_, Order::kRows);
  RequireShape(pixels, {'H', 'W', 3});
  RequireShape(out, {'h', 'w', 3});
  RequireLengths(pixels, 0, 1, kMostResized);
  RequireLengths(out, 0, 1, kMostResized);
  const bool down_first = Truth("down_first", down_first_);
  const int64_t threads = Integer("threads", threads_, 1, std::numeric_limits<int32_t>::max());
  RequireApart({out}, {pixels});
  nb::gil_scoped_release release;
  ResizeBilinear({pixels.data(), pixels.shape(0), pixels.shape(1), out.data(), out.shape(0), out.shape(1),
                  out.stride(0), down_first},
                 static_cast<int>(threads));
}

}  // namespace

void AddResize(nb::module_& module) {
  module.def("resize", &ResizeInto, "pixels"_a.none(), "out"_a.none(), "down_first"_a.none(), "threads"_a.none(),
             "Fill out (h, w, 3), rows at any distance, with pixels (H, W, 3), resized as Pillow's BILINEAR does.");
}

}  // namespace fgfast::bindings
