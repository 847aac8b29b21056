// fgfast._native: the native ops. Each checks its arguments (arguments.h), then releases the GIL while it works.
#include "arguments.h"

NB_MODULE(_native, module) {
  module.def("has_cuda", &fgfast::HasCuda, "Whether this build has the ops for CUDA.");
  fgfast::bindings::AddAttention(module);
  fgfast::bindings::AddComposite(module);
  fgfast::bindings::AddMaskPost(module);
  fgfast::bindings::AddNms(module);
  fgfast::bindings::AddResize(module);
  fgfast::bindings::AddRle(module);
}
