// The fast pass: what is carried from layer to layer is the difference of a realization's activations from those of
// its clean spectrum, in bfloat16. Rounding is then relative to the noise and not to the flux, as it is in plain
// bfloat16 (docs/precision.md).
#pragma once

#include "anchors.h"

namespace kernel {
namespace {

#if KERNEL_HAS_BF16

// A layer's anchors for the lanes of a group.
struct GroupAnchors {
  const float* first;
  const float* second;
  IntLanes in_second;
  bool is_mixed;

  GroupAnchors(const Group& group, size_t offset)
      : first(group.first->anchors + offset),
        second(group.second->anchors + offset),
        in_second(group.in_second),
        is_mixed(group.is_mixed) {}

  template <bool MIXED>
  KERNEL_INLINE Lanes at(size_t i) const {
    if constexpr (!MIXED) return splat(first[i]);
    return select(in_second, splat(second[i]), splat(first[i]));
  }
};

struct DifferenceFinish {
  GroupAnchors anchors;

  KERNEL_INLINE Lanes start(int) const { return Lanes{}; }

  template <int OUT, bool POOL, int POSITIONS>
  KERNEL_INLINE void store(const Sums<POSITIONS>& sums, int position, int channel, Pairs* output) const {
    if (anchors.is_mixed)
      store_as<true, OUT, POOL, POSITIONS>(sums, position, channel, output);
    else
      store_as<false, OUT, POOL, POSITIONS>(sums, position, channel, output);
  }

 private:
  template <bool MIXED, int OUT, bool POOL, int POSITIONS>
  KERNEL_INLINE void store_as(const Sums<POSITIONS>& sums, int position, int channel, Pairs* output) const {
    const size_t at = size_t(POOL ? position / 2 : position) * OUT + channel;
    KERNEL_UNROLL for (int p = 0; p < (POOL ? POSITIONS / 2 : POSITIONS); p++)
      KERNEL_UNROLL for (int c = 0; c < TILE_CHANNELS; c += 2)
        output[p * (OUT / 2) + (channel + c) / 2] =
            round_to_pairs(difference<MIXED, POOL, POSITIONS>(sums, p, c, at + p * OUT + c),
                           difference<MIXED, POOL, POSITIONS>(sums, p, c + 1, at + p * OUT + c + 1));
  }

  template <bool MIXED, bool POOL, int POSITIONS>
  KERNEL_INLINE Lanes difference(const Sums<POSITIONS>& sums, int p, int c, size_t at) const {
    if constexpr (POOL) {
      at *= POOLED_TERMS;
      const Lanes a = sums[2 * p][c] + anchors.at<MIXED>(at), b = sums[2 * p + 1][c] + anchors.at<MIXED>(at + 1);
      return max(anchors.at<MIXED>(at + 2), max(a, b));
    } else {
      at *= PLAIN_TERMS;
      return max(anchors.at<MIXED>(at + 1), sums[p][c] + anchors.at<MIXED>(at));
    }
  }
};

struct DifferencePass {
  using Vector = Pairs;
  const Group* groups;  // of the panel; the first one is the one in the convolutions

  template <int CONVOLUTION>
  DifferenceFinish finish(int) const {
    return {GroupAnchors(*groups, anchor_offset(CONVOLUTION))};
  }

  template <int CONVOLUTION>
  void end_tile(int, int) const {}

  template <int GROUPS>
  void start_dense(const Dense& layer, Lanes* sums) const {
    for (int i = 0; i < layer.n_padded * GROUPS; i++) sums[i] = Lanes{};
  }

  template <int GROUPS, int LAYER>
  void activate(const Lanes* sums, Pairs* hidden) const {
    for (int g = 0; g < GROUPS; g++) {
      const GroupAnchors anchors(groups[g], anchor_offset(N_CONVOLUTIONS + LAYER));
      auto difference = [&](int out) {
        const size_t at = size_t(out) * PLAIN_TERMS;
        return max(anchors.at<true>(at + 1), sums[out * GROUPS + g] + anchors.at<true>(at));
      };
      for (int pair = 0; pair < HIDDEN / 2; pair++)
        hidden[g * (HIDDEN / 2) + pair] = round_to_pairs(difference(2 * pair), difference(2 * pair + 1));
    }
  }
};

#endif

}  // namespace
}  // namespace kernel
