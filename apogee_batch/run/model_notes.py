"""What a user should know of a model before it predicts."""

from apogee_batch.network.calibration import Calibration
from apogee_batch.run.config import InferenceSettings

HOW = "'apogee-batch model calibrate MODEL STORE' makes one from the labels of a store"


def notes_on(calibration: Calibration | None, inference: InferenceSettings) -> list[str]:
    """Say what a model cannot tell of predictions that are made with these settings."""
    if calibration is None:
        return [f"the model has no calibration, so e_*_total and strangeness will be empty; {HOW}"]
    notes = list(calibration.notes)
    cap = calibration.settings.get("err_cap")
    if calibration.error_model is not None and cap != inference.err_cap:
        told = f"WARNING: the model was calibrated with --err-cap {cap}, so e_*_total are wrong here"
        notes.append(f"{told}; {HOW}")
    n_realizations = calibration.settings.get("realizations")
    if calibration.error_model is not None and n_realizations != inference.realizations:
        notes.append(
            f"the model was calibrated with {n_realizations} realizations and this run takes "
            f"{inference.realizations}: e_*_total are a little less sure"
        )
    return notes
