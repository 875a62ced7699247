"""Whether a catalogue is known to be simulated."""

from typing import Any

import pyarrow as pa

from apogee_batch.report.simulated import FieldsSeen
from apogee_batch.survey.populations import fields

SIMULATED = [(field.location_id, field.name) for field in fields()]


def seen(*pieces: list[tuple[Any, Any]]) -> bool:
    found = FieldsSeen()
    for piece in pieces:
        numbers, names = zip(*piece, strict=True) if piece else ((), ())
        columns = {"location_id": pa.array(numbers, pa.int32()), "field": pa.array(names, pa.string())}
        found.add(pa.table(columns))
    return found.are_simulated


def test_stars_in_the_fields_of_the_simulation_are_simulated() -> None:
    assert seen(SIMULATED, [], SIMULATED[:1] * 3)


def test_one_star_of_another_field_makes_the_survey_a_real_one() -> None:
    number, name = SIMULATED[0]
    for other in ((number, "M67"), (number + 500, name), (None, None), (number, SIMULATED[1][1])):
        assert not seen(SIMULATED, [other])
        assert not seen([other], SIMULATED)


def test_of_no_star_nothing_is_said() -> None:
    assert not seen()
    assert not seen([])
