// What Python hands to an op, taken and checked once. fgfast._native may be called with anything by anybody: whatever
// an op relies on when it reads or writes memory is checked here, and the errors name the argument, its value and what
// is allowed. Not checked: that no other thread changes an array meanwhile (the GIL is released), that a foreign object
// with __dlpack__ tells the truth, and what lies in a GPU's memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "fgfast/device.h"

namespace fgfast::bindings {

namespace nb = nanobind;

// The name of its type.
std::string TypeOf(nb::handle value);
// TypeError and ValueError.
[[noreturn]] void RefuseType(const std::string& message);
[[noreturn]] void RefuseValue(const std::string& message);

// Throws ValueError unless `fits`.
inline void Require(bool fits, const char* message) {
  if (!fits) RefuseValue(message);
}

// An int, or what Python takes for an index, from `least` to `most`.
int64_t Integer(const char* name, nb::handle value, int64_t least, int64_t most);
// A number from `least` to `most`; NaN is none.
double Number(const char* name, nb::handle value, double least, double most);
bool Truth(const char* name, nb::handle value);

// How the elements of an array lie in memory.
enum class Order {
  kWhole,  // row-major, without gaps
  kRows,   // the same but for the first axis, whose stride may be longer: part of a larger image
};

// What an array is, whatever its type; all that messages and comparisons need.
struct View {
  const char* name;
  const void* data;
  const int64_t* shape;
  const int64_t* strides;  // in elements
  int dimensions;
  int64_t item;  // bytes of an element
  int device_type, device_id;
};

// A length that an axis must have; or, as a letter, any.
struct Length {
  template <class T>
  Length(T value)
      : length(static_cast<int64_t>(value)), any(std::is_same_v<T, char>) {}  // NOLINT: meant to be implicit
  int64_t length;
  bool any;
};

void RequireShape(const View& array, std::initializer_list<Length> wanted);
// Axes `first` to `last` have lengths of 1 to `most`.
void RequireLengths(const View& array, int first, int last, int64_t most);
void RequireOrder(const View& array, Order order, size_t alignment);
void RequireCpu(const View& array);
// No byte of what an op writes may be one of another array. Compared by first and last byte.
void RequireApart(std::initializer_list<View> written, std::initializer_list<View> read);
// Why `value` is no such array.
[[noreturn]] void RefuseArray(const char* name, nb::handle value, nb::dlpack::dtype wanted, int dimensions);

// An array of these elements and dimensions, NumPy's or of any library that knows DLPack. It is written to if T is not
// const. It lives as long as this.
template <class T, int Dimensions>
class Array {
 public:
  Array(const char* name, nb::handle value, Order order = Order::kWhole) : name_(name) {
    if (!nb::try_cast(value, array_, false)) {
      RefuseArray(name, value, nb::dtype<std::remove_const_t<T>>(), Dimensions);
    }
    RequireOrder(*this, order, alignof(T));
  }
  T* data() const { return array_.data(); }
  int64_t shape(int axis) const { return array_.shape_ptr()[axis]; }
  int64_t stride(int axis) const { return array_.stride_ptr()[axis]; }
  int64_t size() const { return static_cast<int64_t>(array_.size()); }
  operator View() const {  // NOLINT: meant to be implicit
    return {name_,      array_.data(),      array_.shape_ptr(),   array_.stride_ptr(),
            Dimensions, int64_t{sizeof(T)}, array_.device_type(), array_.device_id()};
  }

 private:
  const char* name_;
  nb::ndarray<T, nb::ndim<Dimensions>> array_;
};

// On the CPU.
template <class T, int Dimensions>
class CpuArray : public Array<T, Dimensions> {
 public:
  CpuArray(const char* name, nb::handle value, Order order = Order::kWhole) : Array<T, Dimensions>(name, value, order) {
    RequireCpu(*this);
  }
};

// Where the arrays are, all on one device; `stream` is a cudaStream_t as a number.
Place PlaceOf(std::initializer_list<View> arrays, nb::handle stream);

// The bytes of bools: anything but 0 is true, whoever wrote them.
template <class T>
const uint8_t* Bytes(const T& bits) {
  return reinterpret_cast<const uint8_t*>(bits.data());
}

// What the other files add to the module.
void AddArea(nb::module_& module);
void AddAttention(nb::module_& module);
void AddComposite(nb::module_& module);
void AddContrast(nb::module_& module);
void AddMaskPost(nb::module_& module);
void AddNms(nb::module_& module);
void AddOutline(nb::module_& module);
void AddParts(nb::module_& module);
void AddResize(nb::module_& module);
void AddRle(nb::module_& module);

}  // namespace fgfast::bindings
