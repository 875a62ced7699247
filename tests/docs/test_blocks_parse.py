"""Every block of the documents is code of a language, or is only shown; what is not run parses at least."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from command_lines import CHOICES, command_lines, problem_of
from document_blocks import ROOT, STARTS, Block, blocks_of, name_of, pages, start_of
from make_cli_page import all_commands
from shortened import ADDED, REPLACED, add_settings, replace_paths

from apogee_batch.labels.mdwarf_settings import MDwarfSettings
from apogee_batch.network.recipe import parse_recipe
from apogee_batch.run.config import RunConfig


def problems_of(block: Block) -> list[str]:
    """Return what is wrong with a block before it runs."""
    found = list(block.problems())
    try:
        parse(block)
    except Exception as error:  # noqa: BLE001 (parsers raise errors of their own)
        found.append(f"{type(error).__name__}: {error}")
    for words in command_lines(block):
        problem = problem_of(words)
        if problem is not None:
            found.append(f"apogee-batch {' '.join(words)}: {problem}")
    return [f"{block.place}: {problem}" for problem in found]


def parse(block: Block) -> None:
    """Read a block as what it says it is."""
    if block.language == "python":
        compile(block.text, block.place, "exec")
    elif block.language == "sql":
        duckdb.connect().extract_statements(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        load_settings(block.said("file") or "run.toml", block.text)


def load_settings(name: str, text: str) -> None:
    """Read a TOML block as the settings that its file holds."""
    values: dict[str, Any] = tomllib.loads(text)
    if "recipe" in name:
        parse_recipe(text, source=name)
    elif "mdwarf" in name:
        MDwarfSettings.model_validate(values)
    elif "polygon" not in name and "pyproject" not in name:
        RunConfig.model_validate(values)


@pytest.mark.parametrize("document", pages(), ids=name_of)
def test_the_blocks_of_a_page_parse(document: Path) -> None:
    assert not [problem for block in blocks_of(document) for problem in problems_of(block)]
    assert start_of(document) in STARTS


def a_block(language: str, text: str, *directives: tuple[str, str]) -> Block:
    return Block(ROOT / "README.md", 3, language, text, directives)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (a_block("sh", "apogee-batch status run1 --wach\n"), "No such option"),
        (a_block("sh", "apogee-batch labels atach a\n"), "no command 'atach'"),
        (a_block("sh", "cd x && apogee-batch train a.zarr\n"), "Missing option"),
        (a_block("sh", "apogee-batch train a \\\n  --out b --cluster slrm\n"), "slrm: is none of"),
        (a_block("sh", "apogee-batch doctor\n", ("not run", "no")), "needs a reason"),
        (a_block("sh", "true\n", ("run", "2")), "run: exit CODE"),
        (a_block("sh", "true\n", ("file", "../x")), "inside the scratch folder"),
        (a_block("sh", "true\n", ("comment", "not-run: x")), "comment not understood"),
        (a_block("text", "apogee-batch status run1\n"), "has no language"),
        (a_block("console", "$ ls\n"), "is none of"),
        (a_block("python", "a b\n"), "SyntaxError"),
        (a_block("sql", "selec 1\n"), "ParserException"),
        (a_block("toml", "[inference]\nrealisations = 3\n"), "realisations"),
        (a_block("toml", "name = 3\n", ("file", "recipe.toml")), "recipe.toml"),
        (a_block("json", "{\n"), "JSONDecodeError"),
        (a_block("yaml", "a: [\n"), "ParserError"),
    ],
)
def test_a_block_that_is_wrong_is_told_where_it_stands(block: Block, told: str) -> None:
    (problem, *_) = problems_of(block)
    assert problem.startswith("README.md:3: ")
    assert told in problem


def test_blocks_are_found_with_their_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n<!-- table: x -->\n```sh\nls\n```\n"
        "- item\n  <!-- file: a.toml -->\n  <!-- not run: needs a queue -->\n  ```toml\n  [a]\n  ```\n"
        "<!-- skip this -->\n```python\n1\n```\n```{toctree}\nx\n```\n````text\n```\n````\n"
    )
    found = blocks_of(page)
    assert [(block.line, block.language, block.text) for block in found] == [
        (3, "sh", "ls\n"),
        (9, "toml", "[a]\n"),
        (13, "python", "1\n"),
        (19, "text", "```\n"),
    ]
    assert [block.directives for block in found] == [
        (),
        (("file", "a.toml"), ("not run", "needs a queue")),
        (("comment", "skip this"),),
        (),
    ]


def test_what_the_table_replaces_and_adds_is_needed_and_known() -> None:
    printed = "\n".join(block.text for page in pages() for block in blocks_of(page))
    assert [text for text in REPLACED if text not in printed] == []
    for command, options in ADDED.items():
        known = {
            option for parameter in all_commands()[" ".join(command)].params for option in parameter.opts
        }
        assert {option for option in options if option.startswith("--")} <= known
    text = "\n".join(REPLACED)
    assert replace_paths(text).count("\n") == text.count("\n")
    assert add_settings(["demo", "--help"]) == ["demo", "--help"]


def test_options_whose_values_are_checked_exist() -> None:
    known = {
        option
        for command in all_commands().values()
        for parameter in command.params
        for option in parameter.opts
    }
    assert set(CHOICES) <= known


@pytest.mark.parametrize("name", all_commands())
def test_the_example_in_the_help_of_a_command_is_right(name: str) -> None:
    (line,) = re.findall(r"^ *apogee-batch (.*)$", all_commands()[name].epilog, re.MULTILINE)
    assert line.startswith(f"{name} ")
    assert problem_of(line.replace("$SLURM_ARRAY_TASK_ID", "0").split()) is None
