#include "fgfast/nms.h"

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "arrays.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

using Classes = std::optional<Array<const int64_t, 1>>;

nb::ndarray<nb::numpy, int64_t, nb::ndim<1>> Suppress(const Array<const float, 2>& boxes,
                                                      const Array<const float, 1>& scores, const Classes& classes,
                                                      float threshold, int64_t limit) {
  const size_t count = boxes.shape(0);
  Require(boxes.shape(1) == 4, "boxes must be (N, 4)");
  Require(scores.shape(0) == count, "scores must be (N,)");
  Require(!classes || classes->shape(0) == count, "classes must be (N,)");
  auto kept = std::make_unique<std::vector<int64_t>>();
  {
    nb::gil_scoped_release release;
    std::vector<int64_t> order(count);
    OrderByScore(scores.data(), static_cast<int64_t>(count), order.data());
    kept->resize(std::clamp<int64_t>(limit, 0, static_cast<int64_t>(count)));
    int64_t found = 0;
    fgfast::Suppress({boxes.data(), order.data(), classes ? classes->data() : nullptr, static_cast<int64_t>(count),
                      threshold, limit},
                     {}, nullptr, kept->data(), &found);
    kept->resize(found);
  }
  const size_t found = kept->size();
  int64_t* data = kept->data();
  const nb::capsule owner(kept.release(),
                          [](void* memory) noexcept { delete static_cast<std::vector<int64_t>*>(memory); });
  return {data, {found}, owner};
}

void SuppressOrdered(const DeviceArray<const float, 2>& boxes, const DeviceArray<const int64_t, 1>& order,
                     const DeviceArray<const int64_t, 1>& classes, float threshold,
                     const DeviceArray<int64_t, 2>& workspace, const DeviceArray<int64_t, 1>& kept,
                     const DeviceArray<int64_t, 1>& kept_count, uintptr_t stream) {
  const size_t count = boxes.shape(0);
  Require(boxes.shape(1) == 4, "boxes must be (N, 4)");
  Require(order.shape(0) == count && classes.shape(0) == count, "order and classes must be (N,)");
  Require(workspace.shape(0) == count && static_cast<int64_t>(workspace.shape(1)) == NmsWords(count),
          "workspace must be (N, (N + 63) // 64)");
  Require(kept.shape(0) <= count, "kept must be (limit,), at most (N,)");
  Require(kept_count.shape(0) == 1, "kept_count must be (1,)");
  const Place place = PlaceOf({boxes, order, classes, workspace, kept, kept_count}, stream);
  nb::gil_scoped_release release;
  fgfast::Suppress({boxes.data(), order.data(), classes.data(), static_cast<int64_t>(count), threshold,
                    static_cast<int64_t>(kept.shape(0))},
                   place, reinterpret_cast<uint64_t*>(workspace.data()), kept.data(), kept_count.data());
}

}  // namespace

void AddNms(nb::module_& module) {
  module.def("nms", &Suppress, "boxes"_a.noconvert(), "scores"_a.noconvert(), "classes"_a.noconvert(), "threshold"_a,
             "limit"_a, "The boxes (N, 4) that are kept, best first: (K,) int64.");
  module.def("nms_ordered", &SuppressOrdered, "boxes"_a.noconvert(), "order"_a.noconvert(), "classes"_a.noconvert(),
             "threshold"_a, "workspace"_a.noconvert(), "kept"_a.noconvert(), "kept_count"_a.noconvert(), "stream"_a = 0,
             "The same, given the order, on any device; fills kept (limit,) "
             "and kept_count (1,).");
}

}  // namespace fgfast::bindings
