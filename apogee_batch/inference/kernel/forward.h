// The forward pass over realizations: stars in, standardised labels out.
#pragma once

#include "differences.h"

namespace kernel {
namespace {

// Memory of one thread, kept from call to call.
class Workspace {
 public:
  explicit Workspace(bool is_fast) {
    for (int block = 1; block < N_BLOCKS; block++)
      activations_[block].allocate(size_t(length_of_block(block) + 2) * CHANNELS[block]);
    middle_.allocate(largest_middle());
    features_.allocate(size_t(DENSE_GROUPS) * N_FEATURES);
    hidden_.allocate(DENSE_GROUPS * HIDDEN);
    sums.allocate(DENSE_GROUPS * HIDDEN);
    if (!is_fast) return;
    terms.allocate(largest_tile_of_anchors());
    anchors.allocate(LANES * ANCHORS_SIZE);
    clean_inputs.allocate(LANES * PADDED_PIXELS);
  }

  // The same memory holds `Lanes` and `Pairs`: an exact pass and one of differences take turns.
  template <class Vector>
  Vector* activations(int block) const {
    return reinterpret_cast<Vector*>(activations_[block].get());
  }
  template <class Vector>
  Vector* middle() const {
    return reinterpret_cast<Vector*>(middle_.get());
  }
  template <class Vector>
  Vector* features(int group) const {
    return reinterpret_cast<Vector*>(features_.get()) + size_t(group) * Packed<Vector>::vectors(N_FEATURES);
  }
  template <class Vector>
  Vector* hidden() const {
    return reinterpret_cast<Vector*>(hidden_.get());
  }

  static constexpr int PADDED_PIXELS = (N_PIXELS + LANES - 1) / LANES * LANES;
  Buffer<Lanes> sums, terms;
  Buffer<float> anchors, clean_inputs;
  Parts parts;

 private:
  Buffer<Lanes> activations_[N_BLOCKS], middle_, features_, hidden_;
};

struct Call {
  Star* stars;
  int n_stars;
  int n_realizations;
  Transform transform;
  float* labels;  // [n_stars][1 + n_realizations][N_LABELS]

