"""The fused CPU kernel: C++ sources and, where a compiler was at hand, the modules built from them."""

# The beginning of the SHA-256 of the sources, which a test compares with them: modules that were built from
# others are not used.
REVISION = "e4c159e9f4a9"
