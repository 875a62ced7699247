"""Which model a run uses, and the ledger of what it has done with that."""

from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError
from apogee_batch.network.model_files import Identity, SavedModel, read_model
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.plan import LEDGER_FOLDER, run_id


def given_model(plan: dict[str, Any]) -> Identity | None:
    """Return the model that a run was begun with; None for one that trains its own."""
    origin = plan["model"]
    return Identity(origin["given"], origin.get("calibration")) if "given" in origin else None


def load_given_model(model: Path, plan: dict[str, Any]) -> SavedModel:
    """Read what the model says of itself that a run was begun with."""
    checkpoint = read_model(model)
    if checkpoint.identity != given_model(plan):
        raise IntegrityError(
            f"{model}: model or calibration changed while the run began; put it back, or begin a new run"
        )
    return checkpoint


def inference_ledger(out: Path, plan: dict[str, Any], model: Identity) -> Ledger:
    """Return the ledger of a run's parts; parts made with another model or calibration do not count."""
    return Ledger(out / LEDGER_FOLDER, out, f"{run_id(plan)} {model}")
