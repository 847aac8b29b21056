#include "fgfast/composite.h"

#include <limits>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

using Pixels = Array<const uint8_t, 3>;
using Bits = Array<const bool, 2>;
using Out = Array<uint8_t, 3>;

MaskedImage ImageOf(const Pixels& pixels, const Bits& bits) {
  RequireShape(pixels, {'H', 'W', 3});
  RequireShape(bits, {pixels.shape(0), pixels.shape(1)});
  return {pixels.data(), Bytes(bits), pixels.shape(0), pixels.shape(1)};
}

Window WindowOf(nb::handle x0, nb::handle y0, const Out& out, int channels) {
  constexpr int64_t kFar = std::numeric_limits<int32_t>::max();
  RequireShape(out, {'h', 'w', channels});
  return {Integer("x0", x0, -kFar, kFar), Integer("y0", y0, -kFar, kFar), out.shape(0), out.shape(1)};
}

void Composite(nb::handle pixels_, nb::handle bits_, nb::handle background_, nb::handle x0, nb::handle y0,
               nb::handle out_, nb::handle stream) {
  const Pixels pixels("pixels", pixels_), background("background", background_);
  const Bits bits("bits", bits_);
  const Out out("out", out_);
  const MaskedImage image = ImageOf(pixels, bits);
  const Window window = WindowOf(x0, y0, out, 3);
  const bool one_row = background.shape(0) == 1;
  RequireShape(background, {one_row ? 1 : window.height, window.width, 3});
  RequireApart({out}, {pixels, bits, background});
  const Place place = PlaceOf({pixels, bits, background, out}, stream);
  nb::gil_scoped_release release;
  fgfast::Composite(image, window, background.data(), one_row ? 0 : window.width * 3, place, out.data());
}

void CompositeAlpha(nb::handle pixels_, nb::handle bits_, nb::handle x0, nb::handle y0, nb::handle out_,
                    nb::handle stream) {
  const Pixels pixels("pixels", pixels_);
  const Bits bits("bits", bits_);
  const Out out("out", out_);
  const MaskedImage image = ImageOf(pixels, bits);
  const Window window = WindowOf(x0, y0, out, 4);
  RequireApart({out}, {pixels, bits});
  const Place place = PlaceOf({pixels, bits, out}, stream);
  nb::gil_scoped_release release;
  fgfast::CompositeAlpha(image, window, place, out.data());
}

}  // namespace

void AddComposite(nb::module_& module) {
  module.def("composite", &Composite, "pixels"_a.none(), "bits"_a.none(), "background"_a.none(), "x0"_a.none(),
             "y0"_a.none(), "out"_a.none(), "stream"_a.none() = 0,
             "Fill out (h, w, 3) with the window at (x0, y0); background is "
             "(1, w, 3) or (h, w, 3).");
  module.def("composite_alpha", &CompositeAlpha, "pixels"_a.none(), "bits"_a.none(), "x0"_a.none(), "y0"_a.none(),
             "out"_a.none(), "stream"_a.none() = 0, "Fill out (h, w, 4) with the window at (x0, y0).");
}

}  // namespace fgfast::bindings
