"""The fused CPU kernel: C++ sources and, where a compiler was at hand, the modules built from them."""
