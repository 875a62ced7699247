// Where the time goes: parts of a call, in seconds.
#pragma once

#include <chrono>

namespace kernel {
namespace {

struct Parts {
  double noise = 0, convolutions = 0, dense = 0, anchors = 0;
};

// Adds its lifetime to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds), began_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count(); }

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point began_;
};

}  // namespace
}  // namespace kernel
