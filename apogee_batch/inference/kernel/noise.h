// Normals from a counter: SplitMix64 (Steele, Lea and Flood 2014) and Box-Muller, as inference/noise.py defines them.
#pragma once

#include "lanes.h"

namespace kernel {
namespace {

// ln x for normal positive x: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and a minimax polynomial (Cephes, logf).
KERNEL_INLINE Lanes log_lanes(Lanes x) {
  constexpr int32_t ROOT_HALF_BITS = 0x3f3504f3;
  const IntLanes bits = (IntLanes)x;
  const IntLanes exponent = (bits - ROOT_HALF_BITS) >> 23;
  const Lanes e = __builtin_convertvector(exponent, Lanes);
  const Lanes f = (Lanes)(bits - (exponent << 23)) - 1.0f;
  Lanes p = splat(7.0376836292e-2f);
  p = fma(p, f, splat(-1.1514610310e-1f));
  p = fma(p, f, splat(1.1676998740e-1f));
  p = fma(p, f, splat(-1.2420140846e-1f));
  p = fma(p, f, splat(1.4249322787e-1f));
  p = fma(p, f, splat(-1.6668057665e-1f));
  p = fma(p, f, splat(2.0000714765e-1f));
  p = fma(p, f, splat(-2.4999993993e-1f));
  p = fma(p, f, splat(3.3333331174e-1f));
  const Lanes square = f * f;
  const Lanes curved = fma(square, splat(-0.5f), p * f * square);
  return fma(e, splat(0.6931471806f), f + curved);
}

// Cosine and sine of an angle in turns, |turns| <= 1/2 (polynomials of Cephes, sinf and cosf).
KERNEL_INLINE void cos_sin_of_turns(Lanes turns, Lanes& cosine, Lanes& sine) {
  constexpr float ROUND_TO_INTEGER = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bit for a fraction
  const Lanes shifted = turns * 4.0f + ROUND_TO_INTEGER;
  const Lanes quarters = shifted - ROUND_TO_INTEGER;
  const IntLanes quadrant = (IntLanes)shifted;
  const Lanes r = fma(quarters, splat(-0.25f), turns) * 6.283185307f;  // the difference is exact
  const Lanes z = r * r;
  Lanes s = fma(z, splat(-1.9515295891e-4f), splat(8.3321608736e-3f));
  s = fma(s, z, splat(-1.6666654611e-1f));
  s = fma(s * z, r, r);
  Lanes c = fma(z, splat(2.443315711809948e-5f), splat(-1.388731625493765e-3f));
  c = fma(c, z, splat(4.166664568298827e-2f));
  c = fma(c * z, z, fma(z, splat(-0.5f), splat(1.0f)));
  const IntLanes is_odd = -(quadrant & 1);
  const IntLanes sine_sign = (quadrant & 2) << 30;
  const IntLanes cosine_sign = ((quadrant + 1) & 2) << 30;
  sine = (Lanes)((IntLanes)select(is_odd, c, s) ^ sine_sign);
  cosine = (Lanes)((IntLanes)select(is_odd, s, c) ^ cosine_sign);
}

KERNEL_INLINE WideLanes mix_bits(WideLanes z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// One generator in each lane. 64-bit lanes are half as wide a crowd as 32-bit ones, so even and odd lanes have a
// vector each; their halves then meet in the right lanes by shifts alone.
struct NoiseLanes {
  WideLanes even_state, odd_state, even_gamma, odd_gamma;

  // Let a lane begin with pair 0 of a realization; `next` then gives pair after pair.
  void set_lane(int lane, uint64_t seed, uint64_t gamma, uint64_t realization, uint64_t n_pairs) {
    const uint64_t state = seed + (realization * n_pairs + 1) * gamma;
    (lane % 2 ? odd_state : even_state)[lane / 2] = state;
    (lane % 2 ? odd_gamma : even_gamma)[lane / 2] = gamma;
  }

  KERNEL_INLINE void skip() {
    even_state += even_gamma;
    odd_state += odd_gamma;
  }

  KERNEL_INLINE void next_bits(BitLanes& high, BitLanes& low) {
    const WideLanes even = mix_bits(even_state), odd = mix_bits(odd_state);
    skip();
    high = (BitLanes)((even >> 32) | (odd & 0xffffffff00000000u));
    low = (BitLanes)((even & 0xffffffffu) | (odd << 32));
  }

  // The normals of an even pixel and of the next one.
  KERNEL_INLINE void next(Lanes& first, Lanes& second) {
    constexpr float STEP = 1.0f / 4294967296.0f;
    BitLanes high, low;
    next_bits(high, low);
    const Lanes uniform = __builtin_convertvector(high, Lanes) * STEP + 0.5f * STEP;
    const Lanes turns = __builtin_convertvector((IntLanes)low, Lanes) * STEP;
    const Lanes radius = sqrt(max(Lanes{}, log_lanes(uniform) * -2.0f));
    Lanes cosine, sine;
    cos_sin_of_turns(turns, cosine, sine);
    first = radius * cosine;
    second = radius * sine;
  }
};

}  // namespace
}  // namespace kernel
