#include "arguments.h"

#include <cstdio>
#include <limits>

namespace fgfast::bindings {
namespace {

// What str() says.
std::string PlainText(const nb::object& value) { return nb::str(nb::handle(value)).c_str(); }

std::string TextOf(const int64_t* numbers, int count) {
  std::string text = "(";
  for (int n = 0; n < count; ++n) text += (n ? ", " : "") + std::to_string(numbers[n]);
  return text + (count == 1 ? ",)" : ")");
}

std::string TextOf(std::initializer_list<Length> wanted) {
  std::string text = "(";
  for (const Length& length : wanted) {
    if (text.size() > 1) text += ", ";
    text += length.any ? std::string(1, static_cast<char>(length.length)) : std::to_string(length.length);
  }
  return text + (wanted.size() == 1 ? ",)" : ")");
}

std::string TextOf(nb::dlpack::dtype dtype) {
  using Code = nb::dlpack::dtype_code;
  const Code code = static_cast<Code>(dtype.code);
  if (code == Code::Bool) return "bool";
  const char* kind = code == Code::Int       ? "int"
                     : code == Code::UInt    ? "uint"
                     : code == Code::Float   ? "float"
                     : code == Code::Bfloat  ? "bfloat"
                     : code == Code::Complex ? "complex"
                                             : "other dtype of bits: ";
  return kind + std::to_string(dtype.bits);
}

bool IsEmpty(const View& array) {
  for (int axis = 0; axis < array.dimensions; ++axis) {
    if (array.shape[axis] == 0) return true;
  }
  return false;
}

// From an array's first byte to behind its last one; its strides are not negative.
struct Extent {
  explicit Extent(const View& array) : first(reinterpret_cast<uintptr_t>(array.data)), end(first) {
    if (IsEmpty(array)) return;
    int64_t last = 0;
    for (int axis = 0; axis < array.dimensions; ++axis) last += (array.shape[axis] - 1) * array.strides[axis];
    end += (last + 1) * array.item;
  }
  uintptr_t first, end;
};

}  // namespace

std::string TypeOf(nb::handle value) { return PlainText(value.type().attr("__name__")); }

void RefuseType(const std::string& message) { throw nb::type_error(message.c_str()); }
void RefuseValue(const std::string& message) { throw nb::value_error(message.c_str()); }

int64_t Integer(const char* name, nb::handle value, int64_t least, int64_t most) {
  const nb::object index = nb::steal(PyNumber_Index(value.ptr()));
  if (!index.is_valid()) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw nb::python_error();
    PyErr_Clear();
    RefuseType(std::string(name) + " must be an int, not " + TypeOf(value));
  }
  int beyond = 0;
  const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &beyond);
  if (!beyond && number >= least && number <= most) return number;
  RefuseValue(std::string(name) + " must be " + std::to_string(least) + " to " + std::to_string(most) + ", not " +
              (beyond ? "a number of more than 64 bits" : std::to_string(number)));
}

double Number(const char* name, nb::handle value, double least, double most) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1.0 && PyErr_Occurred()) {
    const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
    if (!too_large && !PyErr_ExceptionMatches(PyExc_TypeError)) throw nb::python_error();
    PyErr_Clear();
    if (!too_large) RefuseType(std::string(name) + " must be a number, not " + TypeOf(value));
  } else if (number >= least && number <= most) {
    return number;
  }
  char text[100];
  std::snprintf(text, sizeof text, " must be %g to %g, not %g", least, most, number);
  RefuseValue(name + std::string(text));
}

bool Truth(const char* name, nb::handle value) {
  if (!PyBool_Check(value.ptr())) RefuseType(std::string(name) + " must be a bool, not " + TypeOf(value));
  return value.is(nb::handle(Py_True));
}

void RequireShape(const View& array, std::initializer_list<Length> wanted) {
  int axis = 0;
  for (const Length& length : wanted) {
    if (!length.any && length.length != array.shape[axis]) {
      RefuseValue(std::string(array.name) + " must have shape " + TextOf(wanted) + ", not " +
                  TextOf(array.shape, array.dimensions));
    }
    ++axis;
  }
}

