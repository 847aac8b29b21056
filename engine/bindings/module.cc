// fgfast._native: the native ops. They take arrays that fgfast.ops has checked, and release the GIL while they work.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "arrays.h"
#include "fgfast/attention.h"
#include "fgfast/composite.h"
#include "fgfast/rle.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace {

using fgfast::Place;
using fgfast::bindings::Array;
using fgfast::bindings::Bytes;
using fgfast::bindings::DeviceArray;
using fgfast::bindings::PlaceOf;
using fgfast::bindings::Require;

fgfast::MaskedImage Image(const DeviceArray<const uint8_t, 3>& pixels, const DeviceArray<const bool, 2>& bits) {
  Require(pixels.shape(2) == 3, "pixels must be (H, W, 3)");
  Require(bits.shape(0) == pixels.shape(0) && bits.shape(1) == pixels.shape(1), "bits must be (H, W)");
  return {pixels.data(), Bytes(bits), static_cast<int64_t>(pixels.shape(0)), static_cast<int64_t>(pixels.shape(1))};
}

fgfast::Window At(int32_t x0, int32_t y0, const DeviceArray<uint8_t, 3>& out, size_t channels) {
  Require(out.shape(2) == channels, "out must be (h, w, 3), or (h, w, 4) with alpha");
  return {x0, y0, static_cast<int64_t>(out.shape(0)), static_cast<int64_t>(out.shape(1))};
}

void Composite(const DeviceArray<const uint8_t, 3>& pixels, const DeviceArray<const bool, 2>& bits,
               const DeviceArray<const uint8_t, 3>& background, int32_t x0, int32_t y0,
               const DeviceArray<uint8_t, 3>& out, uintptr_t stream) {
  const fgfast::MaskedImage image = Image(pixels, bits);
  const fgfast::Window window = At(x0, y0, out, 3);
  const bool one_row = background.shape(0) == 1;
  Require((one_row || background.shape(0) == out.shape(0)) && background.shape(1) == out.shape(1) &&
              background.shape(2) == 3,
          "background must be (1, w, 3) or (h, w, 3)");
  const Place place = PlaceOf({pixels, bits, background, out}, stream);
  nb::gil_scoped_release release;
  fgfast::Composite(image, window, background.data(), one_row ? 0 : window.width * 3, place, out.data());
}

void CompositeAlpha(const DeviceArray<const uint8_t, 3>& pixels, const DeviceArray<const bool, 2>& bits, int32_t x0,
                    int32_t y0, const DeviceArray<uint8_t, 3>& out, uintptr_t stream) {
  const fgfast::MaskedImage image = Image(pixels, bits);
  const fgfast::Window window = At(x0, y0, out, 4);
  const Place place = PlaceOf({pixels, bits, out}, stream);
  nb::gil_scoped_release release;
  fgfast::CompositeAlpha(image, window, place, out.data());
}

nb::bytes RleEncode(const Array<const bool, 2>& bits) {
  std::string counts;
  {
    nb::gil_scoped_release release;
    counts = fgfast::RleEncode(Bytes(bits), bits.shape(0), bits.shape(1));
  }
  return nb::bytes(counts.data(), counts.size());
}

nb::ndarray<nb::numpy, bool, nb::ndim<2>> RleDecode(const nb::bytes& counts, int32_t height, int32_t width) {
  Require(height >= 0 && width >= 0, "height and width must not be negative");
  const std::string_view text(counts.c_str(), counts.size());
  // Allocated only once the runs are known to be right: a damaged string costs no memory.
  std::unique_ptr<uint8_t, decltype(&std::free)> bits(nullptr, &std::free);
  {
    nb::gil_scoped_release release;
    const std::vector<int64_t> runs = fgfast::RleRuns(text, height, width);
    const size_t size = static_cast<size_t>(height) * static_cast<size_t>(width);
    bits.reset(static_cast<uint8_t*>(std::calloc(std::max<size_t>(size, 1), 1)));
    if (!bits) throw std::bad_alloc();
    fgfast::RleDraw(runs, height, width, bits.get());
  }
  uint8_t* data = bits.release();
  const nb::capsule owner(data, [](void* memory) noexcept { std::free(memory); });
  return {reinterpret_cast<bool*>(data), {static_cast<size_t>(height), static_cast<size_t>(width)}, owner};
}

