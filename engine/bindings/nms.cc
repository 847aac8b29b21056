#include "fgfast/nms.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

float ThresholdOf(nb::handle threshold) { return static_cast<float>(Number("threshold", threshold, 0, 1)); }

nb::ndarray<nb::numpy, int64_t, nb::ndim<1>> Suppress(nb::handle boxes_, nb::handle scores_, nb::handle classes_,
                                                      nb::handle threshold_, nb::handle limit_) {
  const CpuArray<const float, 2> boxes("boxes", boxes_);
  const CpuArray<const float, 1> scores("scores", scores_);
  std::optional<CpuArray<const int64_t, 1>> classes;
  if (!classes_.is_none()) classes.emplace("classes", classes_);
  const int64_t count = boxes.shape(0);
  RequireShape(boxes, {'N', 4});
  RequireShape(scores, {count});
  if (classes) RequireShape(*classes, {count});
  const float threshold = ThresholdOf(threshold_);
  const int64_t limit = std::min(Integer("limit", limit_, 0, std::numeric_limits<int64_t>::max()), count);
  auto kept = std::make_unique<std::vector<int64_t>>();
  {
    nb::gil_scoped_release release;
    std::vector<int64_t> order(count);
    OrderByScore(scores.data(), count, order.data());
    kept->resize(limit);
    // The order is right: it was made here.
    kept->resize(cpu::Suppress(
        {boxes.data(), order.data(), classes ? classes->data() : nullptr, count, threshold, limit}, kept->data()));
  }
  const size_t found = kept->size();
  int64_t* data = kept->data();
  const nb::capsule owner(kept.get(), [](void* memory) noexcept { delete static_cast<std::vector<int64_t>*>(memory); });
  kept.release();
  return {data, {found}, owner};
}

void SuppressOrdered(nb::handle boxes_, nb::handle order_, nb::handle classes_, nb::handle threshold_,
                     nb::handle workspace_, nb::handle kept_, nb::handle kept_count_, nb::handle stream) {
  const Array<const float, 2> boxes("boxes", boxes_);
  const Array<const int64_t, 1> order("order", order_), classes("classes", classes_);
  const Array<int64_t, 2> workspace("workspace", workspace_);
  const Array<int64_t, 1> kept("kept", kept_), kept_count("kept_count", kept_count_);
  const int64_t count = boxes.shape(0), limit = kept.shape(0);
  RequireShape(boxes, {'N', 4});
  RequireShape(order, {count});
  RequireShape(classes, {count});
  const float threshold = ThresholdOf(threshold_);
  RequireShape(workspace, {count, NmsWords(count)});
  if (limit > count) RequireShape(kept, {count});
  RequireShape(kept_count, {1});
  RequireApart({workspace, kept, kept_count}, {boxes, order, classes});
  const Place place = PlaceOf({boxes, order, classes, workspace, kept, kept_count}, stream);
  nb::gil_scoped_release release;
  fgfast::Suppress({boxes.data(), order.data(), classes.data(), count, threshold, limit}, place,
                   reinterpret_cast<uint64_t*>(workspace.data()), kept.data(), kept_count.data());
}

}  // namespace

void AddNms(nb::module_& module) {
  module.def("nms", &Suppress, "boxes"_a.none(), "scores"_a.none(), "classes"_a.none(), "threshold"_a.none(),
             "limit"_a.none(), "The boxes (N, 4) that are kept, best first: (K,) int64.");
  module.def("nms_ordered", &SuppressOrdered, "boxes"_a.none(), "order"_a.none(), "classes"_a.none(),
             "threshold"_a.none(), "workspace"_a.none(), "kept"_a.none(), "kept_count"_a.none(), "stream"_a.none() = 0,
             "The same, given the order, on any device; fills kept (limit,) "
             "and kept_count (1,).");
}

}  // namespace fgfast::bindings