void RequireLengths(const View& array, int first, int last, int64_t most) {
  for (int axis = first; axis <= last; ++axis) {
    if (array.shape[axis] >= 1 && array.shape[axis] <= most) continue;
    RefuseValue(std::string(array.name) + " must have 1 to " + std::to_string(most) + " rows and columns, not shape " +
                TextOf(array.shape, array.dimensions));
  }
}

void RequireOrder(const View& array, Order order, size_t alignment) {
  if (IsEmpty(array)) return;  // nothing is read, wherever it lies and whatever the strides
  int64_t gapless = 1;
  for (int axis = array.dimensions - 1; axis >= 0; --axis) {
    const bool may_be_longer = order == Order::kRows && axis == 0;
    const int64_t stride = array.strides[axis];
    if (array.shape[axis] > 1 && !(stride == gapless || (may_be_longer && stride > gapless))) {
      RefuseValue(std::string(array.name) + " must be contiguous" +
                  (order == Order::kRows ? " within its rows" : ", row by row") + ", not of shape " +
                  TextOf(array.shape, array.dimensions) + " with strides " + TextOf(array.strides, array.dimensions) +
                  " elements");
    }
    gapless *= array.shape[axis];
  }
  if (reinterpret_cast<uintptr_t>(array.data) % alignment) {
    RefuseValue(std::string(array.name) + " must begin at a multiple of " + std::to_string(alignment) +
                " bytes in memory; a copy does");
  }
}

void RequireCpu(const View& array) {
  if (array.device_type == nb::device::cpu::value) return;
  RefuseValue(std::string(array.name) + " must be on the CPU, not on a device of DLPack's type " +
              std::to_string(array.device_type));
}

void RequireApart(std::initializer_list<View> written, std::initializer_list<View> read) {
  const auto compare = [](const View& a, const View& b) {
    const Extent one(a), other(b);
    if (one.first < other.end && other.first < one.end) {
      RefuseValue(std::string(a.name) + " is written to and must not share memory with " + b.name);
    }
  };
  for (const View* a = written.begin(); a != written.end(); ++a) {
    for (const View* b = a + 1; b != written.end(); ++b) compare(*a, *b);
    for (const View& b : read) compare(*a, b);
  }
}

void RefuseArray(const char* name, nb::handle value, nb::dlpack::dtype wanted, int dimensions) {
  const std::string start = std::string(name) + " must ";
  nb::ndarray<nb::ro> found;
  if (!nb::try_cast(value, found, false)) {
    const std::string dtype = nb::hasattr(value, "dtype") ? std::string(" of ") + PlainText(value.attr("dtype")) : "";
    RefuseType(start + "be an array of " + TextOf(wanted) + " that DLPack or the buffer protocol describes, not " +
               TypeOf(value) + dtype);
  }
  if (found.dtype() != wanted) RefuseType(start + "be " + TextOf(wanted) + ", not " + TextOf(found.dtype()));
  if (static_cast<int>(found.ndim()) != dimensions) {
    RefuseValue(start + "have " + std::to_string(dimensions) + " dimensions, not shape " +
                TextOf(found.shape_ptr(), static_cast<int>(found.ndim())));
  }
  RefuseValue(start + "be writeable");
}

Place PlaceOf(std::initializer_list<View> arrays, nb::handle stream) {
  const View& first = *arrays.begin();
  for (const View& array : arrays) {
    if (array.device_type == first.device_type && array.device_id == first.device_id) continue;
    RefuseValue(std::string(array.name) + " must be on the same device as " + first.name);
  }
  const bool cuda = first.device_type == nb::device::cuda::value;
  if (!cuda) {
    for (const View& array : arrays) RequireCpu(array);
  }
  const int64_t number = Integer("stream", stream, 0, std::numeric_limits<int64_t>::max());
  return {cuda, first.device_id, reinterpret_cast<void*>(static_cast<uintptr_t>(number))};
}

}  // namespace fgfast::bindings