  float* labels_of(int star, int row) const {
    return labels + (size_t(star) * (1 + n_realizations) + row) * N_LABELS;
  }
};

template <int BLOCK, class Pass, class Source>
void run_blocks_from(const Network& network, Pass& pass, Source& source, const Workspace& memory,
                     typename Pass::Vector* features) {
  using Vector = typename Pass::Vector;
  if constexpr (BLOCK + 1 == N_BLOCKS) {
    run_block<BLOCK>(network, pass, source, memory.middle<Vector>(), features);
  } else {
    constexpr int STEP = Packed<Vector>::vectors(CHANNELS[BLOCK + 1]), LENGTH = length_of_block(BLOCK + 1);
    Vector* output = memory.activations<Vector>(BLOCK + 1);
    std::memset(output, 0, STEP * sizeof(Vector));
    std::memset(output + size_t(LENGTH + 1) * STEP, 0, STEP * sizeof(Vector));
    run_block<BLOCK>(network, pass, source, memory.middle<Vector>(), output + STEP);
    StoredInput<Vector, BLOCK + 1> next{output};
    run_blocks_from<BLOCK + 1>(network, pass, next, memory, features);
  }
}

// The convolutions of one group.
template <class Pass, class Pixels>
void extract_features(const Network& network, Pass& pass, Pixels& pixels, Workspace& memory,
                      typename Pass::Vector* features) {
  const double noise_before = memory.parts.noise;
  {
    const Stopwatch watch(memory.parts.convolutions);
    TiledInput<Pixels> input(pixels, memory.parts.noise);
    run_blocks_from<0>(network, pass, input, memory, features);
  }
  memory.parts.convolutions -= memory.parts.noise - noise_before;
}

template <bool DIFFERENCE, class Pass>
void run_rows(const Network& network, Workspace& memory, const Call& call, Pass make_pass) {
  using Vector = typename decltype(make_pass(nullptr))::Vector;
  Group groups[DENSE_GROUPS];
  Packer packer(call.stars, call.n_stars, DIFFERENCE ? 1 : 0, call.n_realizations);
  while (!packer.is_done()) {
    int n_groups = 0;
    for (; n_groups < DENSE_GROUPS && !packer.is_done(); n_groups++) {
      Group& group = groups[n_groups];
      packer.fill(group);
      NoisyPixels<DIFFERENCE> pixels(group, call.transform);
      auto pass = make_pass(&group);
      extract_features(network, pass, pixels, memory, memory.features<Vector>(n_groups));
    }
    const Stopwatch watch(memory.parts.dense);
    auto pass = make_pass(groups);
    run_panel<DENSE_GROUPS>(n_groups, network, pass, memory.features<Vector>(0), memory.hidden<Vector>(),
                            memory.sums.get());
    for (int g = 0; g < n_groups; g++)
      for (int lane = 0; lane < groups[g].n_lanes; lane++) {
        const int star = groups[g].star[lane];
        for (int label = 0; label < N_LABELS; label++) {
          float value = memory.sums[label * n_groups + g][lane];
          if constexpr (DIFFERENCE) value += call.stars[star].anchors[CLEAN_LABELS_AT + label];
          call.labels_of(star, groups[g].row[lane])[label] = value;
        }
      }
  }
}

inline void predict_exact(const Network& network, Workspace& memory, const Call& call) {
  run_rows<false>(network, memory, call, [&](const Group*) { return ExactPass{network}; });
}

#if KERNEL_HAS_BF16

// Compute the anchors of up to LANES stars and write their clean labels.
inline void anchor_stars(const Network& network, Workspace& memory, const Call& call) {
  const Parts before = memory.parts;
  const Stopwatch watch(memory.parts.anchors);
  for (int i = 0; i < call.n_stars; i++) {
    Star& star = call.stars[i];
    float* inputs = memory.clean_inputs.get() + size_t(i) * Workspace::PADDED_PIXELS;
    for (int p = 0; p < N_PIXELS; p += LANES) {  // here a lane is a pixel
      const int count = N_PIXELS - p < LANES ? N_PIXELS - p : LANES;
      Lanes flux{};
      std::memcpy(&flux, star.flux + p, count * sizeof(float));
      const Lanes input = call.transform.apply(flux, splat(star.scale));
      std::memcpy(inputs + p, &input, sizeof input);
    }
    star.clean_input = inputs;
    star.anchors = memory.anchors.get() + size_t(i) * ANCHORS_SIZE;
  }
  AnchorPass pass{network, memory.terms.get(), memory.anchors.get(), call.n_stars};
  CleanPixels pixels(call.stars, call.n_stars);
  extract_features(network, pass, pixels, memory, memory.features<Lanes>(0));
  run_dense<1>(network, pass, memory.features<Lanes>(0), memory.hidden<Lanes>(), memory.sums.get());
  pass.keep_labels(memory.sums.get());
  for (int i = 0; i < call.n_stars; i++)
    for (int label = 0; label < N_LABELS; label++)
      call.labels_of(i, 0)[label] = call.stars[i].anchors[CLEAN_LABELS_AT + label];
  memory.parts.noise = before.noise;
  memory.parts.convolutions = before.convolutions;
}

inline void predict_fast(const Network& network, Workspace& memory, const Call& call) {
  for (int first = 0; first < call.n_stars; first += LANES) {
    Call part = call;
    part.stars = call.stars + first;
    part.n_stars = call.n_stars - first < LANES ? call.n_stars - first : LANES;
    part.labels = call.labels_of(first, 0);
    anchor_stars(network, memory, part);
    run_rows<true>(network, memory, part, [](const Group* groups) { return DifferencePass{groups}; });
  }
}

#endif

}  // namespace
}  // namespace kernel
