// x86 with AVX2 and fused multiply-add: 8 lanes.
#define KERNEL_NAME avx2
#include "module.h"
