"""What Triton makes of the tiles for a GPU that need not be there: registers, memory, instructions."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from apogee_batch.inference.triton_tiles import TilePlan

HALF_PRECISION = ("inputs", "outputs", "weights_a", "weights_b")
SINGLE_PRECISION = ("anchors_a", "anchors_b", "scales")
WARP = 32
REGISTERS, SHARED_BYTES, MOST_PROGRAMS = 65_536, 227 * 1024, 32  # of a multiprocessor of an H100 or H200
PROGRAM_BYTES = 1024  # of shared memory that the system takes for each program


@dataclass(frozen=True)
class Compiled:
    """One block's kernel.

    Attributes
    ----------
    plan : TilePlan
    registers : int
        Of a thread.
    spilled_bytes : int
        Of a thread, in local memory.
    shared_bytes : int
        Of a program.
    products : dict of str to int
        Instructions for matrix products in the PTX: "wgmma" (of warp groups) and "mma" (of warps).
    n_maxima, n_forgetful : int
        Of float32 numbers in the PTX, minima too: those that keep NaN, and those that drop it.
    loop : dict of str to int
        Machine instructions of a step, by name, of one warp.
    """

    plan: TilePlan
    registers: int
    spilled_bytes: int
    shared_bytes: int
    products: dict[str, int]
    n_maxima: int
    n_forgetful: int
    loop: dict[str, int]

    @property
    def instructions(self) -> int:
        """Machine instructions of a step, of one warp."""
        return sum(self.loop.values())

    @property
    def programs_at_once(self) -> int:
        """How many programs a multiprocessor of an H100 or H200 can hold."""
        threads = self.plan.n_warps * WARP
        by_registers = REGISTERS // (threads * -(-self.registers // 8) * 8)
        by_memory = SHARED_BYTES // (self.shared_bytes + PROGRAM_BYTES)
        return min(by_registers, by_memory, MOST_PROGRAMS)


def compile_block(kernels: ModuleType, plan: TilePlan, capability: int) -> Compiled:
    """Compile a block's kernel.

    Parameters
    ----------
    kernels : module
        `triton_kernels`, not interpreted.
    plan : TilePlan
    capability : int
        Compute capability times 10: 80 is an A100, 90 an H100 or H200.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = kernels.run_narrow_block if plan.is_narrow else kernels.run_wide_block
    constants = plan.constants()
    signature = {name: _type_of(name, constants) for name in kernel.arg_names}
    tensors = [(i,) for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs=constants,
        attrs={place: [["tt.divisibility", 16]] for place in tensors},  # as the launcher finds them
    )
    options = {"num_warps": plan.n_warps, "num_stages": plan.n_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, WARP), options=options)
    ptx = str(compiled.asm["ptx"])
    usage, code = _take_apart(Path(triton.__file__).parent / "backends/nvidia/bin", compiled.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None
    return Compiled(
        plan,
        registers=int(found[1]),
        spilled_bytes=int(found[2]),
        shared_bytes=int(compiled.metadata.shared),
        products={"wgmma": ptx.count("wgmma.mma_async"), "mma": ptx.count("mma.sync.")},
        n_maxima=len(re.findall(r"\b(?:max|min)\.NaN\.f32", ptx)),
        n_forgetful=len(re.findall(r"\b(?:max|min)\.(?:ftz\.)?f32", ptx)),
        loop=_count_loop(code),
    )


def _type_of(name: str, constants: dict[str, int | bool]) -> str:
    if name in constants:
        return "constexpr"
    if name in HALF_PRECISION:
        return "*fp16"
    return "*fp32" if name in SINGLE_PRECISION else "i32"


def _take_apart(programs: Path, cubin: bytes) -> tuple[str, str]:
    """Return what a kernel uses, and its machine code, by NVIDIA's program in Triton's wheel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run(
                [programs / "cuobjdump", option, file.name], check=True, capture_output=True, text=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    return usage, code


def _count_loop(code: str) -> dict[str, int]:
    """Count the instructions of the longest loop, which is the one over steps."""
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?(.*?);", code, re.MULTILINE)
    instructions = [(int(place, 16), text) for place, text in lines]
    loops = []
    for place, text in instructions:
        jump = re.match(r"BRA.* 0x([0-9a-f]+)", text)
        if jump and int(jump[1], 16) < place:
            loops.append((place - int(jump[1], 16), int(jump[1], 16), place))
    _, first, last = max(loops)
    names = (re.split(r"[ .]", text)[0] for place, text in instructions if first <= place <= last)
    return dict(Counter(names).most_common())
