"""Command lines of `apogee-batch` in the documents, read by the parser of the program itself."""

import shlex
from collections.abc import Iterator
from typing import Any, get_args

import typer
from document_blocks import SHELL, Block

from apogee_batch.cli import app
from apogee_batch.inference.engines import EngineChoice, Precision
from apogee_batch.run.config import ClusterKind, Device
from apogee_batch.run.job_settings import Role

PROGRAM = "apogee-batch"
ENDS = (";", "|", "||", "&&", "&", ">", ">>", "2>", "<", ")")
CHOICES: dict[str, tuple[str, ...]] = {
    "--cluster": get_args(ClusterKind),
    "--device": get_args(Device),
    "--engine": get_args(EngineChoice),
    "--precision": get_args(Precision),
    "--err-cap": ("median", "mean"),
    "--role": get_args(Role),
    "--row": ("combined", "visits"),
}


def command_lines(block: Block) -> Iterator[list[str]]:
    """Return the words of each command line of the program in a shell block."""
    if block.language not in SHELL:
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        while PROGRAM in words:
            words = words[words.index(PROGRAM) + 1 :]
            end = next((i for i, word in enumerate(words) if word in ENDS), len(words))
            yield words[:end]


def problem_of(words: list[str]) -> str | None:
    """Return what the program's parser says against a command line; files need not exist."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and rest[0] not in ("--help", "--version"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    if {"--help", "--version"} & set(rest):
        return None
    try:
        context = command.make_context(PROGRAM, rest)
    except typer.TyperException as error:
        return error.format_message()
    return _wrong_value(command, context.params)


def _wrong_value(command: Any, values: dict[str, Any]) -> str | None:
    """Return which value the settings would refuse, for options that the parser takes as any text."""
    for parameter in command.params:
        for option in parameter.opts:
            value = values.get(parameter.name)
            if value is not None and option in CHOICES and str(value) not in CHOICES[option]:
                return f"{option} {value}: is none of {', '.join(CHOICES[option])}"
    return None
