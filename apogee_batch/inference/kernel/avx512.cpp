// x86 with AVX-512: 16 lanes.
#define KERNEL_NAME avx512
#include "module.h"
