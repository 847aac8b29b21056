// What the bindings share: arrays as Python hands them over, and the checks that guard the memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>

#include "fgfast/device.h"

namespace fgfast::bindings {

namespace nb = nanobind;

// On the CPU.
template <class T, int Dimensions>
using Array = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

// On the CPU or a GPU: NumPy arrays, and whatever else knows DLPack.
template <class T, int Dimensions>
using DeviceArray = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig>;

// The face (fgfast.ops) checks all of this with better messages; here it guards the memory against any other caller.
inline void Require(bool fits, const char* what) {
  if (!fits) throw std::invalid_argument(what);
}

struct Device {
  template <class T>
  Device(const T& array) : type(array.device_type()), id(array.device_id()) {}  // NOLINT: meant to be implicit
  int type;
  int id;
};

// Where the arrays are; `stream` is a cudaStream_t as a number.
inline Place PlaceOf(std::initializer_list<Device> arrays, uintptr_t stream) {
  const Device& first = *arrays.begin();
  for (const Device& device : arrays) {
    Require(device.type == first.type && device.id == first.id, "all arrays must be on the same device");
  }
  const bool cuda = first.type == nb::device::cuda::value;
  Require(cuda || first.type == nb::device::cpu::value, "arrays must be on the CPU or on a CUDA device");
  return {cuda, first.id, reinterpret_cast<void*>(stream)};
}

template <class T>
const uint8_t* Bytes(const T& bits) {
  return reinterpret_cast<const uint8_t*>(bits.data());
}

// What mask_post.cc, nms.cc and resize.cc add to the module.
void AddMaskPost(nb::module_& module);
void AddNms(nb::module_& module);
void AddResize(nb::module_& module);

}  // namespace fgfast::bindings
