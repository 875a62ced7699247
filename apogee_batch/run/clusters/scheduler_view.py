"""What the scheduler in this process knows of its workers, for other threads."""

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

ANSWER_S = 30.0


@dataclass(frozen=True)
class WorkerSeen:
    """A worker process that is connected.

    Attributes
    ----------
    n_processing : int
        Tasks on its list.
    n_done : int
        Tasks that it has finished.
    progress : float
        When it last finished a task or got one after none; of the monotonic clock.
    """

    n_processing: int
    n_done: int
    progress: float


class SchedulerView:
    """Sees what workers of a local scheduler do.

    Parameters
    ----------
    cluster : distributed.LocalCluster
        Whose scheduler it is.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._n_done = Counter[str]()
        self._progress = dict[str, float]()  # by address: a process that was started again begins anew
        self._was_idle = set[str]()
        self._watch()

    def _watch(self) -> None:
        from distributed.diagnostics.plugin import SchedulerPlugin

        view = self

        class Watch(SchedulerPlugin):  # type: ignore[misc]
            name = "apogee-batch-view"

            def transition(
                self,
                key: str,  # noqa: ARG002
                start: str,
                finish: str,
                *args: Any,  # noqa: ARG002
                worker: str | None = None,
                **kwargs: Any,  # noqa: ARG002
            ) -> None:
                if start == "processing" and finish in ("memory", "erred") and worker is not None:
                    view.note_done(worker)

        self._cluster.scheduler.add_plugin(Watch())

    def note_done(self, address: str) -> None:
        """Count a task that a worker has finished; called by the scheduler."""
        state = self._cluster.scheduler.workers.get(address)
        if state is not None:
            self._n_done[str(state.name)] += 1
            self._progress[address] = time.monotonic()

    def workers(self) -> Mapping[str, WorkerSeen]:
        """Return the workers that are connected, by name."""
        answer: Future[dict[str, WorkerSeen]] = Future()

        def look() -> None:
            try:
                answer.set_result(self._snapshot())
            except Exception as error:  # noqa: BLE001  it is the asking thread's
                answer.set_exception(error)

        # No coroutine: one that a loop which stands still never begins is complained of when it is collected.
        self._cluster.loop.asyncio_loop.call_soon_threadsafe(look)
        return answer.result(ANSWER_S)

    def _snapshot(self) -> dict[str, WorkerSeen]:
        now, seen = time.monotonic(), dict[str, WorkerSeen]()
        found = self._cluster.scheduler.workers
        self._progress = {address: at for address, at in self._progress.items() if address in found}
        self._was_idle &= found.keys()
        for address, state in found.items():
            name, n_processing = str(state.name), len(state.processing)
            if address not in self._progress or (address in self._was_idle and n_processing):
                self._progress[address] = now
            (self._was_idle.discard if n_processing else self._was_idle.add)(address)
            seen[name] = WorkerSeen(n_processing, self._n_done[name], self._progress[address])
        return seen
