"""Errors cross process boundaries whole."""

import pickle
from pathlib import Path

from apogee_batch.errors import ApStarError, RejectReason


def test_an_error_of_a_file_comes_back_from_a_worker_as_it_was() -> None:
    error = ApStarError(Path("a.fits"), RejectReason.TRUNCATED, "ends at byte 7")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is ApStarError
    assert str(back) == str(error) == "a.fits: ends at byte 7"
    assert (back.path, back.reason, back.text) == (error.path, error.reason, error.text)
