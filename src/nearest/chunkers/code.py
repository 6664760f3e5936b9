"""The code chunker: cuts between definitions and statements, as a parser of the language sees them.

Split, then merge (cAST: Zhang et al., EMNLP 2025): a definition that fits the size with all that it holds stays
whole, and neighbours that fit together are one chunk; one that is too long is cut between what it holds, down to
lines. Comments stay with what they are about. Headings are the names of the definitions around a chunk.

The grammars are tree-sitter's, one wheel a language: they are loaded from disk, never from the network. A document
whose language has none is cut as `recursive` does.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from nearest.chunkers import _cut
from nearest.contract import Document
from nearest.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    from tree_sitter import Language, Node

# A language's names to its grammar: the module, and the function in it.
_GRAMMARS: Mapping[str, tuple[str, str]] = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "kotlin": ("tree_sitter_kotlin", "language"),
    "lua": ("tree_sitter_lua", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "python": ("tree_sitter_python", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "scala": ("tree_sitter_scala", "language"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}
LANGUAGES = tuple(_GRAMMARS)
# Nodes that go with the one after them, that define what has a name, and whose definition is in a field of theirs.
_ABOVE = ("comment", "attribute_item")
_DEFINES = {
    *("class", "declaration", "declarator", "definition", "interface", "item", "method", "module", "object", "spec"),
    "specifier",
}
_WRAPS = ("definition", "declaration", "declarator")
_WRAPPED = 5
_TITLE = 200  # characters
_DEEPEST = 64  # levels of the tree that are looked at; generated code can have many thousands


class Code(_cut.Parted):
    """size: tokens. language: of all documents; by default each says its own in its metadata (`language`)."""

    name = "code"
    merges = True
    indents = True

    def __init__(self, tokenizer: Tokenizer, size: int, overlap: int, language: str) -> None:
        if language and language not in _GRAMMARS:
            raise InvalidInput(
                f"chunker code: no grammar for the language {language!r}; there are {', '.join(LANGUAGES)}"
            )
        super().__init__(tokenizer, size, overlap, **({"language": language} if language else {}))
        self._language = language
        _language(language or "python")  # says at once what is not installed

    def parts(self, document: Document) -> list[_cut.Part]:
        language = self._language or document.metadata.get("language")
        if language not in _GRAMMARS:
            return [_cut.Part(0)]
        from tree_sitter import Parser

        source = document.text.encode("utf-8", "surrogatepass")
        tree = Parser(_language(language)).parse(source)
        found = list(_walk(tree.root_node, _Lines(source)))
        offsets = _characters(document.text, source, [start for start, _, _ in found])
        parts = [_cut.Part(at, path, depth) for at, (_, path, depth) in zip(offsets, found, strict=True)]
        return [_cut.Part(0), *parts]

    def is_head(self, text: str, part: _cut.Part) -> bool:
        return True


class _Lines:
    """Of a source in UTF-8: where lines start, and whether nothing but spaces is before a node in its line."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0, *(np.flatnonzero(np.frombuffer(source, np.uint8) == ord("\n")) + 1).tolist()]

    def begins(self, node: Node) -> bool:
        line = self._starts[bisect_right(self._starts, node.start_byte) - 1]
        return not self._source[line : node.start_byte].strip()


def _walk(root: Node, lines: _Lines) -> Iterator[tuple[int, tuple[str, ...], int]]:
    """The nodes that begin a line: their start in bytes, the names around and of them, and their depth.

    Rising by start; a node is followed by what it holds. Those inside of one line are left out.
    """
    todo: list[tuple[Iterator[tuple[int, Node, bool]], tuple[str, ...], int]] = [(_held(root, lines), (), 1)]
    while todo:
        nodes, path, depth = todo[-1]
        found = next(nodes, None)
        if found is None:
            todo.pop()
            continue
        start, node, begins = found
        long = node.end_point.row > node.start_point.row
        if begins:
            if long and (name := _name(node)):
                path = (*path, name)
            yield start, path, depth
        if long and len(todo) < _DEEPEST:
            todo.append((_held(node, lines), path, depth + begins))


def _held(node: Node, lines: _Lines) -> Iterator[tuple[int, Node, bool]]:
    """What a node holds: where it starts, the comments right above included, and whether that begins a line."""
    above: Node | None = None
    start = 0
    for child in node.named_children:
        if above is not None and child.start_point.row > above.end_point.row + (above.end_point.column > 0):
            yield start, above, True
            above = None
        begins = lines.begins(child)
        if above is None:
            start = child.start_byte
        if begins and child.type.endswith(_ABOVE):
            above = child
            continue
        yield start, child, begins or above is not None
        above = None
    if above is not None:
        yield start, above, True


def _name(node: Node) -> str:
    """Of a definition; nothing for another node."""
    for _ in range(_WRAPPED):
        if node.type.rpartition("_")[2] in _DEFINES:
            named = node.child_by_field_name("type" if node.type == "impl_item" else "name")
            if named is not None and named.text is not None:
                return " ".join(named.text.decode(errors="replace").split())[:_TITLE]
        inner = next((c for f in _WRAPS if (c := node.child_by_field_name(f)) is not None), None)
        if inner is None:
            inner = next((c for c in node.named_children[:_WRAPPED] if c.type.endswith(("_spec", "_declarator"))), None)
        if inner is None:
            return ""
        if inner.type.endswith("identifier") and inner.text is not None:  # of a declarator, as C has it
            return inner.text.decode(errors="replace")[:_TITLE]
        node = inner
    return ""


def _characters(text: str, source: bytes, offsets: list[int]) -> list[int]:
    """Offsets in bytes as offsets in characters."""
    if len(source) == len(text):
        return offsets
    # Bytes that go on with a character count for none.
    begins = np.cumsum((np.frombuffer(source, np.uint8) & 0xC0) != 0x80)
    return [int(begins[at]) - 1 if at < len(source) else len(text) for at in offsets]


@cache
def _language(name: str) -> Language:
    module, function = _GRAMMARS[name]
    try:
        import tree_sitter

        grammar = importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"the chunker code needs {error.name}; install it with: pip install 'nearest[code]'"
        ) from error
    return tree_sitter.Language(getattr(grammar, function)())


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int = 0, language: str = "") -> Code:
    """language: of all documents, whatever they say. overlap: of what is cut inside a statement.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size, and for a language without a grammar;
    MissingDependency where tree-sitter is not installed.
    """
    return Code(tokenizer, size, overlap, language)
