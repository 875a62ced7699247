// A vector of float32 in which every lane is another realization, and the few operations that the kernel needs.
//
// All arithmetic of the kernel is lane by lane: no shuffle, no horizontal sum. So a realization's numbers depend
// neither on the width of the vector nor on its lane nor on the lanes beside it. Multiply-add is written out
// (`fma`) and the compiler may contract nothing else (-ffp-contract=off): the order and the rounding of every sum
// are those written here, on every CPU that has a fused multiply-add.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the generator of the noise splits 64-bit lanes into 32-bit lanes as little-endian CPUs do"
#endif

#if defined(__clang__)
#define KERNEL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KERNEL_UNROLL _Pragma("GCC unroll 32")
#endif
#define KERNEL_INLINE inline __attribute__((always_inline))

namespace kernel {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// 32 registers hold 4 positions x 4 channels of sums beside their inputs; 16 registers hold 4 x 2.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int N_REGISTERS = 32;
#else
constexpr int N_REGISTERS = 16;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t BitLanes __attribute__((vector_size(4 * LANES), may_alias));
typedef uint64_t WideLanes __attribute__((vector_size(4 * LANES), may_alias));  // half as many, 64 bits each

KERNEL_INLINE Lanes splat(float value) { return value - Lanes{}; }  // minus, which keeps -0
KERNEL_INLINE WideLanes splat_wide(uint64_t value) { return value + WideLanes{}; }

// Where `mask` is all ones take `chosen`, where it is 0 take `other`.
KERNEL_INLINE Lanes select(IntLanes mask, Lanes chosen, Lanes other) { return mask ? chosen : other; }

#if defined(__AVX512F__)
KERNEL_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return (Lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
KERNEL_INLINE Lanes max(Lanes a, Lanes b) { return (Lanes)_mm512_max_ps((__m512)a, (__m512)b); }
KERNEL_INLINE Lanes min(Lanes a, Lanes b) { return (Lanes)_mm512_min_ps((__m512)a, (__m512)b); }
KERNEL_INLINE Lanes sqrt(Lanes a) { return (Lanes)_mm512_sqrt_ps((__m512)a); }
#elif defined(__AVX2__)
KERNEL_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return (Lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
KERNEL_INLINE Lanes max(Lanes a, Lanes b) { return (Lanes)_mm256_max_ps((__m256)a, (__m256)b); }
KERNEL_INLINE Lanes min(Lanes a, Lanes b) { return (Lanes)_mm256_min_ps((__m256)a, (__m256)b); }
KERNEL_INLINE Lanes sqrt(Lanes a) { return (Lanes)_mm256_sqrt_ps((__m256)a); }
#else
#if defined(__aarch64__)
KERNEL_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return (Lanes)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
// Without a fused multiply-add: two roundings, so the last digits differ from those of other CPUs.
KERNEL_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return a * b + c; }
#endif
KERNEL_INLINE Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }
KERNEL_INLINE Lanes min(Lanes a, Lanes b) { return a < b ? a : b; }
KERNEL_INLINE Lanes sqrt(Lanes a) {
  Lanes root;
  for (int lane = 0; lane < LANES; lane++) root[lane] = __builtin_sqrtf(a[lane]);
  return root;
}
#endif

// `max` and `min` give their second argument where one is not a number: these let it pass through.
KERNEL_INLINE Lanes relu(Lanes x) { return max(Lanes{}, x); }
KERNEL_INLINE Lanes clamp(Lanes x, Lanes low, Lanes high) { return min(high, max(low, x)); }

#if defined(__AVX512BF16__)
#define KERNEL_HAS_BF16 1
// Two bfloat16 in each 32-bit lane: an even channel in the low half, the next one in the high half.
typedef BitLanes Pairs;

KERNEL_INLINE Pairs round_to_pairs(Lanes even, Lanes odd) {
  // The instruction leaves the even channel in the lower, the odd one in the upper half of the register.
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  return (Pairs)_mm512_permutexvar_epi16(interleave, halves);
}

// sum + even * even + odd * odd in float32.
KERNEL_INLINE Lanes multiply_add(Pairs x, uint32_t weights, Lanes sum) {
  return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)_mm512_set1_epi32((int)weights));
}
#else
#define KERNEL_HAS_BF16 0
typedef BitLanes Pairs;
#endif

KERNEL_INLINE Lanes multiply_add(Lanes x, float weight, Lanes sum) { return fma(x, splat(weight), sum); }

}  // namespace
}  // namespace kernel
