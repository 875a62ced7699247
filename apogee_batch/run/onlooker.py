"""Who looks on from elsewhere: reads how far a run, a training or an ingest is, again and again."""

from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.network.model_files import is_trained
from apogee_batch.run import run_state
from apogee_batch.run.commits import CommitReader
from apogee_batch.run.live_view import Row
from apogee_batch.run.lock_owner import is_here
from apogee_batch.run.model_of_run import given_model
from apogee_batch.run.plan import LEDGER_FOLDER, LOCK_FILE, read_plan, run_id
from apogee_batch.run.run_folder import INPUTS, MANIFEST_FILE, MODEL_FOLDER
from apogee_batch.run.run_state import Place, RunState
from apogee_batch.run.stage_times import StageTime, read_stage_times
from apogee_batch.run.table_reading import count_rows
from apogee_batch.store.tables import STARS


class Onlooker:
    """Reads how far something is, again and again.

    Parameters
    ----------
    path : Path
        Folder of a run, a training or an ingest, or a store: that means its last ingest.

    Raises
    ------
    UsageError
        If it is none of these.
    """

    def __init__(self, path: Path) -> None:
        folder = path.resolve()
        if not folder.exists():
            raise UsageError(f"{path}: does not exist; name the folder of a run or a model, or a store")
        if (folder / "zarr.json").is_file():
            from apogee_batch.run.ingest_seen import last_ingest  # needs Zarr, which a run does not

            folder = last_ingest(folder)
        plan = (read_plan(folder) if folder.is_dir() else None) or {}
        kinds = {"run-catalog": _place_of_run, "train": _place_of_training, "ingest": _place_of_ingest}
        find = kinds.get(plan.get("kind", ""))
        if find is None:
            raise UsageError(
                f"{path}: is neither a run nor a store (no plan.json of this program, no zarr.json)"
            )
        self._plan = plan
        self._place = find(folder, plan)
        self._log_s = 0.0  # when its driver wrote the last line of its log

    def look(self) -> RunState:
        """Return how far it is now.

        Raises
        ------
        IntegrityError
            If the manifest of a run is damaged, and nobody is at work who would write it anew.
        """
        place, now_s = self._place, run_state.now()
        commits, times = place.ledger.read(), read_stage_times(place.folder)
        driver, log = run_state.read_driver(place.lock), run_state.read_log_end(place.logs)
        done = sum(commit.n_inputs for commit in commits)
        is_over = self._is_over()
        state, why = run_state.judge_state(driver, log, commits, is_finished=is_over)
        if state in ("stopped", "waiting"):
            self._refuse_damage()
        self._log_s = log.at_s
        stage = "" if state == "finished" else self._stage(len(commits), times)
        rate, left_s = (None, None)
        if stage in ("infer", "ingest") and state in ("running", "waiting"):
            rate, left_s = run_state.measure(commits, times, stage, place.total, now_s)
        return RunState(
            kind=place.kind,
            path=str(place.folder),
            run_id=place.name,
            state=state,
            why=why,
            stage=stage,
            unit=place.unit,
            done=done,
            total=place.total,
            shards_done=len(commits),
            shards=place.n_shards,
            rejects=sum(commit.n_rejected for commit in commits),
            rate_per_s=rate,
            left_s=left_s,
            workers=run_state.seen_workers(commits, now_s),
            driver=driver,
            is_driver_seen=driver is not None and is_here(driver),
            warnings=log.warnings,
            last=log.last,
            times=times,
        )

    def _is_over(self) -> bool:
        folder = self._place.folder
        if self._place.kind == "run":
            return _reads_well(folder / MANIFEST_FILE)
        if self._place.kind == "training":
            return is_trained(folder)
        from apogee_batch.run.ingest_seen import is_finished

        return is_finished(folder)

    def _refuse_damage(self) -> None:
        manifest = self._place.folder / MANIFEST_FILE
        if self._place.kind == "run" and manifest.is_file() and not _reads_well(manifest):
            raise IntegrityError(f"{manifest}: is damaged; give the run-catalog command again")

    def _stage(self, n_done: int, times: list[StageTime]) -> str:
        """Return the stage that something unfinished is in."""
        going = [time_.stage for time_ in times if time_.end_s is None]
        if self._place.kind == "ingest":
            return "ingest"
        if self._place.kind == "training" or (given_model(self._plan) is None and not n_done):
            trains = not is_trained(self._model())
            return "train" if trains else (going[-1] if going else "calibrate")
        if n_done < self._place.n_shards:
            return "infer"
        return "report" if going and going[-1] == "report" else "publish"

    def _model(self) -> Path:
        folder = self._place.folder
        return folder / MODEL_FOLDER if self._place.kind == "run" else folder

    def rows(self, seen: RunState) -> list[Row]:
        """Return the stages for the screen, in their order."""
        names = {"ingest": ["ingest"], "training": ["train", "calibrate"], "run": ["infer", "publish"]}[
            seen.kind
        ]
        if seen.kind == "run":
            is_given = given_model(self._plan) is not None
            has_page = any(time_.stage == "report" for time_ in seen.times)
            names = [*([] if is_given else ["train", "calibrate"]), *names, *["report"] * has_page]
        rows = [self._row(name, seen) for name in names]
        begun = [i for i, row in enumerate(rows) if row.state != "to come"]
        for row in rows[: begun[-1] if begun else 0]:  # a later stage goes on, so this one is over
            row.state = "done"
        return rows

    def _row(self, name: str, seen: RunState) -> Row:
        times = [time_ for time_ in seen.times if time_.stage == name]
        row = Row(name, unit=seen.unit, total=seen.total)
        spent_s = sum(time_.end_s - time_.begin_s for time_ in times if time_.end_s is not None)
        last = times[-1] if times else None
        row.ended_s = run_state.now()
        row.begun_s = row.ended_s - spent_s
        if last is not None:
            row.unit, row.total, row.done = last.unit, last.total, last.done
        if name in ("infer", "ingest"):
            row.unit, row.total, row.done = seen.unit, seen.total, seen.done
        if name == "train":
            row.unit, row.total = "epochs", None
            row.done = len(read_metrics(self._model() / METRICS_FILE))
        if seen.stage == name:
            row.state = "stopped" if seen.state == "stopped" else "now"
            if last is not None and last.end_s is None:
                until_s = row.ended_s if row.state == "now" else max(self._log_s, last.begin_s)
                row.begun_s = row.ended_s - (until_s - last.begin_s) - spent_s
        elif times or seen.state == "finished" or (name in ("infer", "ingest") and seen.done == seen.total):
            row.state = "done"
            if name == "publish":
                row.done = seen.total if row.total is None else row.total
                row.total = row.done
        return row


def _reads_well(manifest: Path) -> bool:
    """Tell whether there is a manifest, and it is what was written."""
    try:
        read_sealed_json(manifest)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _place_of_run(folder: Path, plan: dict[str, Any]) -> Place:
    name, inputs = run_id(plan), folder / INPUTS / f"{STARS}.parquet"
    ledger = CommitReader(folder / LEDGER_FOLDER, name)
    n_stars = count_rows(inputs) if inputs.is_file() else 0
    shards = len(plan["shards"])
    lock, logs = folder / LOCK_FILE, folder / "logs"
    return Place("run", folder, name, lock, logs, ledger, shards, n_stars, "stars")


def _place_of_training(folder: Path, plan: dict[str, Any]) -> Place:
    ledger = CommitReader(folder / LEDGER_FOLDER, run_id(plan))  # there is none
    return Place(
        "training", folder, run_id(plan), folder / LOCK_FILE, folder / "logs", ledger, 0, 0, "epochs"
    )


def _place_of_ingest(folder: Path, plan: dict[str, Any]) -> Place:
    from apogee_batch.run.ingest_seen import place_of_ingest

    return place_of_ingest(folder, plan)
