// Loops shared out to threads: OpenMP's where there is OpenMP, else one.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fgfast {

// Calls body(task, thread) for each task; thread is 0 to threads - 1. Nothing may be thrown.
template <class Body>
void ForEachTask(int64_t tasks, int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > 1 && tasks > 1) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
    return;
  }
#endif
  (void)threads;
  for (int64_t task = 0; task < tasks; ++task) body(task, 0);
}

}  // namespace fgfast