using Heads = Array<const float, 4>;
using Table = Array<const float, 2>;

bool Attends(int64_t size) { return size > 0 && size % fgfast::kAttentionStep == 0 && fgfast::AttendsHere(); }

void Attend(const Heads& q, const Heads& k, const Heads& v, const Table& rel_pos_h, const Table& rel_pos_w,
            const Array<const int64_t, 2>& token_at, const Table& padding_k, const Table& padding_v, int32_t side,
            int32_t threads, const Array<float, 4>& out) {
  for (size_t axis = 0; axis < 4; ++axis) {
    const size_t length = q.shape(axis);
    Require(k.shape(axis) == length && v.shape(axis) == length && out.shape(axis) == length,
            "q, k, v and out must be (B, T, H, D)");
  }
  const int64_t size = static_cast<int64_t>(q.shape(3)), tokens = static_cast<int64_t>(q.shape(1));
  Require(Attends(size), "attention is not for this processor or size of heads");
  Require(side > 0 && threads > 0, "side and threads must be at least 1");
  const size_t places = static_cast<size_t>(side) * static_cast<size_t>(side);
  for (const Table& table : {rel_pos_h, rel_pos_w}) {
    Require(table.shape(0) == 2 * static_cast<size_t>(side) - 1 && table.shape(1) == q.shape(3),
            "rel_pos must be (2 side - 1, D)");
  }
  for (const Table& row : {padding_k, padding_v}) {
    Require(row.shape(0) == q.shape(2) && row.shape(1) == q.shape(3), "padding must be (H, D)");
  }
  Require(token_at.shape(1) == places, "token_at must be (W, side * side)");
  const bool inside = std::all_of(token_at.data(), token_at.data() + token_at.size(),
                                  [tokens](int64_t token) { return token >= 0 && token <= tokens; });
  Require(inside, "token_at must be 0 to T");
  nb::gil_scoped_release release;
  fgfast::Attend({q.data(), k.data(), v.data(), rel_pos_h.data(), rel_pos_w.data(), token_at.data(), padding_k.data(),
                  padding_v.data(), static_cast<int64_t>(q.shape(0)), tokens, static_cast<int64_t>(q.shape(2)), size,
                  static_cast<int64_t>(token_at.shape(0)), side},
                 threads, out.data());
}

}  // namespace

NB_MODULE(_native, module) {
  module.def("has_cuda", &fgfast::HasCuda, "Whether this build has the ops for CUDA.");
  fgfast::bindings::AddMaskPost(module);
  fgfast::bindings::AddNms(module);
  fgfast::bindings::AddResize(module);
  module.def("attends", &Attends, "size"_a, "Whether `attend` is for this build, processor and size of heads.");
  module.def("attend", &Attend, "q"_a.noconvert(), "k"_a.noconvert(), "v"_a.noconvert(), "rel_pos_h"_a.noconvert(),
             "rel_pos_w"_a.noconvert(), "token_at"_a.noconvert(), "padding_k"_a.noconvert(), "padding_v"_a.noconvert(),
             "side"_a, "threads"_a, "out"_a.noconvert(), "Fill out (B, T, H, D) with attention within windows.");
  module.def("composite", &Composite, "pixels"_a.noconvert(), "bits"_a.noconvert(), "background"_a.noconvert(), "x0"_a,
             "y0"_a, "out"_a.noconvert(), "stream"_a = 0,
             "Fill out (h, w, 3) with the window at (x0, y0); background is "
             "(1, w, 3) or (h, w, 3).");
  module.def("composite_alpha", &CompositeAlpha, "pixels"_a.noconvert(), "bits"_a.noconvert(), "x0"_a, "y0"_a,
             "out"_a.noconvert(), "stream"_a = 0, "Fill out (h, w, 4) with the window at (x0, y0).");
  module.def("rle_encode", &RleEncode, "bits"_a.noconvert(), "COCO run-length string of bits (H, W).");
  module.def("rle_decode", &RleDecode, "counts"_a, "height"_a, "width"_a,
             "The mask (height, width) of a COCO run-length string; ValueError "
             "where it does not fit.");
}
