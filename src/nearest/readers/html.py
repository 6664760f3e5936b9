"""HTML: the main content, without menus and footers; where none is found, all of the text.

The main content is found by trafilatura (Barbaresi, 2021). Of a page that is too short for it, it gives all text in
one piece, menus included: there the page's own marks decide (`main`, `article`, `nav`, lists of nothing but links).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearest.contract import Document, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _extra
from nearest.readers._marks import marks
from nearest.readers._markup import Markup

REQUIRES = {"lxml": ">=6,<7", "trafilatura": ">=2.1,<3"}

_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})|encoding=[\"']([\w.-]{2,40})[\"']"
)
_CONTENT = "//main | //article | //*[@role='main']"
_ASIDE = "//nav | //footer | //aside | //*[@role='navigation' or @role='contentinfo' or @role='search']"
_XML = re.compile(r"\s*<\?xml[^>]*\?>")


class Html(Reader):
    extensions = (".html", ".htm", ".xhtml", ".xht")
    content_type = "text/html"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; metadata: title, author, created (the date of publication), language, as the page tells them.

        Raises Unreadable, see `_decode`, and for a page without text (one that a script fills in, say).
        """
        with _extra.needed():
            from trafilatura import bare_extraction
            from trafilatura.settings import set_date_params

        source = _decode.read_text(path, declared)
        tree = parse(source)
        language = tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang")
        title = tree.findtext(".//title")
        found: Any = bare_extraction(
            tree,
            favor_recall=True,
            include_comments=False,
            with_metadata=True,
            date_extraction_params=set_date_params(extensive=False),
        )
        markup = Markup()
        if found is not None and found.body is not None and len(found.body) > 1:  # one piece is all text, see above
            markup.add(found.body)
        if not markup.text:
            markup = _marked(parse(source))  # the tree may have been altered
        if not markup.text:
            markup = whole(parse(source))
        text = _extra.clean(markup.text)
        if not text.strip():
            raise Unreadable("has no text; if a script fills it in, save the page from a browser")
        metadata = {
            "source": document_id,
            **_extra.facts(
                title=getattr(found, "title", None) or title,
                author=getattr(found, "author", None),
                created=getattr(found, "date", None),
                language=language,
            ),
        }
        yield Document(document_id, text, metadata, marks(markup.headings))


def declared(data: bytes) -> str | None:
    """The encoding that the first kilobytes declare."""
    found = _CHARSET.search(data[:4096])
    return (found[1] or found[2]).decode() if found else None


def parse(text: str) -> Any:
    """The tree of lxml; raises Unreadable where there is nothing in it."""
    with _extra.needed():
        from lxml import etree, html  # type: ignore[import-untyped]

    try:
        # Without `huge_tree` all after the 256th level would be lost, and nothing said; the worker's limits hold.
        return html.document_fromstring(
            _XML.sub("", text, count=1), parser=html.HTMLParser(no_network=True, huge_tree=True)
        )
    except etree.ParserError as error:
        raise Unreadable(f"has no content: {error}") from None


def _marked(tree: Any) -> Markup:
    """What the page itself marks as its content; or all but what it marks as something else."""
    found = tree.xpath(_CONTENT)
    content = [each for each in found if not any(above in found for above in each.iterancestors())]
    if any(" ".join(each.itertext()).strip() for each in content):
        markup = Markup()
        for each in content:
            markup.add(each)
        return markup
    for each in tree.xpath(_ASIDE):
        each.drop_tree()
    for each in tree.xpath("//ul | //ol"):
        linked = sum(len("".join("".join(link.itertext()).split())) for link in each.iter("a"))
        if each.getparent() is not None and linked == len("".join("".join(each.itertext()).split())):
            each.drop_tree()
    return whole(tree)


def whole(tree: Any) -> Markup:
    """All of the text of a page, but menus and scripts."""
    markup = Markup()
    body = tree.find(".//body")
    markup.add(tree if body is None else body)
    return markup


READER = Html
