"""The documents: that whatever a user can name is documented, and that every page is found and leads on."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import apogee_batch
from apogee_batch.errors import RejectReason
from apogee_batch.schema import catalog_columns, catalog_flags, reject_columns, star_columns

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
MADE = {REFERENCE / "cli.md": "make_cli_page", REFERENCE / "configuration.md": "make_settings_page"}
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
WRITTEN = [page for page in PAGES if page not in MADE]

FENCED = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n.*?^\1\2`*~* *$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    """Load a script of the documentation, which import one another by name."""
    if str(DOCS) not in sys.path:
        sys.path.insert(0, str(DOCS))
    return importlib.import_module(name)


def load_conf() -> Any:
    """Load Sphinx's settings under a name of their own."""
    spec = importlib.util.spec_from_file_location("settings_of_sphinx", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(text: str) -> str:
    return FENCED.sub("", text)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub and MyST give the headings of a page."""
    found: set[str] = set()
    for heading in HEADING.findall(without_code(read(page))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = next(n for n in range(1000) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("page", MADE, ids=name_of)
def test_the_reference_is_that_of_the_code(page: Path) -> None:
    maker = load(MADE[page])
    assert read(page) == maker.page().rstrip() + "\n", f"run: python docs/{MADE[page]}.py"


def test_every_command_and_option_is_in_the_reference() -> None:
    text = read(REFERENCE / "cli.md")
    common, *sections = re.split(r"^## apogee-batch ", text, flags=re.MULTILINE)
    told = {section.splitlines()[0]: section for section in sections}
    commands = load("make_cli_page").all_commands()
    assert set(told) == set(commands)
    missing = [
        f"{name} {option}"
        for name, command in commands.items()
        for parameter in command.params
        for option in parameter.opts
        if not parameter.hidden and f"| `{option}" not in told[name] + common and option.startswith("-")
    ]
    assert not missing


def test_every_option_says_what_it_is() -> None:
    maker = load("make_cli_page")
    silent = [
        f"{name} {first}"
        for name, command in maker.all_commands().items()
        for first, (_, _, _, text) in maker.parameters_of(command, name).items()
        if not text
    ]
    assert not silent


def test_defaults_and_ranges_are_taken_out_of_the_words_of_an_option() -> None:
    maker = load("make_cli_page")
    told = maker.parameters_of(maker.all_commands()["simulate"], "simulate")
    assert told["--stars"] == ("--stars INT", "1200", "1<=x<=1000000", "Number of stars.")
    assert told["folder"] == ("DIR", "", "required", "Folder for the survey.")
    told = maker.parameters_of(maker.all_commands()["select ysos"], "select ysos")
    assert told["--polygon"][1] == "the paper's"
    assert "[teff, logg]" in told["--polygon"][3]


@pytest.mark.parametrize("name", load("make_cli_page").all_commands())
def test_every_command_is_at_work_in_a_page_that_people_wrote(name: str) -> None:
    shown = re.compile(rf"apogee-batch {name}\b|`{name}\b")
    assert [page for page in WRITTEN if page.name != "CHANGELOG.md" and shown.search(read(page))]


def test_every_exit_code_is_in_the_reference() -> None:
    table = read(REFERENCE / "cli.md").split("## Exit codes")[1].split("##")[0]
    told = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert told == re.findall(r"^\| (\d+) \|", read(DOCS / "run-folder.md"), re.MULTILINE)


def test_every_setting_is_described() -> None:
    maker = load("make_settings_page")
    text = read(REFERENCE / "configuration.md")
    missing, silent = [], []
    for _, _, settings in maker.FILES:
        for name, section in maker.sections_of(settings):
            for key, words, _, _ in maker.setting_rows(section):
                missing += [f"{name}.{key}"] if f"| {key} |" not in text else []
                silent += [f"{name}.{key}"] if not words else []
    assert not missing
    assert not silent, "say it in the Attributes of the class"


def test_every_column_and_flag_is_documented() -> None:
    catalog, store = read(DOCS / "catalog.md"), read(DOCS / "store.md")
    assert [c.name for c in catalog_columns() if f"| `{c.name}` |" not in catalog] == []
    assert [name for name in catalog_flags() if f"| `{name}` |" not in catalog] == []
    assert [c.name for c in (*star_columns(), *reject_columns()) if f"| `{c.name}` |" not in store] == []
    assert [reason.value for reason in RejectReason if f"`{reason.value}`" not in store] == []


@pytest.mark.parametrize("name", [name for name in apogee_batch.__all__ if not name.startswith("__")])
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"`{name}\b", read(DOCS / "python.md"))
    assert re.search(rf"^\.\. auto\w+:: {name}$", read(REFERENCE / "api.md"), re.MULTILINE)
    assert getattr(apogee_batch, name).__doc__


def test_every_page_is_reached_from_the_front_page() -> None:
    conf = load_conf()
    reached, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        if page.name == "index.md":
            links = conf.ENTRY.findall(read(page))
            ahead += [(page.parent / link).resolve() for _, link in links]
    outside = {conf.PAGE_OF[path] for path in reached if path in conf.PAGE_OF}
    assert set(DOCS.rglob("*.md")) - reached - outside == set()
    assert [path for path in reached if not path.is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in LINK.findall(INLINE_CODE.sub("`", without_code(read(page)))):
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_image_is_there_and_says_what_it_shows(page: Path) -> None:
    text = without_code(read(page))
    for words, source in IMAGE.findall(text):
        assert len(words.split()) >= 3, source
        assert source.startswith("https://") or (page.parent / source).is_file()
    assert [tag for tag in HTML_IMAGE.findall(text) if not re.search(r'alt="[^"]+ [^"]+"', tag)] == []


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b_c`: d, e?\n\n## Same\n\n## Same\n\n```sh\n# no heading\n```\n### [Link](x.md) & co\n"
    )
    assert anchors_of(page) == {"a-b_c-d-e", "same", "same-1", "link--co"}


def test_links_are_rewritten_for_the_place_where_a_page_is_shown() -> None:
    conf = load_conf()
    text = "[a](docs/slurm.md#jobs) [b](LICENSE) [c](CHANGELOG.md) [d](https://x.org/y.md) [e](#top)"
    shown = conf.lead_to(text, origin=ROOT / "README.md", page=DOCS / "project" / "readme.md")
    assert shown == (
        "[a](../slurm.md#jobs) [b](../../LICENSE) [c](changelog.md) [d](https://x.org/y.md) [e](#top)"
    )
    text = "![pictures](images/a.png) [a](../README.md#citation) [b](slurm.md)"
    shown = conf.lead_to(text, origin=DOCS / "index.md", page=DOCS / "index.md")
    assert shown == "![pictures](images/a.png) [a](project/readme.md#citation) [b](slurm.md)"


def test_the_list_of_a_section_is_its_table_of_contents() -> None:
    listed = "# Section\n\n* [A page](a.md): words\n* [Another](../b.md)\n  * [inner](c.md)\nsee [d](d.md)\n"
    assert (
        load_conf().contents_of(listed)
        == "\n```{toctree}\n:hidden:\n:maxdepth: 2\n\nA page <a.md>\nAnother <../b.md>\n```\n"
    )
    assert load_conf().contents_of("no list") == ""
