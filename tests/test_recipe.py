from pathlib import Path

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.network.recipe import RECIPE_NAMES, Recipe, load_recipe, parse_recipe


def test_the_recipe_paper_is_what_the_paper_says() -> None:
    recipe = load_recipe("paper")
    assert (recipe.input, recipe.optimiser, recipe.learning_rate) == ("raw", "sgd", 0.001)
    assert (recipe.dropout, recipe.batch_size, recipe.patience) == (0.1, 128, 5)
    assert recipe.adaptation_payne_fraction == 0.05
    assert recipe.initialisation == "torch"
    unstated = (recipe.momentum, recipe.weight_decay, recipe.max_gradient_norm, recipe.average_decay)
    assert unstated == (0, 0, 0, 0)
    assert (recipe.noise, recipe.min_steps_per_epoch) == (0, 0)
    assert recipe.schedule == "constant"


def test_the_recipe_robust_centres_its_input() -> None:
    recipe = load_recipe("robust")
    assert (recipe.input, recipe.clip, recipe.gain) == ("contrast", 1.0, 5.0)
    assert recipe.initialisation == "kaiming"


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_a_recipe_survives_json_and_knows_its_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.model_validate(recipe.to_json()) == recipe


def test_a_recipe_can_be_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(_text(name='"mine"', momentum="0.9"), encoding="utf-8")
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.momentum) == ("mine", 0.9)


def _text(**changes: str) -> str:
    settings = {
        "name": '"x"',
        "input": '"raw"',
        "initialisation": '"torch"',
        "optimiser": '"sgd"',
        "learning_rate": "0.1",
        "adaptation_learning_rate": "0.1",
    } | changes
    return "\n".join(f"{key} = {value}" for key, value in settings.items() if value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_text(learning_rat="0.1"), "unknown setting 'learning_rat'"),
        (_text(optimiser=""), "setting 'optimiser' is missing"),
        (_text(optimiser='"lbfgs"'), "optimiser = 'lbfgs': input should be 'sgd' or 'adam'"),
        (_text(dropout="1.0"), "dropout = 1.0: input should be less than 1"),
        (_text(learning_rate="nan"), "learning_rate = nan"),
        (_text(batch_size="0"), "batch_size = 0"),
        (_text(autocast='"float16"'), "autocast = 'float16': input should be 'off' or 'bfloat16'"),
        ("name = ", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, source="r.toml")
    assert "r.toml" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe 'papers': use one of paper, robust"):
        load_recipe("papers")
    binary = tmp_path / "recipe.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as text"):
        load_recipe(str(binary))
