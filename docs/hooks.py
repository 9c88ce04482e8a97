"""Publishes the files of the checkout that pages of the manual link to.

A page links to a log or a picture where it lies, `../results/quickstart/log.txt`, which
works on a code host too. MkDocs serves files of `docs/` only; so every such file is
added to the site under its own path, and the link is pointed there.
"""

import codecs
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parents[1]
_TEXT = (".log", ".txt")
_LINK = re.compile(r"(?<=\]\()(?:\.\./)+([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the linked files; a link to nothing stays, for `--strict` to report."""
    for page in list(files.documentation_pages()):
        for path in _LINK.findall(page.content_string):
            if (_ROOT / path).is_file() and path not in files.src_uris:
                content = _readable(_ROOT / path)
                files.append(File.generated(config, path, content=content))
    return files


def _readable(path: Path) -> bytes:
    """The bytes of a file; text says that it is UTF-8, where a server does not."""
    mark = codecs.BOM_UTF8 if path.suffix in _TEXT else b""
    return mark + path.read_bytes()


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Points the links of a page at the published files."""
    del config
    up = "../" * page.file.src_uri.count("/")

    def published(match: re.Match) -> str:
        return up + match[1] if match[1] in files.src_uris else match[0]

    return _LINK.sub(published, markdown)
