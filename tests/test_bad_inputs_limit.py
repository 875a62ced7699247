"""How many bad inputs a stage accepts."""

import pytest

from apogee_batch.errors import TooManyBadInputsError
from apogee_batch.run.bad_inputs import BadInputs
from apogee_batch.run.ledger import ShardReport


def count(n_inputs: int, fraction: float, *rejected: int) -> None:
    bad = BadInputs(n_inputs, fraction, "files", lambda: "2 EMPTY; all of them stand in LIST")
    for shard, n in enumerate(rejected):
        bad.count(ShardReport(shard, 100, 100 - n, n, (), 0.0, "", {}))


def test_the_limit_is_a_fraction_of_all_inputs() -> None:
    count(1000, 0.01, 5, 0, 5)
    with pytest.raises(TooManyBadInputsError) as caught:
        count(1000, 0.01, 5, 0, 6)
    assert caught.value.exit_code == 3
    told = str(caught.value)
    assert told.startswith(
        "11 of 1000 files cannot be used, more than --max-bad-fraction 0.01 allows: 2 EMPTY;"
    )
    assert "LIST" in told
    assert "--max-bad-fraction 0.02 goes on from here" in told


def test_one_bad_input_stops_nothing_unless_none_is_accepted() -> None:
    count(3, 0.01, 1, 0)
    with pytest.raises(TooManyBadInputsError):
        count(3, 0.01, 1, 1)
    with pytest.raises(TooManyBadInputsError):
        count(1000, 0.0, 1)


def test_the_fraction_that_is_proposed_is_enough() -> None:
    for n_bad in (2, 7, 50, 99, 100):
        with pytest.raises(TooManyBadInputsError, match=r"--max-bad-fraction ([\d.]+) goes on") as caught:
            count(100, 0.01, n_bad)
        proposed = float(str(caught.value).split("--max-bad-fraction ")[2].split()[0])
        count(100, proposed, n_bad)


@pytest.mark.parametrize(("n_inputs", "fraction", "n_bad"), [(100, 0.29, 29), (50, 0.58, 29), (90, 0.7, 63)])
def test_a_fraction_is_what_it_looks_like_in_decimals(n_inputs: int, fraction: float, n_bad: int) -> None:
    count(n_inputs, fraction, n_bad)
    with pytest.raises(TooManyBadInputsError):
        count(n_inputs, fraction, n_bad + 1)


def test_whatever_is_proposed_is_enough() -> None:
    for n_inputs in (*range(2, 60), 100, 200, 1000, 2999):
        for n_bad in range(2, n_inputs + 1, max(1, n_inputs // 100)):
            with pytest.raises(TooManyBadInputsError) as caught:
                count(n_inputs, 0.0, n_bad)
            count(n_inputs, float(str(caught.value).split("--max-bad-fraction ")[2].split()[0]), n_bad)


def test_everything_may_be_bad_where_a_user_says_so() -> None:
    count(10, 1.0, 5, 5)
