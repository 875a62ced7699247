"""The fenced blocks of the documents, and what a comment before each says about running it."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("sh", "bash")
CODE = (*SHELL, "python", "sql", "toml", "yaml", "json")
SHOWN = ("", "text", "bibtex", "diff", "html")
STARTS = ("nothing", "files", "store", "model", "runs")

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$")
COMMENT = re.compile(r"^\s*<!--\s*(?P<text>.*?)\s*-->\s*$")
DIRECTIVE = re.compile(r"(?P<word>not run|run if|run|file)\s*:\s*(?P<value>.*)")
PAGE_START = re.compile(r"^<!--\s*page starts with:\s*(\w+)\s*-->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    page : Path
        The document.
    line : int
        Line of its first fence, from 1.
    language, text : str
        What stands behind the fence, and within.
    directives : tuple of (str, str)
        Word and value of each comment before it.
    """

    page: Path
    line: int
    language: str
    text: str
    directives: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, as editors understand it."""
        return f"{name_of(self.page)}.md:{self.line}"

    def said(self, word: str) -> str | None:
        """Return the value of a directive."""
        return dict(self.directives).get(word)

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules without which it is not run."""
        return tuple(name.strip() for name in (self.said("run if") or "").split(",") if name.strip())

    @property
    def exit_code(self) -> int:
        """What its last command leaves with."""
        return int((self.said("run") or "exit 0").removeprefix("exit "))

    def problems(self) -> Iterator[str]:
        """Say what is wrong with the fence and its comments."""
        if self.language not in CODE + SHOWN:
            yield f"language {self.language!r} is none of {', '.join(CODE + SHOWN)}"
        if self.language in SHOWN and self.directives:
            yield "a block that is only shown needs no comment, or a language"
        if self.language in SHOWN and re.search(r"^(apogee-batch|sbatch|import) ", self.text, re.MULTILINE):
            yield "holds code, but has no language"
        if len(dict(self.directives)) != len(self.directives):
            yield "a comment is given twice"
        for word, value in self.directives:
            yield from self._problems_of(word, value)

    def _problems_of(self, word: str, value: str) -> Iterator[str]:
        if word == "not run" and len(value.split()) < 2:
            yield "'not run' needs a reason"
        if word == "run" and not (re.fullmatch(r"exit \d+", value) and self.language in SHELL):
            yield f"'run: {value}' should be 'run: exit CODE', before a shell block"
        if word == "file" and (not value or Path(value).is_absolute() or ".." in Path(value).parts):
            yield "'file' needs a name inside the scratch folder"
        if word == "comment":
            yield f"comment not understood: {value}"


def pages() -> list[Path]:
    """Return the documents whose blocks are tested."""
    made = ROOT / "docs" / "reference"
    found = [path for path in (ROOT / "docs").rglob("*.md") if made not in path.parents]
    return [ROOT / "README.md", *sorted(found)]


def name_of(page: Path) -> str:
    """Return the name by which tests call a page: `README`, `docs/howto/gaia`."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


def start_of(page: Path) -> str:
    """Return what the scratch folder of a page holds at first."""
    found = PAGE_START.findall(page.read_text(encoding="utf-8"))
    return found[0] if found else STARTS[-1]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, without Sphinx's own directives."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, number = [], 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if opened is None:
            number += 1
            continue
        end = next(i for i in range(number + 1, len(lines)) if _closes(lines[i], opened["fence"]))
        language = opened["info"].strip()
        if not language.startswith("{"):
            text = textwrap.dedent("".join(f"{line}\n" for line in lines[number + 1 : end]))
            blocks.append(Block(page, number + 1, language, text, _directives(lines[:number])))
        number = end + 1
    return blocks


def _closes(line: str, fence: str) -> bool:
    return line.strip().startswith(fence) and not line.strip().strip(fence[0])


def _directives(before: list[str]) -> tuple[tuple[str, str], ...]:
    """Read the comments directly above a fence; one that begins like a directive and is none is a mistake."""
    found: list[tuple[str, str]] = []
    for line in reversed(before):
        comment = COMMENT.match(line)
        if comment is None:
            break
        said = DIRECTIVE.fullmatch(comment["text"])
        if said is not None:
            found.append((said["word"], said["value"].strip()))
        elif re.match(r"(not|run|file|skip|exec)\b", comment["text"]):
            found.append(("comment", comment["text"]))
    return tuple(reversed(found))
