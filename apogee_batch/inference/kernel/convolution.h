// Convolutions in tiles: a block (convolution, ReLU, convolution, ReLU, pool) goes along the spectrum in tiles, and
// what its first convolution gives stays in the caches until the second one has read it.
//
// Layout of activations: [position][channel] of `Lanes`, or [position][pair of channels] of `Pairs`. Position -1
// and the position after the last hold zeros.
#pragma once

#include <cstring>

#include "network.h"
#include "stopwatch.h"

namespace kernel {
namespace {

// Number of vectors that hold `channels` channels of one position.
template <class Vector>
struct Packed;
template <>
struct Packed<Lanes> {
  static constexpr int vectors(int channels) { return channels; }
  static const float* weights(const Convolution& layer) { return layer.weights.get(); }
  static const float* weights(const Dense& layer) { return layer.weights.get(); }
};
template <>
struct Packed<Pairs> {
  static constexpr int vectors(int channels) { return channels / 2; }
  static const uint32_t* weights(const Convolution& layer) { return layer.pairs.get(); }
  static const uint32_t* weights(const Dense& layer) { return layer.pairs.get(); }
};

template <int POSITIONS>
using Sums = Lanes[POSITIONS][TILE_CHANNELS];

// Add the products of POSITIONS + 2 input positions and the weights of one channel tile to the sums. Each weight
// is broadcast once for all positions, each input is loaded once for all channels and taps.
template <int DEPTH, int POSITIONS, class Vector, class Weight>
KERNEL_INLINE void accumulate(Sums<POSITIONS>& sums, const Vector* input, const Weight* weights) {
  for (int i = 0; i < DEPTH; i++) {
    Vector x[POSITIONS + TAPS - 1];
    KERNEL_UNROLL for (int p = 0; p < POSITIONS + TAPS - 1; p++) x[p] = input[p * DEPTH + i];
    KERNEL_UNROLL for (int tap = 0; tap < TAPS; tap++)
      KERNEL_UNROLL for (int c = 0; c < TILE_CHANNELS; c++) {
        const Weight weight = weights[(i * TAPS + tap) * TILE_CHANNELS + c];
        KERNEL_UNROLL for (int p = 0; p < POSITIONS; p++) sums[p][c] = multiply_add(x[p + tap], weight, sums[p][c]);
      }
  }
}

// POSITIONS positions from `position` on, all channels. `input` begins one position earlier; `finish` says what
// sums begin with and what becomes of them (exact.h, anchors.h, differences.h).
template <int IN, int OUT, bool POOL, int POSITIONS, class Vector, class Finish, class Output>
KERNEL_INLINE void convolve_positions(const Convolution& layer, const Finish& finish, const Vector* input,
                                      Output* output, int position) {
  constexpr int DEPTH = Packed<Vector>::vectors(IN);
  const auto* weights = Packed<Vector>::weights(layer);
  for (int channel = 0; channel < OUT; channel += TILE_CHANNELS) {
    Sums<POSITIONS> sums;
    KERNEL_UNROLL for (int c = 0; c < TILE_CHANNELS; c++) {
      const Lanes start = finish.start(channel + c);
      KERNEL_UNROLL for (int p = 0; p < POSITIONS; p++) sums[p][c] = start;
    }
    accumulate<DEPTH, POSITIONS>(sums, input, weights + size_t(channel) * DEPTH * TAPS);
    finish.template store<OUT, POOL, POSITIONS>(sums, position, channel, output);
  }
}

// Activations between blocks come from the outer caches: ask for them some tiles ahead (2 % of an exact pass).
constexpr int PREFETCH_POSITIONS = 16;

// `n_positions` positions from `first` on; even with a pool, whose outputs are half as many.
template <int IN, int OUT, bool POOL, class Vector, class Finish, class Output>
__attribute__((noinline)) void convolve(const Convolution& layer, const Finish finish, const Vector* input,
                                        Output* output, int first, int n_positions) {
  constexpr int IN_STEP = Packed<Vector>::vectors(IN);
  constexpr int OUT_STEP = Packed<Output>::vectors(OUT);
  int p = 0;
  const auto input_at = [&](int p) { return input + size_t(p) * IN_STEP; };
  const auto output_at = [&](int p) { return output + size_t(POOL ? p / 2 : p) * OUT_STEP; };
  for (; p + TILE_POSITIONS <= n_positions; p += TILE_POSITIONS) {
    if constexpr (!POOL && IN > 1)
      KERNEL_UNROLL for (int i = 0; i < TILE_POSITIONS * IN_STEP; i++)
        __builtin_prefetch(input_at(p + PREFETCH_POSITIONS) + i);
    convolve_positions<IN, OUT, POOL, TILE_POSITIONS>(layer, finish, input_at(p), output_at(p), first + p);
  }
  for (; p + 2 <= n_positions; p += 2)
    convolve_positions<IN, OUT, POOL, 2>(layer, finish, input_at(p), output_at(p), first + p);
  if constexpr (!POOL)
    if (p < n_positions)
      convolve_positions<IN, OUT, POOL, 1>(layer, finish, input_at(p), output_at(p), first + p);
}

// Pooled positions of a tile: the activations between its two convolutions take about 64 kB in any block.
constexpr int tile_length(int channels) { return channels <= 8 ? 48 : channels <= 16 ? 32 : channels <= 32 ? 16 : 8; }

// Vectors of the largest tile between two convolutions, with the two positions carried over.
constexpr int largest_middle() {
  int largest = 0;
  for (int block = 0; block < N_BLOCKS; block++) {
    const int size = (2 * tile_length(CHANNELS[block + 1]) + 2) * CHANNELS[block + 1];
    if (size > largest) largest = size;
  }
  return largest;
}

// One block. `source.positions(first, end)` gives the input from position first - 1 up to and with `end`; `output`
// is where pooled position 0 goes.
template <int BLOCK, class Pass, class Source, class Vector>
void run_block(const Network& network, Pass& pass, Source& source, Vector* middle, Vector* output) {
  constexpr int IN = CHANNELS[BLOCK], OUT = CHANNELS[BLOCK + 1];
  constexpr int N_OUT = length_of_block(BLOCK + 1), TILE = tile_length(OUT);
  constexpr int STEP = Packed<Vector>::vectors(OUT);
  std::memset(middle, 0, STEP * sizeof(Vector));  // position -1
  int done = 0;                                   // positions of the first convolution
  for (int begin = 0; begin < N_OUT; begin += TILE) {
    const int end = begin + TILE < N_OUT ? begin + TILE : N_OUT;
    const int base = 2 * begin - 1;  // the position that `middle` begins with
    const int needed = 2 * end + 1;
    // The second convolution looks one position back and one ahead: two positions serve two tiles.
    if (begin > 0) std::memcpy(middle, middle + size_t(2) * TILE * STEP, 2 * STEP * sizeof(Vector));
    const auto* input = source.positions(done, needed);
    convolve<IN, OUT, false>(network.convolutions[2 * BLOCK], pass.template finish<2 * BLOCK>(done), input,
                             middle + size_t(done - base) * STEP, done, needed - done);
    pass.template end_tile<2 * BLOCK>(done, needed);
    done = needed;
    convolve<OUT, OUT, true>(network.convolutions[2 * BLOCK + 1], pass.template finish<2 * BLOCK + 1>(begin),
                             middle, output + size_t(begin) * STEP, 2 * begin, 2 * (end - begin));
    pass.template end_tile<2 * BLOCK + 1>(begin, end);
  }
}

// Activations that an earlier block left in memory, with a position of zeros at both ends.
template <class Vector, int BLOCK>
struct StoredInput {
  const Vector* data;
  const Vector* positions(int first, int) const {
    return data + size_t(first) * Packed<Vector>::vectors(CHANNELS[BLOCK]);
  }
};

// The network's input, made tile by tile from `pixels.next_pair`.
template <class Pixels>
class TiledInput {
 public:
  TiledInput(Pixels& pixels, double& seconds) : pixels_(pixels), seconds_(seconds) {}

  const Lanes* positions(int first, int end) {
    const Stopwatch watch(seconds_);
    const int begin = first / 2;  // in pairs; `tile_` begins a pair earlier
    if (begin > 0) {
      tile_[2] = tile_[2 * (next_ - 1 - last_begin_) + 2];
      tile_[3] = tile_[2 * (next_ - 1 - last_begin_) + 3];
    }
    for (; next_ <= end / 2; next_++) {
      Lanes* pair = tile_ + 2 * (next_ - begin) + 2;
      pixels_.next_pair(next_, pair[0], pair[1]);
    }
    last_begin_ = begin;
    return tile_ + first + 1 - 2 * begin;
  }

 private:
  Pixels& pixels_;
  double& seconds_;
  int next_ = 0;  // pair to be made
  int last_begin_ = 0;
  Lanes tile_[2 * tile_length(CHANNELS[1]) + 4] = {};
};

}  // namespace
}  // namespace kernel
