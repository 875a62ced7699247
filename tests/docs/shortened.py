"""What the tests change in the blocks of the documents: paths of a survey, and settings that take long.

This is all: a block runs as it is printed, but for the replacements here, and a command line of
`apogee-batch` gets the options here behind those that are printed.
"""

from collections.abc import Sequence

TINY_RECIPE = "tiny.toml"
TINY_SETTINGS = "tiny-settings.toml"

REPLACED = {
    "/sas/dr14/apogee/spectro/redux/r8/stars": "redux",
    "n_realizations=100": "n_realizations=3",
    '"realizations": 50': '"realizations": 3',
}

SERIAL = ("--cluster", "serial")
RECIPE = ("--recipe", TINY_RECIPE)
ADDED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("ingest",): SERIAL,
    ("train",): (*RECIPE, "--threads", "1", *SERIAL),
    ("run-catalog",): ("--realizations", "3", *RECIPE, *SERIAL, "--no-report"),
    ("demo",): ("--stars", "100", "--realizations", "3", "--config", TINY_SETTINGS, *SERIAL),
    ("simulate",): ("--stars", "100"),
    ("labels", "mdwarfs"): ("--realizations", "100"),
    ("labels", "ysos"): ("--stars", "300", "--epochs", "2", "--realizations", "3", "--max-residual", "1e9"),
}


def replace_paths(text: str) -> str:
    """Return a block with its paths and numbers replaced; its lines stay where they are."""
    for printed, tried in REPLACED.items():
        text = text.replace(printed, tried)
    return text


def add_settings(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, those behind `apogee-batch`, with the settings of a trial.

    The last of two options wins.
    """
    for command, options in ADDED.items():
        if tuple(words[: len(command)]) == command and "--help" not in words:
            return [*words, *options]
    return list(words)
