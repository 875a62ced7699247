"""The noise of the realizations made where torch computes: the numbers of `noise.draw_normals`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from apogee_batch.inference.noise import MIX_1, MIX_2, NoiseKey, words_per_realization


def key_tensor(keys: Sequence[NoiseKey], device: torch.device | str = "cpu") -> Tensor:
    """Return noise keys as torch holds them.

    Parameters
    ----------
    keys : sequence of NoiseKey, length n_stars
    device : torch.device or str

    Returns
    -------
    Tensor of int64, shape (n_stars, 2)
        Seed and gamma. Torch has no arithmetic of unsigned 64-bit numbers: the same bits, read as signed.
    """
    pairs = np.array([(key.seed, key.gamma) for key in keys], np.uint64).reshape(-1, 2)
    return torch.from_numpy(pairs.view(np.int64)).to(device)


def draw_normals_where_keys_are(keys: Tensor, n_realizations: int, n_pixels: int) -> Tensor:
    """Draw the standard normal numbers of the realizations of several stars.

    The integers are those of `noise.draw_normals`; logarithm, sine and cosine are the device's and may differ
    in their last bits.

    Parameters
    ----------
    keys : Tensor of int64, shape (n_stars, 2)
        From `key_tensor`.
    n_realizations, n_pixels : int

    Returns
    -------
    Tensor of float32, shape (n_stars, n_realizations, n_pixels)
    """
    n_words = words_per_realization(n_pixels)
    counter = torch.arange(1, n_realizations * n_words + 1, device=keys.device)
    words = _mix(keys[:, :1] + counter * keys[:, 1:])  # (n_stars, n_realizations * n_words)
    uniform = _shift_right(words, 32).float() * 2.0**-32 + 2.0**-33
    radius = (uniform.log() * -2.0).clamp(min=0).sqrt()
    angle = words.to(torch.int32).float() * float(np.float32(2 * np.pi * 2.0**-32))
    normals = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return normals.view(len(keys), n_realizations, 2 * n_words)[..., :n_pixels]


def _mix(words: Tensor) -> Tensor:
    """Hash 64-bit words; sums and products wrap around."""
    words = (words ^ _shift_right(words, 30)) * _as_signed(MIX_1)
    words = (words ^ _shift_right(words, 27)) * _as_signed(MIX_2)
    return words ^ _shift_right(words, 31)


def _shift_right(words: Tensor, shift: int) -> Tensor:
    """Shift as unsigned words are: torch would fill the upper bits with the sign."""
    return (words >> shift) & ((1 << (64 - shift)) - 1)


def _as_signed(word: int) -> int:
    """Read the bits of an unsigned 64-bit number as a signed one."""
    return word - (1 << 64) if word >> 63 else word
