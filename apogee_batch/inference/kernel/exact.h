// The exact pass: float32 throughout, a lane is a realization.
#pragma once

#include "dense.h"
#include "stars.h"

namespace kernel {
namespace {

// Sums begin with the bias and end in ReLU or, with a pool, in the larger of two ReLUs.
struct ExactFinish {
  const float* bias;

  KERNEL_INLINE Lanes start(int channel) const { return splat(bias[channel]); }

  template <int OUT, bool POOL, int POSITIONS>
  KERNEL_INLINE void store(const Sums<POSITIONS>& sums, int, int channel, Lanes* output) const {
    constexpr int STRIDE = POOL ? 2 : 1;
    KERNEL_UNROLL for (int p = 0; p < POSITIONS / STRIDE; p++)
      KERNEL_UNROLL for (int c = 0; c < TILE_CHANNELS; c++) {
        Lanes z = sums[STRIDE * p][c];
        if constexpr (POOL) z = max(z, sums[STRIDE * p + 1][c]);
        output[p * OUT + channel + c] = relu(z);
      }
  }
};

struct ExactPass {
  using Vector = Lanes;
  const Network& network;

  template <int CONVOLUTION>
  ExactFinish finish(int) const {
    return {network.convolutions[CONVOLUTION].bias.get()};
  }

  template <int CONVOLUTION>
  void end_tile(int, int) const {}

  template <int GROUPS>
  void start_dense(const Dense& layer, Lanes* sums) const {
    for (int out = 0; out < layer.n_padded; out++)
      for (int g = 0; g < GROUPS; g++) sums[out * GROUPS + g] = splat(layer.bias[out]);
  }

  template <int GROUPS, int LAYER>
  void activate(const Lanes* sums, Lanes* hidden) const {
    for (int g = 0; g < GROUPS; g++)
      for (int out = 0; out < HIDDEN; out++) hidden[g * HIDDEN + out] = relu(sums[out * GROUPS + g]);
  }
};

}  // namespace
}  // namespace kernel
