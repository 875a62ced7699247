// Fully connected layers over a panel of up to DENSE_GROUPS groups: a weight that was read serves all of their lanes.
//
// Layouts: inputs [group][input] (or [group][pair]), sums [output][group].
#pragma once

#include "convolution.h"

namespace kernel {
namespace {

// Add `layer`'s products to `sums`, which hold what the sums begin with. Inputs are taken in blocks that stay in
// the first cache; between blocks the sums rest in memory.
template <int GROUPS, int DEPTH, class Vector>
__attribute__((noinline)) void add_products(const Dense& layer, const Vector* input, Lanes* sums) {
  const auto* weights = Packed<Vector>::weights(layer);
  for (int block = 0; block < DEPTH; block += DENSE_DEPTH) {
    const int end = block + DENSE_DEPTH < DEPTH ? block + DENSE_DEPTH : DEPTH;
    for (int out = 0; out < layer.n_padded; out += DENSE_OUTPUTS) {
      Lanes tile[DENSE_OUTPUTS][GROUPS];
      Lanes* tile_sums = sums + size_t(out) * GROUPS;
      KERNEL_UNROLL for (int o = 0; o < DENSE_OUTPUTS; o++)
        KERNEL_UNROLL for (int g = 0; g < GROUPS; g++) tile[o][g] = tile_sums[o * GROUPS + g];
      for (int k = block; k < end; k++) {
        KERNEL_UNROLL for (int g = 0; g < GROUPS; g++) {
          const Vector x = input[size_t(g) * DEPTH + k];
          KERNEL_UNROLL for (int o = 0; o < DENSE_OUTPUTS; o++) tile[o][g] = multiply_add(x, weights[o], tile[o][g]);
        }
        weights += DENSE_OUTPUTS;
      }
      KERNEL_UNROLL for (int o = 0; o < DENSE_OUTPUTS; o++)
        KERNEL_UNROLL for (int g = 0; g < GROUPS; g++) tile_sums[o * GROUPS + g] = tile[o][g];
    }
  }
}

// All three layers for GROUPS groups. `pass` says what sums begin with and makes the next layer's inputs; the
// labels are left in `sums`.
template <int GROUPS, class Pass>
void run_dense(const Network& network, Pass& pass, const typename Pass::Vector* features,
               typename Pass::Vector* hidden, Lanes* sums) {
  using Inputs = Packed<typename Pass::Vector>;
  pass.template start_dense<GROUPS>(network.dense[0], sums);
  add_products<GROUPS, Inputs::vectors(N_FEATURES)>(network.dense[0], features, sums);
  pass.template activate<GROUPS, 0>(sums, hidden);
  pass.template start_dense<GROUPS>(network.dense[1], sums);
  add_products<GROUPS, Inputs::vectors(HIDDEN)>(network.dense[1], hidden, sums);
  pass.template activate<GROUPS, 1>(sums, hidden);
  pass.template start_dense<GROUPS>(network.dense[2], sums);
  add_products<GROUPS, Inputs::vectors(HIDDEN)>(network.dense[2], hidden, sums);
}

// The same for a number of groups known at run time only, at most GROUPS.
template <int GROUPS, class Pass>
void run_panel(int n_groups, const Network& network, Pass& pass, const typename Pass::Vector* features,
               typename Pass::Vector* hidden, Lanes* sums) {
  if (n_groups == GROUPS) return run_dense<GROUPS>(network, pass, features, hidden, sums);
  if constexpr (GROUPS > 1) run_panel<GROUPS - 1>(n_groups, network, pass, features, hidden, sums);
}

}  // namespace
}  // namespace kernel
