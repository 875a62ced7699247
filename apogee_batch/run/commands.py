"""One function behind each command: settings in, work done, lines for the user out.

Each has a module of its own, which is imported when the command is asked for: a network, pictures or the
tables of astronomers take longer to import than a small survey to read.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apogee_batch.run.attach_command import attach
    from apogee_batch.run.catalog_command import make_catalog
    from apogee_batch.run.closing import describe_catalog
    from apogee_batch.run.config import Going
    from apogee_batch.run.ingest_command import ingest
    from apogee_batch.run.model_commands import calibrate, import_model, train

__all__ = [
    "Going",
    "attach",
    "calibrate",
    "describe_catalog",
    "import_model",
    "ingest",
    "make_catalog",
    "train",
]

_MODULES = {
    "Going": "config",
    "attach": "attach_command",
    "calibrate": "model_commands",
    "describe_catalog": "closing",
    "import_model": "model_commands",
    "ingest": "ingest_command",
    "make_catalog": "catalog_command",
    "train": "model_commands",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that nobody waits for the other commands."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"apogee_batch.run.{_MODULES[name]}"), name)
