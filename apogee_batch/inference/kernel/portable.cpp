// Any CPU; on 64-bit ARM with NEON.
#define KERNEL_NAME portable
#include "module.h"
