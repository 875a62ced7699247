"""What several files of the repository must say alike."""

import re
import tomllib
from pathlib import Path

import pytest

from apogee_batch import __version__

ROOT = Path(__file__).resolve().parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_hook_runs_the_ruff_that_the_gate_runs() -> None:
    hook = re.findall(r"ruff-pre-commit\n +rev: v(\S+)", read(".pre-commit-config.yaml"))
    assert hook == re.findall(r"^ruff==(\S+)$", read("constraints.txt"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert used
    assert [use for use in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda path: path.name)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)", text))
    assert targets <= set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for name in re.findall(r"(?<!\S)\.ci/\w+", text):
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_every_python_that_is_promised_is_tried() -> None:
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    promised = {name.rpartition(" ")[2] for name in classifiers if re.search(r":: 3\.\d+$", name)}
    assert promised
    for version in promised:
        assert f'"{version}"' in read(".github/workflows/ci.yml")


def test_every_check_that_is_left_out_has_its_reason() -> None:
    ignored = tomllib.loads(read("pyproject.toml"))["tool"].get("repo-review", {}).get("ignore", [])
    page = read("docs/checklists.md")
    assert set(re.findall(r"^\| ([A-Z]{2,3}\d{3}) \|", page, re.MULTILINE)) >= set(ignored)


def test_the_citation_is_of_this_version() -> None:
    assert re.findall(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE) == [__version__]


@pytest.mark.parametrize(
    "name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff", ".github/dependabot.yml"]
)
def test_no_address_is_made_up(name: str) -> None:
    links = re.findall(r"https?://[^\s)>]+|\S+@\S+\.\w+", read(name))
    assert [link for link in links if "adsabs.harvard.edu" not in link] == []
