"""What a rank of a training does, in a process of its own: `-m apogee_batch.run.gang.rank SPEC RANK HOST`.

It tells whoever started it, a line at a time on its standard output, that it lives and what went wrong; it
ends when its standard input does, which is when the other end has died.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 600.0  # for all ranks to import torch and read their spectra, from a busy file system
BEAT_S = 0.5
POLL_S = 0.2
PR_SET_PDEATHSIG = 1


class Voice:
    """Lines for whoever watches this rank.

    Parameters
    ----------
    descriptor : int
        Where they go.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last, self._lock = 0.0, threading.Lock()
        self._doing = "start"

    def beat(self, doing: str = "") -> None:
        """Say now and then that this rank lives; `doing` is "step" once it trains."""
        with self._lock:
            is_new = doing not in ("", self._doing)
            self._doing = doing or self._doing
            now = time.monotonic()
            if is_new or now - self._last > BEAT_S:
                self._last = now
                self._write({"doing": self._doing})

    def tell_error(self, error: BaseException) -> None:
        """Say what ended this rank, so that it can be raised again elsewhere."""
        told: dict[str, Any] = {"error": type(error).__name__, "text": str(error)}
        if isinstance(error, OSError):
            told |= {"errno": error.errno, "filename": error.filename}
        with self._lock:
            self._write(told)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(line, default=str) + "\n").encode())


def main(arguments: list[str]) -> int:
    """Train as one of the ranks; return the exit code."""
    voice = Voice(_take_stdout())
    _end_with_parent()
    voice.beat("start")
    try:
        _train(Path(arguments[0]), int(arguments[1]), arguments[2], voice)
    except Exception as error:  # noqa: BLE001  whatever it is, the driver must learn of it
        traceback.print_exc()
        voice.tell_error(error)
        return 1
    return 0


def _take_stdout() -> int:
    """Keep the standard output for lines of our own: what libraries print goes to stderr."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def _end_with_parent() -> None:
    """Leave nothing behind when the process that watches this one dies, however it dies."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the driver or the worker, who end the ranks
        signal.signal(number, signal.SIG_IGN)

    def wait_for_end() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os._exit(errno.EPIPE)

    threading.Thread(target=wait_for_end, daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _train(spec_path: Path, rank: int, host: str, voice: Voice) -> None:
    """Read the spectra, meet the other ranks, train."""
    import torch

    from apogee_batch.network.recipe import Recipe
    from apogee_batch.network.training_folder import train_in_folder
    from apogee_batch.run.devices import choose_device, device_name
    from apogee_batch.run.gang.spec import GangSpec
    from apogee_batch.run.train_task import read_training_set, warn_of_slow_autocast

    spec = GangSpec.read(spec_path)
    voice.beat("read")
    training_set = read_training_set(Path(spec.store))
    recipe, device = Recipe(**spec.recipe), choose_device(spec.device)
    warn_of_slow_autocast(recipe, device)
    voice.beat("meet")
    with _meet(spec, rank, host, voice) as ranks:
        ranks.agree("what it computes on", f"{device_name(device)}, torch {torch.__version__}")
        train_in_folder(
            Path(spec.model),
            training_set,
            recipe,
            seed=spec.seed,
            device=device,
            n_threads=spec.threads,
            on_step=lambda _done, _of: voice.beat("step"),
            ranks=ranks,
        )


@contextmanager
def _meet(spec: Any, rank: int, host: str, voice: Voice) -> Iterator[Any]:
    """Connect with the other ranks."""
    from apogee_batch.run.clusters.keys import RunKeys
    from apogee_batch.run.gang.exchange import FirstRank, OtherRank
    from apogee_batch.run.gang.frames import Patience, PeerLostError
    from apogee_batch.run.gang.gate import Gate, knock

    keys = RunKeys(Path(spec.ca_file), Path(spec.cert), Path(spec.key))
    patience = Patience(2 * spec.stall_s, voice.beat)  # a rank that hangs is ended before it is missed
    ranks: FirstRank | OtherRank
    if rank == 0:
        gate = Gate(keys.server_context(), host, spec.attempt_bytes, spec.n_ranks, patience)
        spec.publish_address(host, gate.port)
        ranks = FirstRank(gate.admit(START_S), spec.is_given_up)
    else:
        end = time.monotonic() + START_S
        while (address := spec.find_address()) is None:
            if time.monotonic() > end:
                raise PeerLostError(f"rank 0 has not said within {START_S:.0f} s where it listens")
            voice.beat()
            time.sleep(POLL_S)
        channel = knock(
            keys.client_context(),
            address,
            spec.attempt_bytes,
            rank=rank,
            n_ranks=spec.n_ranks,
            patience=patience,
            timeout_s=START_S,
        )
        ranks = OtherRank(rank, spec.n_ranks, channel, spec.is_given_up)
    try:
        yield ranks
    finally:
        ranks.close()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # threads of libraries, and connections to ranks that are gone, have nothing more to say
