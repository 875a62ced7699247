"""Write `reference/configuration.md` from the settings: their types, ranges, defaults and docstrings.

Run this script after a change of a setting; a test compares the page with it.

    python docs/make_settings_page.py
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from make_catalog_page import markdown_table
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from apogee_batch.labels.mdwarf_settings import MDwarfSettings
from apogee_batch.network.recipe import Recipe
from apogee_batch.run.config import RunConfig

PAGE = Path(__file__).resolve().parent / "reference" / "configuration.md"
ATTRIBUTE = re.compile(r"^(\w+(?:, \w+)*) : .*\n((?:    .*\n?|\n)*)", re.MULTILINE)
MADE = "<!-- made by docs/make_settings_page.py: change the code, not this page -->\n"


def attributes_of(section: type[BaseModel]) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute; some share their words."""
    text = inspect.cleandoc(section.__doc__ or "")
    found = {}
    for names, words in ATTRIBUTE.findall(text.partition("Attributes\n----------\n")[2] + "\n"):
        for name in names.split(", "):
            found[name] = " ".join(words.split())
    return found


def type_of(annotation: Any) -> str:
    """Return a type in the words of TOML."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in inside)
    if origin is typing.Annotated:
        return type_of(inside[0])
    if origin in (typing.Union, types.UnionType):
        return ", ".join(type_of(part) for part in inside if part is not type(None))
    if origin is tuple:
        kinds = [type_of(part) for part in inside if part is not Ellipsis]
        return f"list of {kinds[0]}" if Ellipsis in inside else f"[{', '.join(kinds)}]"
    if origin is dict:
        return f"table of {type_of(inside[1])}"
    names: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text"}
    return names.get(annotation, "table")


def limits_of(field: Any) -> str:
    """Return the range of a number, as `>= 0, < 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    told = [
        f"{sign} {number_of(getattr(item, name))}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return f" ({', '.join(told)})" if told else ""


def number_of(value: float) -> str:
    """Return a limit as people write it."""
    return "2^63" if value == 2**63 else f"{value:g}" if value != int(value) else str(int(value))


def default_of(field: Any) -> str:
    """Return the default as TOML would have it."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{toml_of(value)}`"


def toml_of(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_of(part) for part in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml_of(part)}' for key, part in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the settings that a field holds, if it holds a section."""
    kinds = [annotation, *typing.get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def sections_of(settings: type[BaseModel], name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Return the sections of settings, those within others after them."""
    yield name, settings
    for key, field in settings.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from sections_of(inner, f"{name}.{key}" if name else key)


def setting_rows(section: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return key, description, type and default of the settings of a section itself."""
    words = attributes_of(section)
    return [
        (f"`{key}`", words.get(key, ""), type_of(field.annotation) + limits_of(field), default_of(field))
        for key, field in section.model_fields.items()
        if section_of(field.annotation) is None
    ]


def settings_part(title: str, intro: str, settings: type[BaseModel]) -> str:
    """Return the tables of all sections of a file."""
    parts = [f"## {title}\n", f"{intro}\n"]
    shown: dict[type[BaseModel], str] = {}
    for name, section in sections_of(settings):
        rows = setting_rows(section)
        if not rows:
            continue
        if name:
            parts.append(f"### {title}: `[{name}]`\n")
        if section in shown:
            parts.append(f"The same settings as `[{shown[section]}]`.\n")
            continue
        shown[section] = name
        parts.append(f"{inspect.cleandoc(section.__doc__ or '').splitlines()[0]}\n")
        parts.append(markdown_table(("key", "what it is", "type", "default"), rows))
    return "\n".join(parts)


FILES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    (
        "Run",
        "The file of `--config`, for all commands that compute. Everything in it is optional; a file with "
        "all of it is in [the run folder](../run-folder.md#settings).",
        RunConfig,
    ),
    (
        "Recipe",
        'How a network is trained: the file of `--recipe`, or of `recipe` in `[training]`. `"robust"` and '
        '`"paper"` come with the program ([training](../training.md)).',
        Recipe,
    ),
    (
        "M dwarfs",
        "The file of `labels mdwarfs --settings` ([labels of M dwarfs](../mdwarfs.md)).",
        MDwarfSettings,
    ),
)


def page() -> str:
    """Return the page of all settings."""
    return "\n".join(
        [
            "# Configuration\n",
            MADE,
            "Settings are read from TOML files. An unknown key is an error, and so is a value out of range;",
            "options of the command line win over them.\n",
            *(settings_part(*part) for part in FILES),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
