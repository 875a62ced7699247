"""How Sphinx builds the documentation: `make docs`, or `sphinx-build -W -b html docs build/docs`.

The pages are plain Markdown that GitHub shows as well, so three things are done here and not in them: the
pages of a section, listed in its `index.md`, become its table of contents; README and its like, which lie
outside this folder, become pages below `project/`; and links between both kinds lead where they should.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from apogee_batch import __version__  # noqa: E402

project = "apogee-batch"
author = "The apogee-batch developers"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_static"]
root_doc = "index"

# Markdown: what GitHub understands, and no more
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
suppress_warnings = [
    "myst.header",  # README begins a section at its second level, as GitHub wants it
    "misc.highlighting_failure",
]

default_role = "code"  # of what docstrings put between backticks

# Python: what `import apogee_batch` offers
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!apogee_batch\.)(?!Spectrum|Model|RunConfig|SpectrumStore).*"),  # other packages' names
    ("py:.*", r"apogee_batch\.(run|network|inference|labels|store|catalog|survey|schema)\..*"),  # not public
]

html_theme = "pydata_sphinx_theme"
html_title = f"apogee-batch {version}"
html_static_path = ["_static"]
html_css_files = ["apogee-batch.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "install", "tutorial")}  # no section, so no list of its pages
html_theme_options = {
    "logo": {"text": "apogee-batch"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "default",
    "pygments_dark_style": "monokai",
    "show_nav_level": 2,
}
copybutton_exclude = ".linenos, .gp, .go"

OUTSIDE = {  # files of the project that become pages, and under which name
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
}
PAGE_OF = {(ROOT / name).resolve(): DOCS / page for name, page in OUTSIDE.items()}
FILE_OF = {page: path for path, page in PAGE_OF.items()}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?)(?=\))")
ENTRY = re.compile(r"^[*-] \[([^\]]+)\]\(([^)#\s]+\.md)\)", re.MULTILINE)


def lead_to(text: str, *, origin: Path, page: Path) -> str:
    """Return Markdown with its links as they have to be in a page.

    Parameters
    ----------
    text : str
        Markdown, with links from where it lies.
    origin, page : Path
        Where it lies, and the page that is made of it.
    """

    def replace(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(origin.parent / found[1]))
        shown = PAGE_OF.get(target, target)
        if shown.is_dir():  # GitHub lists a folder, a page cannot
            return f"{os.path.relpath(ROOT / 'README.md', page.parent)}"
        return os.path.relpath(shown, page.parent) + found[2]

    return LINK.sub(replace, text)


def contents_of(text: str) -> str:
    """Return the table of contents that a list of links means, hidden, since the list is there."""
    entries = "".join(f"{title} <{page}>\n" for title, page in ENTRY.findall(text))
    return f"\n```{{toctree}}\n:hidden:\n:maxdepth: 2\n\n{entries}```\n" if entries else ""


def prepare(app: Any, docname: str, source: list[str]) -> None:
    """Make of a file what Sphinx reads."""
    page = DOCS / f"{docname}.md"
    origin = FILE_OF.get(page, page)
    if origin != page:
        app.env.note_dependency(str(origin))
        source[0] = origin.read_text(encoding="utf-8")
    source[0] = lead_to(source[0], origin=origin, page=page)
    if page.name == "index.md":
        source[0] += contents_of(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Register what is done to sources."""
    app.connect("source-read", prepare)
    return {"parallel_read_safe": True}
