// The network's shape, and its weights in the order in which the tiles read them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "lanes.h"

namespace kernel {
namespace {

constexpr int N_PIXELS = 8575;
constexpr int N_PAIRS = (N_PIXELS + 1) / 2;
constexpr int N_BLOCKS = 6;  // of convolution, ReLU, convolution, ReLU, pool
constexpr int N_CONVOLUTIONS = 2 * N_BLOCKS;
constexpr int N_DENSE = 3;
constexpr int N_LABELS = 3;
constexpr int HIDDEN = 512;
constexpr int TAPS = 3;
constexpr int CHANNELS[N_BLOCKS + 1] = {1, 8, 16, 16, 32, 32, 64};  // a block reads one and gives the next

constexpr int length_of_block(int block) { return N_PIXELS >> block; }  // a pool drops an odd position
constexpr int N_POOLED = length_of_block(N_BLOCKS);
constexpr int N_FEATURES = CHANNELS[N_BLOCKS] * N_POOLED;

constexpr bool all_lengths_are_odd() {
  for (int block = 0; block < N_BLOCKS; block++)
    if (length_of_block(block) % 2 == 0) return false;
  return true;
}
static_assert(all_lengths_are_odd(), "the tiles rely on it: the last position feeds the last pooled one");

// Tile shapes: how many sums live in registers at once.
constexpr int TILE_POSITIONS = 4;
constexpr int TILE_CHANNELS = N_REGISTERS == 32 ? 4 : 2;
constexpr int DENSE_OUTPUTS = N_REGISTERS == 32 ? 4 : 2;
constexpr int DENSE_GROUPS = 6;
constexpr int DENSE_DEPTH = 64;  // inputs of DENSE_GROUPS groups stay in the first cache

// Aligned memory of its own; zero at first, so that nothing is ever read that was not written.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  void allocate(size_t count) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, count * sizeof(T)) != 0) throw std::bad_alloc();
    std::memset(memory, 0, count * sizeof(T));
    std::free(data_);
    data_ = static_cast<T*>(memory);
  }
  T* get() const { return data_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

// Round to the nearest bfloat16 (ties to even); a value that is not finite stays so.
inline uint32_t round_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7f800000u) == 0x7f800000u) return (bits >> 16) | ((bits & 0xffffu) ? 1 : 0);
  return (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
}
inline uint32_t round_to_pair(float even, float odd) { return round_to_bf16(even) | (round_to_bf16(odd) << 16); }

// Weights of one convolution: [channel tile][input channel][tap][channel of the tile]; for differences the
// input channels come in pairs.
struct Convolution {
  Buffer<float> bias, weights;
  Buffer<uint32_t> pairs;

  // `source` is torch's (n_out, n_in, taps).
  void pack(int n_in, int n_out, const float* source, const float* source_bias, bool with_pairs) {
    bias.allocate(n_out);
    std::memcpy(bias.get(), source_bias, n_out * sizeof(float));
    weights.allocate(size_t(n_out) * n_in * TAPS);
    if (with_pairs && n_in > 1) pairs.allocate(size_t(n_out) * n_in / 2 * TAPS);
    auto weight = [&](int out, int in, int tap) { return source[(out * n_in + in) * TAPS + tap]; };
    size_t at = 0, pair_at = 0;
    for (int first = 0; first < n_out; first += TILE_CHANNELS)
      for (int in = 0; in < n_in; in++)
        for (int tap = 0; tap < TAPS; tap++)
          for (int out = first; out < first + TILE_CHANNELS; out++) {
            weights[at++] = weight(out, in, tap);
            if (pairs.get() && in % 2 == 0)
              pairs[pair_at++] = round_to_pair(weight(out, in, tap), weight(out, in + 1, tap));
          }
  }
};

// Weights of one fully connected layer: [depth block][output tile][input or pair][output of the tile], so that a
// pass over a block reads memory from front to back. Outputs are filled up to whole tiles with zeros.
struct Dense {
  int n_in = 0, n_padded = 0;
  Buffer<float> bias, weights;
  Buffer<uint32_t> pairs;

  // `weight(out, in)` gives one weight.
  template <class Weight>
  void pack(int in_count, int out_count, Weight weight, const float* source_bias, bool with_pairs) {
    n_in = in_count;
    n_padded = (out_count + DENSE_OUTPUTS - 1) / DENSE_OUTPUTS * DENSE_OUTPUTS;
    bias.allocate(n_padded);
    std::memcpy(bias.get(), source_bias, out_count * sizeof(float));
    auto padded = [&](int out, int in) { return out < out_count ? weight(out, in) : 0.0f; };
    weights.allocate(size_t(n_in) * n_padded);
    walk(n_in, [&](size_t at, int in, int out) { weights[at] = padded(out, in); });
    if (!with_pairs) return;
    pairs.allocate(size_t(n_in) / 2 * n_padded);
    walk(n_in / 2, [&](size_t at, int pair, int out) {
      pairs[at] = round_to_pair(padded(out, 2 * pair), padded(out, 2 * pair + 1));
    });
  }

 private:
  template <class Put>
  void walk(int depth, Put put) const {
    size_t at = 0;
    for (int block = 0; block < depth; block += DENSE_DEPTH)
      for (int first = 0; first < n_padded; first += DENSE_OUTPUTS)
        for (int k = block; k < depth && k < block + DENSE_DEPTH; k++)
          for (int out = first; out < first + DENSE_OUTPUTS; out++) put(at++, k, out);
  }
};

struct Network {
  Convolution convolutions[N_CONVOLUTIONS];
  Dense dense[N_DENSE];

  // `parameters`: weight and bias of each layer in torch's order and layout.
  Network(const float* const* parameters, bool with_pairs) {
    for (int i = 0; i < N_CONVOLUTIONS; i++) {
      const int n_out = CHANNELS[i / 2 + 1], n_in = i % 2 ? n_out : CHANNELS[i / 2];
      convolutions[i].pack(n_in, n_out, parameters[2 * i], parameters[2 * i + 1], with_pairs);
    }
    const float* const* rest = parameters + 2 * N_CONVOLUTIONS;
    constexpr int LAST = CHANNELS[N_BLOCKS];
    // torch flattens channel by channel, the tiles write position by position
    auto first = [&](int out, int in) { return rest[0][(size_t(out) * LAST + in % LAST) * N_POOLED + in / LAST]; };
    dense[0].pack(N_FEATURES, HIDDEN, first, rest[1], with_pairs);
    dense[1].pack(HIDDEN, HIDDEN, [&](int out, int in) { return rest[2][out * HIDDEN + in]; }, rest[3], with_pairs);
    dense[2].pack(HIDDEN, N_LABELS, [&](int out, int in) { return rest[4][out * HIDDEN + in]; }, rest[5], with_pairs);
  }
};

// Number of values of parameter `i` in the order of `Network`.
inline size_t parameter_size(int i) {
  const int layer = i / 2;
  size_t n_in, n_out;
  if (layer < N_CONVOLUTIONS) {
    n_out = CHANNELS[layer / 2 + 1];
    n_in = size_t(TAPS) * (layer % 2 ? n_out : CHANNELS[layer / 2]);
  } else {
    n_out = layer == N_CONVOLUTIONS + N_DENSE - 1 ? N_LABELS : HIDDEN;
    n_in = layer == N_CONVOLUTIONS ? N_FEATURES : HIDDEN;
  }
  return i % 2 ? n_out : n_in * n_out;
}
constexpr int N_PARAMETERS = 2 * (N_CONVOLUTIONS + N_DENSE);

}  // namespace
}  // namespace kernel
