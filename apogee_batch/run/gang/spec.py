"""What the ranks of one attempt to train must know, in a folder that all of them see."""

import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apogee_batch.files import read_json, write_json, write_text
from apogee_batch.run.config import Device

GANG = "gang"  # folder of the attempts, in that of the model; removed at the end
SPEC_FILE = "spec.json"
ADDRESS_FILE = "address.json"
GIVEN_UP_FILE = "given-up"


@dataclass(frozen=True)
class GangSpec:
    """One attempt of some ranks to train: paths and numbers.

    Attributes
    ----------
    attempt : str
        Hexadecimal digits that no other attempt has.
    store, model : str
        Paths of the store and of the model's folder.
    recipe : dict
        JSON values of the recipe.
    seed, threads : int
        Seed of all random numbers; threads of each rank on a CPU.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    n_ranks : int
    stall_s : float
        How long a rank may be silent between two steps.
    ca_file, cert, key : str
        Paths of the certificate of the authority, and of the ranks' own with its key.
    """

    attempt: str
    store: str
    model: str
    recipe: dict[str, Any]
    seed: int
    threads: int
    device: Device
    n_ranks: int
    stall_s: float
    ca_file: str
    cert: str
    key: str

    @property
    def folder(self) -> Path:
        """Where this is written."""
        return attempt_folder(Path(self.model), self.attempt)

    @property
    def attempt_bytes(self) -> bytes:
        """What each message of the attempt carries."""
        return bytes.fromhex(self.attempt)

    def write(self) -> Path:
        """Write this for the ranks."""
        return write_json(self.folder / SPEC_FILE, asdict(self)).path

    @classmethod
    def read(cls, path: Path) -> "GangSpec":
        """Read what `write` wrote."""
        return cls(**read_json(path))

    def publish_address(self, host: str, port: int) -> None:
        """Tell the other ranks where the first one listens."""
        write_json(self.folder / ADDRESS_FILE, {"host": host, "port": port})

    def find_address(self) -> tuple[str, int] | None:
        """Return where the first rank listens; None while it does not."""
        try:
            found = read_json(self.folder / ADDRESS_FILE)
        except (FileNotFoundError, ValueError):
            return None
        return found["host"], found["port"]

    def give_up(self) -> None:
        """Tell all ranks to end."""
        write_text(self.folder / GIVEN_UP_FILE, "")

    def is_given_up(self) -> bool:
        """Tell whether the driver has given the attempt up, or a later one has cleared it away."""
        return (self.folder / GIVEN_UP_FILE).exists() or not (self.folder / SPEC_FILE).exists()


def new_attempt() -> str:
    """Return digits for an attempt."""
    return uuid.uuid4().hex


def attempt_folder(model: Path, attempt: str) -> Path:
    """Return the folder of an attempt."""
    return model / GANG / attempt
