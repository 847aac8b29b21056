// Loops shared out to threads: OpenMP's where there is OpenMP, else one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fgfast {

// The most threads that are started, whatever a caller allows: OpenMP ends the process where the system has no more.
constexpr int64_t kMostThreads = 1024;

// How many of `allowed` threads are worth starting for `shares` shares of work.
inline int ThreadsFor(int64_t shares, int allowed) {
  return static_cast<int>(std::clamp<int64_t>(shares, 1, std::clamp<int64_t>(allowed, 1, kMostThreads)));
}

// Calls body(task, thread) for each task; thread is 0 to threads - 1. What one of them throws is thrown here once all
// are over: out of a thread it would end the process.
template <class Body>
void ForEachTask(int64_t tasks, int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > 1 && tasks > 1) {
    std::exception_ptr thrown;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task) {
      try {
        body(task, omp_get_thread_num());
      } catch (...) {
#pragma omp critical(fgfast_thrown)
        if (!thrown) thrown = std::current_exception();
      }
    }
    if (thrown) std::rethrow_exception(thrown);
    return;
  }
#endif
  (void)threads;
  for (int64_t task = 0; task < tasks; ++task) body(task, 0);
}

}  // namespace fgfast
