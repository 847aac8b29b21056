// fgfast._native: the native ops. Each checks its arguments (arguments.h), then releases the GIL while it works.
#include <nanobind/stl/string.h>

#include <limits>

#include "arguments.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

std::string CudaRefusal(nb::handle device_) {
  const int64_t device = Integer("device", device_, 0, std::numeric_limits<int32_t>::max());
  nb::gil_scoped_release release;
  return fgfast::CudaRefusal(static_cast<int>(device));
}

}  // namespace
}  // namespace fgfast::bindings

NB_MODULE(_native, module) {
  module.def("has_cuda", &fgfast::HasCuda, "Whether this build has the ops for CUDA.");
  module.def("cuda_refusal", &fgfast::bindings::CudaRefusal, "device"_a.none(),
             "Why the ops for CUDA cannot run on a device, in CUDA's words; empty where they can.");
  fgfast::bindings::AddArea(module);
  fgfast::bindings::AddAttention(module);
  fgfast::bindings::AddComposite(module);
  fgfast::bindings::AddContrast(module);
  fgfast::bindings::AddMaskPost(module);
  fgfast::bindings::AddNms(module);
  fgfast::bindings::AddOutline(module);
  fgfast::bindings::AddParts(module);
  fgfast::bindings::AddResize(module);
  fgfast::bindings::AddRle(module);
}
