// Anchors: what the network computes for a star's clean spectrum, in the form in which differences need it.
//
// Let z be a pre-activation of the clean spectrum and z + d that of a realization. Then
//
//   relu(z + d) - relu(z)                       = max(d + low, floor)            low = min(z, 0), floor = -max(z, 0)
//   max(relu(za + da), relu(zb + db)) - top     = max(da + low_a, db + low_b, floor)
//                                                 top = max(relu(za), relu(zb)), low_a = za - top, floor = -top
//
// and a linear layer maps differences to differences without its bias. `low` and `floor` are the star's anchors.
// They are float32 and come from an exact pass in which a lane is a star.
#pragma once

#include "exact.h"

namespace kernel {
namespace {

constexpr int PLAIN_TERMS = 2;   // low, floor
constexpr int POOLED_TERMS = 3;  // low of both positions, floor

constexpr int terms_of(int convolution) { return convolution % 2 ? POOLED_TERMS : PLAIN_TERMS; }

constexpr size_t anchors_of(int convolution) {
  const int block = convolution / 2;
  return size_t(terms_of(convolution)) * CHANNELS[block + 1] * length_of_block(block + convolution % 2);
}

// Where a layer's anchors begin in those of a star: convolutions, two hidden layers, clean labels.
constexpr size_t anchor_offset(int layer) {
  size_t offset = 0;
  for (int i = 0; i < layer; i++) offset += i < N_CONVOLUTIONS ? anchors_of(i) : size_t(PLAIN_TERMS) * HIDDEN;
  return offset;
}
constexpr size_t CLEAN_LABELS_AT = anchor_offset(N_CONVOLUTIONS + 2);
constexpr size_t ANCHORS_SIZE = (CLEAN_LABELS_AT + N_LABELS + 15) / 16 * 16;

// Anchors of the largest tile, before they are sorted by star.
constexpr size_t largest_tile_of_anchors() {
  size_t largest = size_t(PLAIN_TERMS) * HIDDEN;
  for (int block = 0; block < N_BLOCKS; block++) {
    const size_t plain = size_t(PLAIN_TERMS) * CHANNELS[block + 1] * (2 * tile_length(CHANNELS[block + 1]) + 1);
    if (plain > largest) largest = plain;
  }
  return largest;
}

// As the exact pass, and the anchors are kept.
struct AnchorFinish {
  const float* bias;
  Lanes* terms;
  int first;  // position (pooled position) that `terms` begins with

  KERNEL_INLINE Lanes start(int channel) const { return splat(bias[channel]); }

  template <int OUT, bool POOL, int POSITIONS>
  KERNEL_INLINE void store(const Sums<POSITIONS>& sums, int position, int channel, Lanes* output) const {
    ExactFinish{bias}.store<OUT, POOL, POSITIONS>(sums, position, channel, output);
    const int at = ((POOL ? position / 2 : position) - first) * OUT + channel;
    for (int p = 0; p < (POOL ? POSITIONS / 2 : POSITIONS); p++)
      for (int c = 0; c < TILE_CHANNELS; c++) {
        if constexpr (POOL) {
          const Lanes za = sums[2 * p][c], zb = sums[2 * p + 1][c], top = relu(max(za, zb));
          Lanes* t = terms + (at + p * OUT + c) * POOLED_TERMS;
          t[0] = za - top, t[1] = zb - top, t[2] = -top;
        } else {
          const Lanes z = sums[p][c];
          Lanes* t = terms + (at + p * OUT + c) * PLAIN_TERMS;
          t[0] = min(Lanes{}, z), t[1] = -max(Lanes{}, z);
        }
      }
  }
};

struct AnchorPass {
  using Vector = Lanes;
  const Network& network;
  Lanes* terms;    // [largest_tile_of_anchors()]
  float* anchors;  // [n_stars][ANCHORS_SIZE]
  int n_stars;     // lanes in use

  template <int CONVOLUTION>
  AnchorFinish finish(int first) const {
    return {network.convolutions[CONVOLUTION].bias.get(), terms, first};
  }

  template <int CONVOLUTION>
  void end_tile(int first, int end) const {
    constexpr size_t PER_POSITION = size_t(terms_of(CONVOLUTION)) * CHANNELS[CONVOLUTION / 2 + 1];
    sort_by_star(anchor_offset(CONVOLUTION) + first * PER_POSITION, (end - first) * PER_POSITION);
  }

  template <int GROUPS>
  void start_dense(const Dense& layer, Lanes* sums) const {
    ExactPass{network}.start_dense<GROUPS>(layer, sums);
  }

  template <int GROUPS, int LAYER>
  void activate(const Lanes* sums, Lanes* hidden) const {
    static_assert(GROUPS == 1, "a lane is a star here");
    ExactPass{network}.activate<GROUPS, LAYER>(sums, hidden);
    for (int out = 0; out < HIDDEN; out++) {
      terms[PLAIN_TERMS * out] = min(Lanes{}, sums[out]);
      terms[PLAIN_TERMS * out + 1] = -max(Lanes{}, sums[out]);
    }
    sort_by_star(anchor_offset(N_CONVOLUTIONS + LAYER), PLAIN_TERMS * HIDDEN);
  }

  void keep_labels(const Lanes* sums) const {
    for (int star = 0; star < n_stars; star++)
      for (int label = 0; label < N_LABELS; label++)
        anchors[star * ANCHORS_SIZE + CLEAN_LABELS_AT + label] = sums[label][star];
  }

 private:
  // From [term][star] to [star][term].
  void sort_by_star(size_t offset, size_t count) const {
    const float* source = reinterpret_cast<const float*>(terms);
    for (size_t begin = 0; begin < count; begin += LANES) {
      const size_t end = begin + LANES < count ? begin + LANES : count;
      for (int star = 0; star < n_stars; star++) {
        float* target = anchors + star * ANCHORS_SIZE + offset;
        for (size_t i = begin; i < end; i++) target[i] = source[i * LANES + star];
      }
    }
  }
};

// The clean input of a different star in each lane.
class CleanPixels {
 public:
  CleanPixels(const Star* stars, int n_stars) : stars_(stars), n_stars_(n_stars) {}

  void next_pair(int pair, Lanes& even, Lanes& odd) const {
    even = odd = Lanes{};
    for (int lane = 0; lane < n_stars_; lane++) {
      even[lane] = stars_[lane].clean_input[2 * pair];
      if (2 * pair + 1 < N_PIXELS) odd[lane] = stars_[lane].clean_input[2 * pair + 1];
    }
  }

 private:
  const Star* stars_;
  int n_stars_;
};

}  // namespace
}  // namespace kernel
