// x86 with AVX-512 and dot products of bfloat16: the fast pass as well.
#define KERNEL_NAME avx512bf16
#include "module.h"
