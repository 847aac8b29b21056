// Stands for CUDA's header and runs kernels on the host: for test_cuda_on_host.py, which compiles the .cu files with
// it.
//
// Each thread of a block is a fiber. A fiber runs until its next barrier or its end, so one pass over all fibers is a
// barrier; blocks run one after another. Every second pass goes backwards: a thread that reads what another one writes
// in the same pass reads it too early in one of the two directions. What this cannot show: races between blocks, and
// what only the GPU's own arithmetic would do.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
// In a section of its own, whose bytes are overwritten before each block: nothing is left of the block before.
#define __shared__ static __attribute__((section("host_shared")))

// The linker's names for the section's two ends; weak, because a program may have no such memory.
extern "C" __attribute__((weak)) char __start_host_shared[];
extern "C" __attribute__((weak)) char __stop_host_shared[];

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};

using cudaStream_t = void*;
struct cudaFuncAttributes {};

// Some of CUDA's errors: numbers, names and texts as cudart 13.0 has them.
#define HOST_CUDA_ERRORS(ERROR)                                                                           \
  ERROR(cudaSuccess, 0, "no error")                                                                       \
  ERROR(cudaErrorInvalidValue, 1, "invalid argument")                                                     \
  ERROR(cudaErrorMemoryAllocation, 2, "out of memory")                                                    \
  ERROR(cudaErrorInsufficientDriver, 35, "CUDA driver version is insufficient for CUDA runtime version")  \
  ERROR(cudaErrorInvalidDeviceFunction, 98, "invalid device function")                                    \
  ERROR(cudaErrorNoKernelImageForDevice, 209, "no kernel image is available for execution on the device") \
  ERROR(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered")                         \
  ERROR(cudaErrorMisalignedAddress, 716, "misaligned address")                                            \
  ERROR(cudaErrorLaunchFailure, 719, "unspecified launch failure")

enum cudaError_t {
#define HOST_NUMBER(name, number, text) name = number,
  HOST_CUDA_ERRORS(HOST_NUMBER)
#undef HOST_NUMBER
};

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define HOST_NAME(name, number, text) \
  case name:                          \
    return #name;
    HOST_CUDA_ERRORS(HOST_NAME)
#undef HOST_NAME
  }
  return "unrecognized error code";
}

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define HOST_TEXT(name, number, text) \
  case name:                          \
    return text;
    HOST_CUDA_ERRORS(HOST_TEXT)
#undef HOST_TEXT
  }
  return "unrecognized error code";
}

namespace host {

// What loading a kernel's code finds: set by a test, because only a GPU can lack code.
inline cudaError_t loading = cudaSuccess;
inline thread_local cudaError_t last_error = cudaSuccess;

}  // namespace host

inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return std::exchange(host::last_error, cudaSuccess); }
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  return host::last_error = host::loading;
}

namespace host {

constexpr size_t kStack = 1 << 16;       // bytes of a fiber
constexpr unsigned kMostThreads = 1024;  // of a block, on any GPU

// A thread of a block, used again by later blocks. It must not move: a context holds its own address.
struct Fiber {
  char* stack;
  ucontext_t context;
  jmp_buf at;
  uint3 index;
  bool begun = false, over = true;
  unsigned votes[2], vote = 0;  // the last two votes, and the number of votes
};

inline Fiber* fibers = nullptr;
inline Fiber* running = nullptr;
inline ucontext_t scheduler_context;
inline jmp_buf scheduler;
inline void (*body)(const void*) = nullptr;  // calls the kernel, with its arguments in `call`
inline const void* call = nullptr;
inline dim3 grid, block;
inline uint3 block_index;
inline char* dynamic_shared = nullptr;

#ifdef __SANITIZE_ADDRESS__
// AddressSanitizer must be told which stack comes next; its swapcontext is slower but known to it.
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_size = 0;

inline void Arrive() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size); }
inline void Yield() {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
  swapcontext(&running->context, &scheduler_context);
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
}
inline void Resume(Fiber& fiber) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack, kStack);
  swapcontext(&scheduler_context, &fiber.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
#else
inline void Arrive() {}
// Not swapcontext, which asks the system for the signal mask at each switch.
inline void Yield() {
  if (!_setjmp(running->at)) _longjmp(scheduler, 1);
}
inline void Resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  if (std::exchange(fiber.begun, true)) _longjmp(fiber.at, 1);
  setcontext(&fiber.context);
}
#endif

inline void Entry() {
  Arrive();
  for (;;) {
    body(call);
    running->over = true;
    Yield();
  }
}

// They stay until the process ends.
inline void MakeFibers() {
  fibers = new Fiber[kMostThreads];
  for (unsigned n = 0; n < kMostThreads; ++n) {
    Fiber& fiber = fibers[n];
    fiber.stack = new char[kStack];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, Entry, 0);
  }
}

inline void RunBlock(unsigned count) {
  for (unsigned n = 0; n < count; ++n) {
    Fiber& fiber = fibers[n];
    fiber.index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
    fiber.over = false, fiber.vote = 0;
  }
  bool some = true;
  for (unsigned pass = 0; some; ++pass) {
    some = false;
    for (unsigned n = 0; n < count; ++n) {
      Fiber& fiber = fibers[pass % 2 ? count - 1 - n : n];
      if (fiber.over) continue;
      running = &fiber;
      Resume(fiber);
      some = some || !fiber.over;
    }
  }
}

inline void RunGrid(dim3 blocks, dim3 threads, size_t shared) {
  grid = blocks, block = threads;
  const unsigned count = block.x * block.y * block.z;
  if (count > kMostThreads) std::abort();
  if (!fibers) MakeFibers();
  // Exactly as long as asked for: AddressSanitizer sees the first byte behind it.
  dynamic_shared = new char[shared];
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        std::memset(dynamic_shared, 0xAB, shared);
        if (__start_host_shared) std::memset(__start_host_shared, 0xAB, __stop_host_shared - __start_host_shared);
        RunBlock(count);
      }
    }
  }
  delete[] dynamic_shared;
}

// kernel<<<grid, block, shared, stream>>>(...) is Launch(grid, block, shared, stream).Run([=] { kernel(...); }).
struct Launch {
  Launch(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t = nullptr) : grid(grid), block(block), shared(shared) {}

  template <class Kernel>
  void Run(const Kernel& kernel) const {
    call = &kernel;
    body = [](const void* kernel) { (*static_cast<const Kernel*>(kernel))(); };
    RunGrid(grid, block, shared);
  }

  dim3 grid, block;
  size_t shared;
};

}  // namespace host

#define threadIdx (host::running->index)
#define blockIdx (host::block_index)
#define blockDim (host::block)
#define gridDim (host::grid)

inline void __syncthreads() { host::Yield(); }

// A warp is 32 threads in a row. Votes are written before a barrier of the whole block, in which all threads vote, and
// read behind it; the next vote goes to another place, so no second barrier is needed.
inline unsigned __ballot_sync(unsigned, bool vote) {
  host::Fiber* self = host::running;
  const unsigned place = self->vote++ % 2;
  self->votes[place] = vote;
  host::Yield();
  const size_t first = (self - host::fibers) / 32 * 32;
  unsigned found = 0;
  for (size_t n = 0; n < 32; ++n) found |= host::fibers[first + n].votes[place] << n;
  return found;
}

inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }

template <class T>
T atomicMin(T* at, T value) {
  return value < *at ? std::exchange(*at, value) : *at;
}
template <class T>
T atomicMax(T* at, T value) {
  return value > *at ? std::exchange(*at, value) : *at;
}
template <class T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, *at + value);
}
