"""Source code: the text as it is, with its language; Python has a reader of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode

# Names as tree-sitter has them.
LANGUAGES = {
    ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp", ".hh": "cpp", ".hxx": "cpp",
    ".cs": "csharp", ".java": "java", ".kt": "kotlin", ".kts": "kotlin", ".scala": "scala", ".groovy": "groovy",
    ".go": "go", ".rs": "rust", ".swift": "swift", ".m": "objc", ".mm": "objc", ".zig": "zig", ".d": "d",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript", ".ts": "typescript",
    ".mts": "typescript", ".cts": "typescript", ".tsx": "tsx", ".vue": "vue", ".svelte": "svelte",
    ".css": "css", ".scss": "scss", ".graphql": "graphql", ".proto": "proto", ".sql": "sql",
    ".rb": "ruby", ".php": "php", ".pl": "perl", ".pm": "perl", ".lua": "lua", ".r": "r", ".jl": "julia",
    ".dart": "dart", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".hs": "haskell", ".ml": "ocaml",
    ".fs": "fsharp", ".clj": "clojure", ".f90": "fortran", ".pas": "pascal", ".sol": "solidity",
    ".sh": "bash", ".bash": "bash", ".zsh": "bash", ".fish": "fish", ".ps1": "powershell", ".bat": "batch",
    ".tf": "hcl", ".hcl": "hcl", ".nix": "nix", ".cmake": "cmake", ".gradle": "groovy",
}  # fmt: skip


class Code(Reader):
    extensions = tuple(LANGUAGES)
    content_type = "text/plain"

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document, its `language` by the extension; raises Unreadable, see `_decode`."""
        language = LANGUAGES[path.suffix.lower()]
        metadata = {"source": document_id, "language": language, "content_type": f"text/x-{language}"}
        yield Document(document_id, _decode.read_text(path), metadata)


READER = Code
