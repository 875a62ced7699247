"""What computes the forward passes: one seam, so that an engine can take another one's place."""

from dataclasses import dataclass
from typing import Literal, Protocol

from apogee_batch.inference.noise import NoiseKey
from apogee_batch.schema import DoubleArray, FloatArray

Precision = Literal["exact", "fast"]
EngineChoice = Literal["auto", "kernel", "openvino", "torch", "cuda", "tiles"]


@dataclass(frozen=True)
class StarBatch:
    """Some stars as an engine wants them.

    Attributes
    ----------
    flux : ndarray of float32, shape (n_stars, n_pixels)
        Spectra as stored; gaps hold 0.
    err : ndarray of float32, shape (n_stars, n_pixels)
        Standard deviation of the noise, from `cap_err`; 0 where there is none.
    keys : tuple of NoiseKey, length n_stars
    """

    flux: FloatArray
    err: FloatArray
    keys: tuple[NoiseKey, ...]

    def __post_init__(self) -> None:
        if not (self.flux.shape == self.err.shape and len(self.flux) == len(self.keys)):
            raise ValueError("flux, err and keys of a batch belong to the same stars")

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> "StarBatch":
        """Return some of the stars."""
        return StarBatch(self.flux[start:stop], self.err[start:stop], self.keys[start:stop])


class Engine(Protocol):
    """Predict labels of noisy copies of spectra.

    A star's numbers depend on its key and its spectrum alone: not on the other stars of a call, nor on how
    many there are, nor on threads.

    Attributes
    ----------
    name : str
        "torch", "openvino", "kernel", "cuda" or "tiles".
    precision : {"exact", "fast"}
        "exact": float32 throughout. "fast": 16 bits, for the differences from the clean spectrum only.
    stars_per_call : int
        How many stars it takes best at once.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  described above

    @property
    def precision(self) -> Precision: ...  # noqa: D102

    @property
    def stars_per_call(self) -> int: ...  # noqa: D102

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return physical labels of clean spectra and of their realizations.

        Parameters
        ----------
        stars : StarBatch
            One or more.
        n_realizations : int
            Noisy copies flux + err * normal of each spectrum, the normals as `draw_normals` gives them.

        Returns
        -------
        ndarray of float64, shape (n_stars, 1 + n_realizations, n_labels)
            The clean spectrum comes first.
        """
        ...
