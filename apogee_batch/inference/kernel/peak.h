// What the arithmetic units can do at most: multiply-adds on registers alone.
#pragma once

#include "lanes.h"
#include "stopwatch.h"

namespace kernel {
namespace {

// Chains that do not wait for one another, as many as registers allow.
constexpr int N_CHAINS = N_REGISTERS == 32 ? 24 : 12;

// Floating point operations per second of `step(x)`, which does one multiply-add of vectors.
template <class Step>
double measure_rate(double seconds, double operations_per_step, Step step) {
  Lanes x[N_CHAINS];
  KERNEL_UNROLL for (int chain = 0; chain < N_CHAINS; chain++) x[chain] = splat(float(chain));
  double elapsed = 0, steps = 0;
  while (elapsed < seconds) {
    const Stopwatch watch(elapsed);
    for (int i = 0; i < 100000; i++)
      KERNEL_UNROLL for (int chain = 0; chain < N_CHAINS; chain++) x[chain] = step(x[chain]);
    steps += 100000.0 * N_CHAINS;
  }
  volatile float keep = 0;  // so that the compiler cannot drop the sums
  KERNEL_UNROLL for (int chain = 0; chain < N_CHAINS; chain++) keep = keep + x[chain][0];
  return steps * operations_per_step / elapsed;
}

inline double measure_fma_peak(double seconds) {
  volatile float factor = 0.999f, term = 0.001f;  // volatile: unknown to the compiler
  const Lanes a = splat(factor), b = splat(term);
  return measure_rate(seconds, 2.0 * LANES, [=](Lanes x) { return fma(x, a, b); });
}

#if KERNEL_HAS_BF16
inline double measure_bf16_peak(double seconds) {
  volatile uint32_t weights = 0x3f003e80;
  const Pairs input = Pairs{} + weights;
  const uint32_t weight = weights;
  return measure_rate(seconds, 4.0 * LANES, [=](Lanes x) { return multiply_add(input, weight, x); });
}
#endif

}  // namespace
}  // namespace kernel
