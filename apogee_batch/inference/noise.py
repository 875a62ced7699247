"""The noise of the realizations: one definition for every engine, on every device.

A counter-based generator, so that any number can be computed by itself: in any order, by any number of
threads, inside a tile of a kernel. It is SplitMix64, as in the SplittableRandom of Steele, Lea and Flood
(2014, OOPSLA): the n-th 64-bit word is a hash of `seed + n * gamma`. Each star has its own seed and its own
gamma, 127 bits of a hash of the run's seed and the star's name, so that no two stars walk the same
sequence. The two halves of a word give two normal numbers by the transform of Box and Muller (1958).
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from apogee_batch.schema import FloatArray

MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # Stafford's 13th variant, as SplittableRandom has it
WEAK_GAMMA_BITS, GAMMA_REPAIR = 24, 0xAAAAAAAAAAAAAAAA
NOISE_DEFINITION = "splitmix64"  # recorded with every catalogue; another definition gets another name
SHIFTS = (30, 27, 31)
KEY_BYTES = 16
ROWS_PER_BLOCK = 8  # 8 x 4288 words of 64 bits stay in a core's L2 cache: 2.3 ms a star of 100 realizations


WordArray = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


@dataclass(frozen=True)
class NoiseKey:
    """What a star's noise follows from.

    Attributes
    ----------
    seed : int
        64 bits: where the star's sequence begins.
    gamma : int
        64 bits, odd: its step.
    """

    seed: int
    gamma: int

    def __post_init__(self) -> None:
        if not (0 <= self.seed < 1 << 64 and 0 <= self.gamma < 1 << 64 and self.gamma % 2):
            raise ValueError("a noise key is two numbers of 64 bits, the second one odd")


def derive_noise_key(run_seed: int, star_key: str) -> NoiseKey:
    """Return the noise key of a star, which depends on the run's seed and the star alone.

    A star's realizations therefore do not change with the shards, the worker, or a retry.

    Parameters
    ----------
    run_seed : int
        Seed of the run.
    star_key : str
        Unique name of the star (`apstar_id`).
    """
    digest = blake2b(f"{run_seed}\0{star_key}".encode(), digest_size=KEY_BYTES).digest()
    gamma = int.from_bytes(digest[8:], "little") | 1
    if (gamma ^ (gamma >> 1)).bit_count() < WEAK_GAMMA_BITS:  # steps with long runs of equal bits mix worse
        gamma ^= GAMMA_REPAIR
    return NoiseKey(int.from_bytes(digest[:8], "little"), gamma)


def words_per_realization(n_pixels: int) -> int:
    """Return how many words a realization takes: one for two neighbouring pixels."""
    return (n_pixels + 1) // 2


def draw_normals(key: NoiseKey, n_realizations: int, n_pixels: int) -> FloatArray:
    """Draw the standard normal numbers of a star's realizations.

    Parameters
    ----------
    key : NoiseKey
        Of the star.
    n_realizations : int
    n_pixels : int

    Returns
    -------
    ndarray of float32, shape (n_realizations, n_pixels)
        The first rows do not change when more are asked for.
    """
    n_words = words_per_realization(n_pixels)
    normals = np.empty((n_realizations, n_words, 2), np.float32)
    steps = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(key.gamma)
    for first in range(0, n_realizations, ROWS_PER_BLOCK):
        block = normals[first : first + ROWS_PER_BLOCK]
        rows = np.arange(first, first + len(block), dtype=np.uint64) * np.uint64(n_words)
        starts = rows * np.uint64(key.gamma) + np.uint64(key.seed)
        _transform(_mix(starts[:, None] + steps), block)
    return normals.reshape(n_realizations, 2 * n_words)[:, :n_pixels]


def _mix(words: WordArray) -> WordArray:
    """Hash words in place."""
    for shift, factor in zip(SHIFTS, (MIX_1, MIX_2, 1), strict=True):
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    return words


def _transform(words: WordArray, normals: FloatArray) -> None:
    """Turn each word into two normal numbers: a radius from its upper half, an angle from its lower one."""
    radius = (words >> np.uint64(32)).astype(np.float32)
    radius *= np.float32(2.0**-32)
    radius += np.float32(2.0**-33)  # never 0: no number is larger than sqrt(66 ln 2) = 6.8
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.maximum(radius, 0, out=radius)
    np.sqrt(radius, out=radius)
    angle = words.astype(np.uint32).view(np.int32).astype(np.float32)
    angle *= np.float32(2 * np.pi * 2.0**-32)
    np.multiply(radius, np.cos(angle), out=normals[..., 0])
    np.multiply(radius, np.sin(angle), out=normals[..., 1])
