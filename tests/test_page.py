"""The HTML of the page of a run: what it may hold, and that it can do no harm."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from apogee_batch.report.page import PageTable, Section, render_page
from apogee_batch.report.page_figures import Picture, save_picture

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"x $\\frac{"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and the text of its cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def draw(path: Path) -> Picture:
    with save_picture(path, 2.0) as figure:
        figure.add_subplot().plot([1, 2, 3])
    return Picture(path, EVIL)


@pytest.fixture
def page(tmp_path: Path) -> str:
    table = PageTable(EVIL, ("name", EVIL), ((EVIL, "1"), ("b", EVIL)))
    section = Section("a", EVIL, (EVIL,), (draw(tmp_path / "p.png"),), (EVIL,), (table,))
    return render_page(EVIL, [section, Section("b", "second")])


def test_names_from_files_are_text_wherever_they_stand(page: str) -> None:
    found = Page(page)
    assert found.open == []
    assert not found.named("script")
    assert [
        image["src"] for image in found.named("img") if not str(image["src"]).startswith("data:image/png")
    ] == []
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert (
        found.texts.count(EVIL) == 10
    )  # title, heading, link, section, missing, text, caption, header, two cells
    assert found.named("img")[0]["alt"] == EVIL


def test_nothing_is_fetched_and_nothing_could_be(page: str) -> None:
    found = Page(page)
    policy = next(m for m in found.named("meta") if m.get("http-equiv") == "Content-Security-Policy")[
        "content"
    ]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not re.search(r"url\(|@import", page)
    for tag, attributes in found.tags:
        addresses = [attributes[name] for name in ("src", "href", "srcset", "action") if name in attributes]
        assert all(str(address).startswith(("data:", "#")) for address in addresses), tag


def test_a_link_leads_to_each_section(page: str) -> None:
    found = Page(page)
    links = [link["href"] for link in found.named("a")]
    assert links == [f"#{section['id']}" for section in found.named("section")] == ["#a", "#b"]


def test_pictures_are_embedded_whole_and_small(page: str, tmp_path: Path) -> None:
    source = str(Page(page).named("img")[0]["src"])
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    original = (tmp_path / "p.png").read_bytes()
    assert content[:8] == original[:8]
    assert content[16:24] == original[16:24]  # width and height
    assert len(content) < len(original)
    assert Page(page).named("img")[0]["width"] == "1008"


def test_a_table_whose_rows_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="rows of the table 'x' have"):
        PageTable("x", ("a", "b"), (("1",),))


def test_columns_without_an_entry_are_left_out() -> None:
    table = PageTable("x", ("a", "b", "c"), (("1", "", "2"), ("", "", "3")), n_texts=2)
    assert table.without_empty_columns() == PageTable("x", ("a", "c"), (("1", "2"), ("", "3")), n_texts=1)
    empty = PageTable("x", ("a",), ())
    assert empty.without_empty_columns() is empty


def test_a_picture_is_a_png_and_a_pdf_without_a_date(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / f"{name}.png")
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
        assert one.startswith(magic)
        assert b"Matplotlib" not in one
        assert b"CreationDate" not in one
