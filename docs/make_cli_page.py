"""Write `reference/cli.md` from the commands of the program.

Run this script after a change of an option; a test compares the page with it.

    python docs/make_cli_page.py
"""

import inspect
import re
from pathlib import Path
from typing import Any

import typer
from make_catalog_page import markdown_table

from apogee_batch import errors
from apogee_batch.cli import PROGRAM, app
from apogee_batch.errors import ApogeeBatchError
from apogee_batch.exits import INTERRUPTED

PAGE = Path(__file__).resolve().parent / "reference" / "cli.md"
EXTRAS = re.compile(r"\s*\[([^\[\]]*(?:\[[^\[\]]*\])?[^\[\]]*)\]$")
RANGE = re.compile(r"required|(\S+<=?)?x[<>]=?\S+|\S+<=?x")  # as the parser adds them
WORDS = {"<path>": "PATH", "<str>": "TEXT", "<int>": "INT", "<int range>": "INT", "<float>": "NUMBER"}
WORDS |= {"<float range>": "NUMBER"}
MADE = "<!-- made by docs/make_cli_page.py: change the code, not this page -->\n"


def all_commands() -> dict[str, Any]:
    """Return the commands of the program by name, as `labels attach`."""
    found: dict[str, Any] = {}

    def walk(group: Any, before: str) -> None:
        for name, command in group.commands.items():
            full = f"{before} {name}".strip()
            if hasattr(command, "commands"):
                walk(command, full)
            else:
                found[full] = command

    walk(typer.main.get_command(app), "")
    return found


def described(parameter: Any, context: Any) -> tuple[str, str, str, str]:
    """Return an argument or option: how it is written, default, range or "required", and what it is."""
    written, text = parameter.get_help_record(context) or (parameter.opts[0], "")
    for word, shown in WORDS.items():
        written = written.replace(word, shown)
    default, others = "", []
    while (found := EXTRAS.search(text)) is not None:
        text = text[: found.start()]
        parts = found[1].split("; ")
        ranges = [part for part in parts if RANGE.fullmatch(part)]
        default = "; ".join(part for part in parts if part not in ranges).removeprefix("default: ") or default
        others = ranges + others
    if parameter.envvar:
        others.append(f"environment variable {parameter.envvar}")
    return written, default, ", ".join(others), text.strip()


def parameters_of(command: Any, name: str) -> dict[str, tuple[str, str, str, str]]:
    """Return the described parameters of a command by their first name."""
    context = typer.Context(command, info_name=f"{PROGRAM} {name}".strip())
    return {
        parameter.opts[0]: described(parameter, context)
        for parameter in command.get_params(context)
        if not getattr(parameter, "hidden", False)
    }


def command_section(name: str, command: Any, common: set[str]) -> str:
    """Return the section of a command: usage, what it does, arguments, options, an example."""
    context = typer.Context(command, info_name=f"{PROGRAM} {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    told = parameters_of(command, name)
    arguments = [
        (f"`{row[0]}`", row[3], row[1]) for key, row in told.items() if not key.startswith("-") and row[0]
    ]
    options = [
        (f"`{row[0]}`", f"{row[3]}{f' ({row[2]})' if row[2] else ''}", row[1])
        for key, row in told.items()
        if key.startswith("-") and key not in common
    ]
    parts = [f"## {PROGRAM} {name}\n", f"```text\n{usage}\n```\n", f"{text}\n"]
    for kind, rows in (("argument", arguments), ("option", options)):
        if rows:
            parts.append(markdown_table((kind, "what it is", "default"), rows))
    example = re.sub(r"^\s*Example:\s*", "", (command.epilog or "").replace("\b", ""))
    if example:
        parts.append(f"Example:\n\n```sh\n{example.strip()}\n```\n")
    return "\n".join(parts)


def exit_code_table() -> str:
    """Return the codes that a command leaves with."""
    meanings = {0: "Complete.", INTERRUPTED: "Interrupted with Ctrl-C."}
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, ApogeeBatchError):
            meanings.setdefault(error.exit_code, inspect.cleandoc(error.__doc__ or "").splitlines()[0])
    meanings[ApogeeBatchError.exit_code] = "Anything else: in one line, or a bug with its traceback."
    return markdown_table(("code", "meaning"), [(str(code), meanings[code]) for code in sorted(meanings)])


def page() -> str:
    """Return the page of the command line."""
    commands = all_commands()
    told = {name: parameters_of(command, name) for name, command in commands.items()}
    common = set.intersection(*(set(parameters) for parameters in told.values()))
    of_all = [(f"`{row[0]}`", row[3]) for key, row in next(iter(told.values())).items() if key in common]
    root = parameters_of(typer.main.get_command(app), "")
    of_root = [(f"`{row[0]}`", row[3]) for key, row in root.items() if key not in common]
    return "\n".join(
        [
            "# The command line\n",
            MADE,
            f"What `{PROGRAM} COMMAND --help` tells, of all commands. No option is read from an environment",
            "variable; options win over the settings of `--config` ([configuration](configuration.md)).\n",
            "Options of the program, before a command:\n",
            markdown_table(("option", "what it is"), of_root),
            "Options of every command:\n",
            markdown_table(("option", "what it is"), of_all),
            "## Exit codes\n",
            exit_code_table(),
            "What to do about each: [the run folder](../run-folder.md#exit-codes).\n",
            *(command_section(name, command, common) for name, command in commands.items()),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
