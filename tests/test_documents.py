"""The documents: that their tables are those of the schemas, and that what they name exists."""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from apogee_batch import errors
from apogee_batch.errors import ApogeeBatchError, RejectReason
from apogee_batch.run.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
EXIT_CODES_WITHOUT_ERROR = {0, 1, 130}


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_catalog_page", ROOT / "docs" / "make_catalog_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["catalog.md", "store.md"])
def test_the_tables_of_a_page_are_those_of_the_schema(maker: ModuleType, name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert maker.fill(page) == page, "run: python docs/make_catalog_page.py"


def test_a_table_that_is_out_of_date_is_made_anew(maker: ModuleType) -> None:
    page = "before\n<!-- table: catalog-flags -->\n| old |\n<!-- end -->\nafter\n"
    filled = maker.fill(page)
    assert "| old |" not in filled
    assert "| 0 | 1 | `LOW_SNR` |" in filled
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert maker.fill(filled) == filled


def test_a_bar_inside_a_cell_does_not_end_it(maker: ModuleType) -> None:
    assert maker.markdown_table(("a",), [("b|c",)]).splitlines()[-1] == r"| b\|c |"


def test_every_reason_to_reject_a_file_is_explained() -> None:
    page = (ROOT / "docs" / "store.md").read_text("utf-8")
    assert re.findall(r"^\| `([A-Z_]+)` \| \w", page, re.MULTILINE) == [
        reason.value for reason in RejectReason
    ]


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ApogeeBatchError)
    ]
    assert explained == EXIT_CODES_WITHOUT_ERROR | {error.exit_code for error in classes}


def test_the_settings_shown_are_all_there_are_and_hold() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    shown = re.sub(r"^# (\w+ = )", r"\1", found[1], flags=re.MULTILINE)  # the optional ones, too
    values = tomllib.loads(shown)
    RunConfig.model_validate(values)
    defaults = RunConfig().model_dump()
    assert {section: set(keys) for section, keys in values.items()} == {
        section: set(keys) for section, keys in defaults.items()
    }
    plain = tomllib.loads(found[1])
    assert RunConfig.model_validate(plain) == RunConfig()


def test_every_room_that_contributors_are_sent_to_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = page.split("<!-- rooms -->")[1].split("```")[0]
    missing = [
        name
        for name in re.findall(r"`([\w./*]+)`", rooms)
        if not (any(ROOT.glob(name)) or any((ROOT / "apogee_batch").glob(name)))
    ]
    assert not missing


def test_the_table_of_faults_names_every_fault_test_and_no_other() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+\.py)`", page))
    assert named == {path.name for path in ROOT.glob("tests/faults/test_*.py")}


def defined_names(module: Path) -> set[str]:
    """Names that a module defines or imports, without running it."""
    tree = ast.parse(module.read_text("utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names)
    return names


def test_everything_that_the_walkthrough_names_exists() -> None:
    page = (ROOT / "docs" / "walkthrough.md").read_text("utf-8")
    named = re.findall(r"`([a-z]+)\.([a-z_]+)(?:\.(\w+))?`", page)
    places = [(room, module, name) for room, module, name in named if (ROOT / "apogee_batch" / room).is_dir()]
    missing = []
    for room, module, name in places:
        path = ROOT / "apogee_batch" / room / f"{module}.py"
        if not path.is_file():
            path = path.with_suffix("") / "__init__.py"
        if not path.is_file() or (name and name not in defined_names(path)):
            missing.append(f"{room}.{module}.{name}")
    assert not missing
    assert len(places) > 20
