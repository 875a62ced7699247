// Which of the compiled variants this CPU and its operating system can run.
#pragma once

namespace kernel {
namespace {

struct Variant {
  const char* name;
  bool can_run;
};

constexpr int N_VARIANTS = 4;

// Best first. Asked in the portable module only: the others may not even be able to answer.
inline void find_runnable_variants(Variant (&variants)[N_VARIANTS]) {
  variants[0] = {"avx512bf16", false};
  variants[1] = {"avx512", false};
  variants[2] = {"avx2", false};
  variants[3] = {"portable", true};
#if defined(__x86_64__)
  __builtin_cpu_init();
  variants[2].can_run = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  variants[1].can_run = variants[2].can_run && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
#if defined(__clang__) || __GNUC__ >= 10
  variants[0].can_run = variants[1].can_run && __builtin_cpu_supports("avx512bf16");
#endif
#endif
}

}  // namespace
}  // namespace kernel
