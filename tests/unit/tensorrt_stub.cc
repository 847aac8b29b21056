// Stands in for libnvinfer, libnvinfer_plugin and libnvonnxparser, so that NVIDIA's Python bindings load without them.
//
// Written without NVIDIA's headers: the bindings call a library through pointers to virtual functions, and here every
// object has a table of them that only say which one was called. An object's own table serves interfaces without a
// private part (the parser); the others hold a pointer to one, whose functions are called.

#include <cstdint>
#include <typeinfo>
#include <utility>

namespace {

constexpr int kSlots = 400;
constexpr int kDestructors = 2;  // the first slots of every table
enum Kind { kBuilder, kNetwork, kPlainLayer, kAttentionLayer, kAttention, kOther, kKinds };

struct Part {
  void** functions;
  long kind;
  bool boundary;  // the part of an attention's layer that knows the attention
};

// As of a class of the library's own that the bindings do not know, derived from a public one.
struct Unknown {
  virtual ~Unknown() = default;
};

struct Object {
  void** functions;
  long kind;  // where the object's own functions find it, as in Part; never called on objects with parts
  Part* parts[3];
};
// The parts come directly after the table in NVIDIA's objects.
struct PublicObject {
  void** functions;
  Part* parts[4];
};

void* g_table[2 + kSlots];
Part g_parts[kKinds], g_boundary;
PublicObject g_objects[kKinds];
Object g_interface;
long g_answers[kKinds][kSlots];
bool g_answered[kKinds][kSlots];
long g_called[3];  // kind, slot, argument
long g_types[2];   // of the plain layer and of the attention's

long default_answer(Part* self, long argument) {
  auto address = [](int kind) { return reinterpret_cast<long>(&g_objects[kind]); };
  if (self->boundary) return address(kAttention);
  switch (self->kind) {
    case kBuilder: return address(kOther);
    case kNetwork: return address(argument == 1 ? kAttentionLayer : kPlainLayer);
    case kPlainLayer: return g_types[0];
    case kAttentionLayer: return g_types[1];
    case kAttention: return 1;
    default: return address(kOther);
  }
}

template <int slot>
long call(Part* self, long argument) {
  if (slot < kDestructors) return 0;
  g_called[0] = self->kind, g_called[1] = slot, g_called[2] = argument;
  if (g_answered[self->kind][slot]) return g_answers[self->kind][slot];
  return default_answer(self, argument);
}

template <int... slots>
void fill(std::integer_sequence<int, slots...>) {
  g_table[0] = nullptr;  // the offset to the whole object
  g_table[1] = const_cast<std::type_info*>(&typeid(Unknown));
  ((g_table[2 + slots] = reinterpret_cast<void*>(&call<slots>)), ...);
}

struct Filled {
  Filled() {
    fill(std::make_integer_sequence<int, kSlots>());
    for (long kind = 0; kind < kKinds; ++kind) {
      g_parts[kind] = {g_table + 2, kind, false};
      g_objects[kind] = {g_table + 2, {&g_parts[kind], &g_parts[kind], &g_parts[kind], &g_parts[kind]}};
    }
    g_boundary = {g_table + 2, kAttentionLayer, true};
    for (int n = 1; n < 4; ++n) g_objects[kAttentionLayer].parts[n] = &g_boundary;
    g_interface = {g_table + 2, kOther, {}};
  }
} g_filled;

}  // namespace

extern "C" {

// For the test.
void stub_types(long plain, long attention) { g_types[0] = plain, g_types[1] = attention; }
void stub_answer(long kind, long slot, long value) { g_answered[kind][slot] = true, g_answers[kind][slot] = value; }
void stub_builders_answer(long kind) {
  for (long slot = 0; slot < kSlots; ++slot) stub_answer(kBuilder, slot, reinterpret_cast<long>(&g_objects[kind]));
}
long const* stub_called() { return g_called; }

// What the bindings import.
void* createInferBuilder_INTERNAL(void*, int) { return &g_objects[kBuilder]; }
void* createInferRuntime_INTERNAL(void*, int) { return &g_objects[kOther]; }
void* createInferRefitter_INTERNAL(void*, void*, int) { return nullptr; }
void* createNvOnnxParser_INTERNAL(void*, void*, int) { return &g_interface; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int) { return nullptr; }
int getNvOnnxParserVersion() { return 0; }
void* getBuilderPluginRegistry(int32_t) { return nullptr; }
void* getPluginRegistry() { return &g_interface; }
bool initLibNvInferPlugins(void*, char const*) { return true; }
}
