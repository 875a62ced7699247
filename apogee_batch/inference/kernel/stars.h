// Which realizations sit in the lanes of a group, and how the network's input is made for them, pixel by pixel.
#pragma once

#include "network.h"
#include "noise.h"

namespace kernel {
namespace {

struct Star {
  const float* flux;  // [N_PIXELS]
  const float* err;   // [N_PIXELS], capped
  float scale;        // the flux that the contrast transform divides by
  uint64_t seed, gamma;
  const float* clean_input = nullptr;  // [N_PIXELS], for differences: the transformed flux
  const float* anchors = nullptr;      // for differences: see anchors.h
};

// `raw`: the flux itself. `contrast`: gain * (flux / scale - 1), limited before the gain; gaps (flux 0) are 0.
struct Transform {
  bool is_contrast;
  float clip, gain;

  KERNEL_INLINE Lanes apply(Lanes flux, Lanes scale) const {
    if (!is_contrast) return flux;
    const Lanes contrast = clamp(flux / scale - 1.0f, splat(-clip), splat(clip)) * gain;
    return select(flux == Lanes{}, Lanes{}, contrast);
  }
};

// A group holds realizations of one star, or the last ones of a star and the first ones of the next: so no lane
// is left empty where a star's realizations do not fill whole vectors. Values that belong to a star are one
// broadcast, or two and a selection.
struct Group {
  const Star* first = nullptr;
  const Star* second = nullptr;  // the first again where the group has one star
  bool is_mixed = false;
  IntLanes in_second{};
  IntLanes is_noisy{};  // row 0 is the clean spectrum; idle lanes are as it is
  NoiseLanes noise{};
  int n_lanes = 0;
  int star[LANES];  // of each lane in use: its star in the call and its row (0 clean, 1 + realization)
  int row[LANES];

  KERNEL_INLINE Lanes value(const float* of_first, const float* of_second, size_t i) const {
    if (!is_mixed) return splat(of_first[i]);
    return select(in_second, splat(of_second[i]), splat(of_first[i]));
  }
};

// Goes over the rows first_row ... n_realizations of every star and packs them into groups.
class Packer {
 public:
  Packer(const Star* stars, int n_stars, int first_row, int n_realizations)
      : stars_(stars), n_stars_(n_stars), first_row_(first_row), last_row_(n_realizations), row_(first_row) {}

  bool is_done() const { return star_ == n_stars_; }

  void fill(Group& group) {
    group = Group{};
    const int first = star_;
    group.first = group.second = &stars_[first];
    while (group.n_lanes < LANES && star_ < n_stars_ && star_ <= first + 1) {
      const int lane = group.n_lanes++;
      const Star& star = stars_[star_];
      group.star[lane] = star_;
      group.row[lane] = row_;
      if (star_ != first) {
        group.second = &star;
        group.is_mixed = true;
        group.in_second[lane] = -1;
      }
      if (row_ > 0) {
        group.is_noisy[lane] = -1;
        group.noise.set_lane(lane, star.seed, star.gamma, uint64_t(row_ - 1), N_PAIRS);
      }
      if (++row_ > last_row_) row_ = first_row_, star_++;
    }
  }

 private:
  const Star* stars_;
  int n_stars_, first_row_, last_row_;
  int star_ = 0, row_;
};

// Pixels of the noisy realizations of a group; with DIFFERENCE what they differ by from the clean input.
template <bool DIFFERENCE>
class NoisyPixels {
 public:
  NoisyPixels(const Group& group, const Transform& transform)
      : group_(group), transform_(transform), noise_(group.noise) {
    scale_ = group.value(&group.first->scale, &group.second->scale, 0);
  }

  KERNEL_INLINE void next_pair(int pair, Lanes& even, Lanes& odd) {
    Lanes even_normal, odd_normal;
    noise_.next(even_normal, odd_normal);
    even = pixel(2 * pair, even_normal);
    odd = 2 * pair + 1 < N_PIXELS ? pixel(2 * pair + 1, odd_normal) : Lanes{};
  }

 private:
  KERNEL_INLINE Lanes pixel(int p, Lanes normal) const {
    const Star &first = *group_.first, &second = *group_.second;
    const Lanes flux = group_.value(first.flux, second.flux, p);
    const Lanes err = select(group_.is_noisy, group_.value(first.err, second.err, p), Lanes{});
    const Lanes input = transform_.apply(flux + err * normal, scale_);
    return DIFFERENCE ? input - group_.value(first.clean_input, second.clean_input, p) : input;
  }

  const Group& group_;
  Transform transform_;
  NoiseLanes noise_;
  Lanes scale_;
};

}  // namespace
}  // namespace kernel
