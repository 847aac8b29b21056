// Where an op's arrays lie, and so where it works.
#pragma once

#include <cstdint>
#include <string>

// Functions of host and device; plain ones for a compiler that knows no CUDA.
#ifdef __CUDACC__
#define FGFAST_BOTH __host__ __device__
#else
#define FGFAST_BOTH
#endif

namespace fgfast {

// A device, and for CUDA the stream to work on: a cudaStream_t, null for the default one. Ops return once their work is
// in the stream; what they wrote is there when the stream has got there. On the CPU they return when they are done.
struct Place {
  bool cuda = false;
  int device = 0;  // CUDA's number of it
  void* stream = nullptr;
};

// Whether this build has the ops for CUDA (FGFAST_CUDA in CMakeLists.txt).
bool HasCuda();

// Why the ops for CUDA cannot run on the device of this number, in CUDA's words: code for its architecture is missing,
// the driver is too old, ...; empty where they can. It creates a context on the device; errors of the caller's stay.
std::string CudaRefusal(int device);

// Throws std::invalid_argument for arrays on a GPU in a build without CUDA.
[[noreturn]] void RefuseCuda();

namespace cuda {
std::string Refusal(int device);
}

}  // namespace fgfast
