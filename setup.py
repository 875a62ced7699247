"""The compiled part: the fused CPU kernel, once for each kind of CPU; all else is in pyproject.toml.

Every variant is optional: where there is no compiler, or an old one, the package installs without it.
"""

import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("apogee_batch/inference/kernel")
PACKAGE = "apogee_batch.inference.kernel"
FLAGS = [
    "-std=c++17",
    "-g0",
    "-O3",
    "-ffp-contract=off",  # multiply-adds are fused where the source says so, on every CPU alike
    "-fno-math-errno",
    "-fno-strict-aliasing",  # the same memory holds floats and pairs of bfloat16 in turns
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
STATED = (FOLDER / "__init__.py").read_text(encoding="utf-8")
REVISION = re.findall(r'^REVISION = "(\w+)"', STATED, re.MULTILINE)[0]
VARIANTS: dict[str, list[str]] = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32:
    VARIANTS |= {"avx2": AVX2, "avx512": AVX512, "avx512bf16": [*AVX512, "-mavx512bf16"]}

setup(
    ext_modules=[
        Extension(
            f"{PACKAGE}._{name}",
            sources=[str(FOLDER / f"{name}.cpp")],
            depends=[str(FOLDER / "__init__.py"), *(str(path) for path in sorted(FOLDER.glob("*.h")))],
            define_macros=[("KERNEL_REVISION", f'"{REVISION}"')],
            extra_compile_args=FLAGS + flags,
            language="c++",
            optional=True,
            py_limited_api=True,
        )
        for name, flags in VARIANTS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
