// One body of plain loops, compiled for several kinds of x86 processor; which one runs is decided when it is called.
//
// What is marked FGFAST_INLINE is compiled into functions marked FGFAST_AVX512_LOOPS, FGFAST_AVX2_LOOPS or not at all,
// and so for their processor. Without contraction (CMakeLists.txt) all of them give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define FGFAST_HAS_LEVELS 1
#define FGFAST_INLINE __attribute__((always_inline)) inline
#define FGFAST_AVX512_LOOPS                                   \
  __attribute__((                                             \
      target("avx512f,avx512bw,avx512dq,avx512vl,fma,popcnt," \
             "prefer-vector-width=512")))
#define FGFAST_AVX2_LOOPS __attribute__((target("avx2,fma")))
#else
#define FGFAST_INLINE inline
#endif

namespace fgfast {

#ifdef FGFAST_HAS_LEVELS
inline bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
inline bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

}  // namespace fgfast
