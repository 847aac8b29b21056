#include "fgfast/attention.h"

#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "arguments.h"
#include "fgfast/window_attention.h"

using nanobind::literals::operator""_a;

namespace fgfast::bindings {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

using Table = CpuArray<const float, 2>;
using Tokens = CpuArray<const int64_t, 2>;

// Whether heads of `size` elements of T can be computed here.
template <class T>
bool AttendsTo(int64_t size) {
  const bool here = std::is_same_v<T, float> ? AttendsHere() : *Bfloat16AttendsBy() != '\0';
  return size > 0 && size % kAttentionStep == 0 && here;
}

template <class T>
bool Attends(nb::handle size) {
  return AttendsTo<T>(Integer("size", size, 0, kMost));
}

// Every token must have one place: two would be written at once, and without one its result would be left unwritten.
void RequireEachOnce(const Tokens& token_at, int64_t tokens) {
  Require(tokens <= token_at.size(), "token_at must hold every token exactly once; there are more tokens than places");
  std::vector<bool> found(tokens);
  const int64_t* places = token_at.data();
  int64_t count = 0;
  for (int64_t n = 0; n < token_at.size(); ++n) {
    const int64_t token = places[n];
    if (token == tokens) continue;
    if (token < 0 || token > tokens) {
      RefuseValue("token_at must be 0 to " + std::to_string(tokens) + ", not " + std::to_string(token));
    }
    if (found[token])
      RefuseValue("token_at must hold every token exactly once, not " + std::to_string(token) + " twice");
    found[token] = true;
    ++count;
  }
  Require(count == tokens, "token_at must hold every token exactly once; one has no place");
}

template <class T>
void Attend(nb::handle q_, nb::handle k_, nb::handle v_, nb::handle rel_pos_h_, nb::handle rel_pos_w_,
            nb::handle token_at_, nb::handle padding_k_, nb::handle padding_v_, nb::handle side_, nb::handle threads_,
            nb::handle out_) {
  const CpuArray<const T, 4> q("q", q_), k("k", k_), v("v", v_);
  const Table rel_pos_h("rel_pos_h", rel_pos_h_), rel_pos_w("rel_pos_w", rel_pos_w_);
  const Tokens token_at("token_at", token_at_);
  const CpuArray<const T, 2> padding_k("padding_k", padding_k_), padding_v("padding_v", padding_v_);
  const CpuArray<T, 4> out("out", out_);
  const int64_t batch = q.shape(0), tokens = q.shape(1), heads = q.shape(2), size = q.shape(3);
  const int64_t side = Integer("side", side_, 1, kMost), threads = Integer("threads", threads_, 1, kMost);
  for (const View& array : {View(k), View(v), View(out)}) RequireShape(array, {batch, tokens, heads, size});
  for (const View& table : {View(rel_pos_h), View(rel_pos_w)}) RequireShape(table, {2 * side - 1, size});
  for (const View& row : {View(padding_k), View(padding_v)}) RequireShape(row, {heads, size});
  RequireShape(token_at, {'W', side * side});
  RequireApart({out}, {q, k, v, rel_pos_h, rel_pos_w, token_at, padding_k, padding_v});
  RequireEachOnce(token_at, tokens);
  if (!AttendsTo<T>(size)) {
    RefuseValue("q must have heads of a multiple of 16, not " + std::to_string(size) +
                ", and the processor AVX-512 or, for bfloat16, AVX-512 BF16: see attends");
  }
  nb::gil_scoped_release release;
  fgfast::Attend(
      AttentionOf<T>{q.data(), k.data(), v.data(), rel_pos_h.data(), rel_pos_w.data(), token_at.data(),
                     padding_k.data(), padding_v.data(), batch, tokens, heads, size, token_at.shape(0), side},
      static_cast<int>(threads), out.data());
}

void AttendWindows(nb::handle qkv_, nb::handle bias_, nb::handle mask_, nb::handle threads_, nb::handle out_) {
  const CpuArray<const Bfloat16, 5> qkv("qkv", qkv_);
  const CpuArray<const float, 3> bias("bias", bias_);
  std::optional<CpuArray<const float, 3>> mask;
  if (!mask_.is_none()) mask.emplace("mask", mask_);
  const CpuArray<Bfloat16, 4> out("out", out_);
  const int64_t windows = qkv.shape(0), tokens = qkv.shape(1), heads = qkv.shape(3), size = qkv.shape(4);
  const int64_t threads = Integer("threads", threads_, 1, kMost);
  RequireShape(qkv, {'N', 'T', 3, 'H', 'D'});
  RequireShape(bias, {heads, tokens, tokens});
  RequireShape(out, {windows, tokens, heads, size});
  if (mask) RequireShape(*mask, {windows, tokens, tokens});
  RequireApart({out}, {qkv, bias});
  if (mask) RequireApart({out}, {*mask});
  Require(tokens <= kMostWindowTokens, "qkv must have at most 64 tokens in a window");
  if (!AttendsTo<Bfloat16>(size)) {
    RefuseValue("qkv must have heads of a multiple of 16, not " + std::to_string(size) +
                ", and the processor AVX-512 BF16: see attends_bf16");
  }
  nb::gil_scoped_release release;
  fgfast::Attend(WindowAttention{qkv.data(), bias.data(), mask ? mask->data() : nullptr, windows, tokens, heads, size},
                 static_cast<int>(threads), out.data());
}

// Adds attention over elements of T.
template <class T>
void AddAttentionOf(nb::module_& module, const char* attends, const char* attend) {
  module.def(attends, &Attends<T>, "size"_a.none(), "Whether there is attention for this build, processor and size.");
  module.def(attend, &Attend<T>, "q"_a.none(), "k"_a.none(), "v"_a.none(), "rel_pos_h"_a.none(), "rel_pos_w"_a.none(),
             "token_at"_a.none(), "padding_k"_a.none(), "padding_v"_a.none(), "side"_a.none(), "threads"_a.none(),
             "out"_a.none(), "Fill out (B, T, H, D) with attention within windows.");
}

}  // namespace

void AddAttention(nb::module_& module) {
  AddAttentionOf<float>(module, "attends", "attend");
  AddAttentionOf<Bfloat16>(module, "attends_bf16", "attend_bf16");
  module.def("attend_windows", &AttendWindows, "qkv"_a.none(), "bias"_a.none(), "mask"_a.none(), "threads"_a.none(),
             "out"_a.none(), "Fill out (N, T, H, D) with attention within N windows, of bfloat16.");
  module.def("bf16_attends_by", &Bfloat16AttendsBy, "What multiplies bfloat16 on this processor; empty for nothing.");
}

}  // namespace fgfast::bindings
