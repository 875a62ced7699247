"""The card of a model says for whom it is, what it learned from, what it lacks, and invents nothing."""

import itertools
import re
from dataclasses import replace

import pytest

from apogee_batch.network.card import N_WEIGHTS, render_model_card
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.recipe import load_recipe
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.network.training_stars import TrainingStars

TRAINED = CheckpointHeader(
    origin="trained",
    transform=InputTransform(),
    scaler=OFFICIAL_SCALER,
    recipe=load_recipe("robust").to_json(),
    label_range={"logg": (0.5, 5.1), "teff": (2900.0, 6900.0), "fe_h": (-0.9, 0.4)},
    training_set_hash="ab" * 32,
    n_train={"payne": 750, "mstar": 200, "yso": 50},
    dev_loss=0.02,
    dev_loss_by_type={"payne": 0.01, "mstar": 0.03, "yso": 0.07},
    seed=5,
    device="cpu",
)
OFFICIAL = CheckpointHeader(origin="official", transform=InputTransform("raw"), scaler=OFFICIAL_SCALER)
HEADINGS = (  # what card templates ask for, in our words
    "Identity",
    "Intended use",
    "Input and output",
    "Training data",
    "Evaluation",
    "Limits",
    "Who is missing",
    "Cost",
    "Licence and citation",
)


def section(card: str, heading: str) -> str:
    """Return the text below a heading, up to the next."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


@pytest.mark.parametrize("header", [TRAINED, OFFICIAL], ids=["trained", "official"])
def test_every_card_has_the_sections_that_templates_ask_for(header: CheckpointHeader) -> None:
    card = render_model_card(header, "f00d")
    for heading in HEADINGS:
        assert section(card, heading).strip(), heading
    assert ("## Training\n" in card) == (header.origin == "trained")


def test_the_card_tells_of_the_training_stars_by_type() -> None:
    told = section(render_model_card(TRAINED, "f00d"), "Training data")
    for row in (
        "| 750 | 75.0 % |",
        "| mstar | M dwarfs | 200 | 20.0 % |",
        "| yso | young stars | 50 | 5.0 % |",
    ):
        assert row in told
    assert "ab" * 32 in told


def test_the_card_gives_the_dev_loss_by_type_and_no_number_of_the_test_set() -> None:
    told = section(render_model_card(TRAINED, "f00d"), "Evaluation")
    for row in ("| payne | 0.0100 |", "| mstar | 0.0300 |", "| yso | 0.0700 |", "| all | 0.0200 |"):
        assert row in told
    assert "No test star" in told


def test_the_card_names_the_types_that_no_training_star_stands_for() -> None:
    only_giants = replace(TRAINED, n_train={"payne": 750})
    told = section(render_model_card(only_giants, "f00d"), "Who is missing")
    assert "No training star stands for: M dwarfs, young stars." in told
    told = section(render_model_card(TRAINED, "f00d"), "Who is missing")
    assert "stands for" not in told
    assert "outside logg 0.5 to 5.1, teff 2900 to 6900, fe_h -0.9 to 0.4." in told


STARS = TrainingStars(
    n_stars=1000,
    releases={"r8": 900, "l31c": 100},
    telescopes={"apo25m": 1000},
    n_fields=12,
    n_low_snr=7,
    are_simulated=False,
    snr=(40.0, 120.0, 480.5),
)


def test_the_card_tells_where_the_training_spectra_are_from() -> None:
    card = render_model_card(TRAINED, "f00d", stars=STARS)
    told = section(card, "Training data")
    for line in (
        "- training spectra by reduction: r8 900, l31c 100",
        "- by telescope: apo25m 1000",
        "- fields: 12",
        "- SNR below 20: 7 spectra",
        "- SNR per pixel at 5, 50, 95 percent: 40, 120, 480.5",
        "- H (mag) at 5, 50, 95 percent: not known",
    ):
        assert line in told.splitlines()
    limits = section(card, "Limits")
    assert "(Teff 2900-6900 K, log g 0.50 to 5.10, [Fe/H] -0.90 to 0.40)" in limits


def test_the_card_of_a_model_of_simulated_stars_says_so_at_its_top() -> None:
    assert "simulated" not in render_model_card(TRAINED, "f00d", stars=STARS)
    card = render_model_card(TRAINED, "f00d", stars=replace(STARS, are_simulated=True))
    head = card.partition("\n## ")[0]
    assert "Trained on simulated spectra" in head
    assert "worth nothing" in head


def test_the_card_of_a_model_that_notes_nothing_of_its_stars_is_as_it_was() -> None:
    card = render_model_card(TRAINED, "f00d")
    assert "(Teff 2900-6900 K) are extrapolations" in card
    assert "by telescope" not in card


def test_the_card_counts_the_cost_and_tells_no_time() -> None:
    told = section(render_model_card(TRAINED, "f00d"), "Cost")
    assert "1.7e+11" in told  # 3 x 55.7e6 x 1000 stars
    assert "metrics.jsonl" in told
    assert "cpu" in told
    official = section(render_model_card(OFFICIAL, "f00d"), "Cost")
    assert "metrics.jsonl" not in official


def test_the_card_sets_no_licence_for_weights() -> None:
    assert "whoever publishes them" in section(render_model_card(TRAINED, "f00d"), "Licence and citation")
    told = section(render_model_card(OFFICIAL, "f00d"), "Licence and citation")
    assert "their authors' to say" in told
    assert "2002.08390" in told


def test_the_card_of_imported_weights_says_what_is_not_known() -> None:
    card = render_model_card(OFFICIAL, "f00d")
    assert "Not known to this program" in section(card, "Training data")
    assert "None was made here" in section(card, "Evaluation")
    assert "model calibrate" in section(card, "Intended use")
    assert "None" not in re.sub("None was made here", "", card)


def test_the_card_states_the_weights_of_the_network() -> None:
    assert sum(weight.numel() for weight in SpectrumNet().parameters()) == N_WEIGHTS
    assert str(N_WEIGHTS) in section(render_model_card(TRAINED, "f00d"), "Identity")


def test_a_markdown_table_is_not_broken_by_its_neighbours() -> None:
    lines = render_model_card(TRAINED, "f00d").splitlines()
    for before, line in itertools.pairwise(lines):
        is_row, was_row = line.startswith("|"), before.startswith("|")
        assert not (is_row and not was_row and before), "a table begins after an empty line"
        assert not (was_row and not is_row and line), "a table ends with an empty line"
