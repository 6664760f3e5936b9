"""Keeps README.md and docs/ true: generated parts, links, and the code blocks that tests/test_docs.py runs.

    python -m tools.docs check     what has drifted; exit code 1 if anything has (part of `make check`)
    python -m tools.docs write     rewrites the generated parts (`make docs`)

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is in GENERATORS.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]

_GENERATED = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_COMMAND = re.compile(r"^(?:\$ )?(?P<command>(?:\w+=\S* )*nearest(?: .*)?)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where the text starts."""

    language: str
    text: str
    line: int

    @property
    def shown_only(self) -> bool:
        return self.text.lstrip().startswith("# not run")

    def commands(self) -> Iterator[str]:
        """The lines that call nearest, but for those that end in `# not run`; other lines are shown only."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if (match := _COMMAND.match(line)) and not line.rstrip().endswith("# not run"):
                yield match["command"]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    return [Block(m["language"], m["text"], text.count("\n", 0, m.start("text")) + 1) for m in _FENCE.finditer(text)]


# --- generated parts ---


def stores() -> str:
    """What each store can do, from what its file declares."""
    return table(*_matrix())


def each_store() -> str:
    """Install command, URL and options of every store, as its own file explains them."""
    from nearest import plugins
    from nearest.stores import describe

    install = {told["name"]: told["install"] for told in describe()}
    parts = []
    for name, module in plugins.load_all("stores").items():
        command = f"`{install[name]}`" if install[name] else "nothing to install"
        parts.append(f"### {name}\n\n{command}\n\n```text\n{(module.__doc__ or '').strip()}\n```\n")
    return "\n".join(parts)


def plain_matrix() -> str:
    """The features of the same table, for a terminal."""
    head, rows = _matrix()
    features = [row for row in rows if set(row[1:]) <= {"yes", ""}]
    widths = [max(len(line[i]) for line in [head, *features]) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in [head, *features])
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _matrix() -> tuple[list[str], list[list[str]]]:
    from nearest import contract, plugins
    from nearest.stores import schemes

    modules = plugins.load_all("stores")
    capabilities = {name: module.STORE.capabilities for name, module in modules.items()}
    rows = [
        ["URL", *(", ".join(f"`{scheme}:`" for scheme in schemes(module)) for module in modules.values())],
        ["client", *(", ".join(f"{n} {v}" for n, v in m.REQUIRES.items()) or "none" for m in modules.values())],
    ]
    for feature in get_args(contract.Feature):
        rows.append([feature.replace("_", " "), *("yes" if feature in c else "" for c in capabilities.values())])
    native = [" ".join(f"`{name}`" for name in sorted(c.filters)) for c in capabilities.values()]
    rows.append(["filters run natively", *native])
    rows.append(["known gaps", *("; ".join(g.reason for g in m.KNOWN_GAPS) or "none" for m in modules.values())])
    return ["", *modules], rows


def models() -> str:
    """The providers' models that are known, from the registry of the embedders."""
    from nearest.embedders import _registry

    rows = []
    for provider, known in _registry.MODELS.items():
        for name, model in known.items():
            shorter = f"1 to {model.dimension}" if model.shorter == "any" else ", ".join(map(str, model.shorter))
            price = f"{model.price:.2f} ({model.priced})" if model.price is not None else "not known"
            rows.append([f"`{provider}:{name}`", f"{model.dimension}", shorter, f"{model.max_tokens:,}", price])
    return table(["model", "dimension", "`dimensions=`", "tokens a text", "$ a million tokens (as of)"], rows)


def families() -> str:
    """What is put before the texts of open models, from the same registry."""
    from nearest.embedders import _registry

    def shown(text: str) -> str:
        return f"`{text.replace(chr(10), '⏎')}`" if text else ""

    rows = [
        [
            shown(f.name),
            shown(f.query),
            shown(f.document),
            f.shorter if isinstance(f.shorter, str) else ", ".join(map(str, f.shorter)),
        ]
        for f in _registry.FAMILIES
    ]
    return table(["name (a regular expression)", "before queries", "before documents", "`dimensions=`"], rows)


def readers() -> str:
    """The formats, from what each reader declares."""
    from nearest import plugins

    rows = []
    for name, module in plugins.load_all("readers").items():
        reader = module.READER
        extensions = " ".join(f"`{each}`" if each else "no extension" for each in reader.extensions)
        libraries = ", ".join(getattr(module, "REQUIRES", {})) or "none"
        rows.append([name, extensions, reader.content_type, libraries, "yes" if reader.isolated else ""])
    return table(["format", "extensions", "content_type", "libraries", "in a process of its own"], rows)


def limits() -> str:
    """What bounds a file, from the constants that hold it."""
    from nearest.ingest import files, remote, sources, web
    from nearest.readers import _decode, _extra, _isolated, _worker, csv, pdf, zip

    mib = 1 << 20
    rows = [
        ["a file that is read as a whole", f"{_decode.MAX_BYTES // mib} MiB"],
        ["a line of JSONL, a row of CSV", f"{_decode.MAX_LINE // mib} million characters"],
        ["failures of one file that are told one by one", f"{files.MAX_FAILURES:,}; of the others their number"],
        ["columns of CSV", f"{csv._MAX_COLUMNS:,}"],
        ["text of one document of a format with a process of its own",
         f"{_worker.MAX_TEXT // 1_000_000} million characters"],
        ["memory of such a process", f"{_isolated.MEMORY >> 30} GiB (Linux)"],
        ["time for a document of such a file",
         f"{_isolated.SECONDS:.0f} s and {_isolated.SECONDS_A_MIB:.0f} s a MiB, at most "
         f"{_isolated.MOST_SECONDS / 60:.0f} min; {_isolated.TOTAL} times that for all of its documents"],
        ["pages of a PDF", f"{pdf.MAX_PAGES:,}"],
        ["an archive, and a format that is one (DOCX, PPTX, XLSX, EPUB), unpacked",
         f"{_extra.MAX_EXPANDED // mib} MiB, {_extra.MAX_MEMBERS:,} files; over {_extra._SMALL // mib} MiB "
         f"{_extra.MAX_RATIO} times its size"],
        ["archives in an archive", f"{zip.MAX_DEPTH} deep"],
        ["standard input", f"{sources._MAX_STDIN // mib} MiB"],
        ["a web page", f"{web.MAX_BYTES // mib} MiB, {web.SECONDS:.0f} s, {web.MAX_REDIRECTS} redirects"],
        ["a file of an object store", f"{remote.MAX_BYTES >> 30} GiB, and then the limits of its format"],
    ]  # fmt: skip
    return table(["what", "at most"], rows)


def cli() -> str:
    """What `nearest --help` says, of itself and of every command."""
    import typer

    from nearest.cli import commands

    program = str(Path(sys.executable).with_name("nearest"))
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}

    def asked(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        return f"```text\n$ {' '.join(['nearest', *arguments, '--help'])}\n{done.stdout.strip()}\n```\n"

    return "\n".join([asked(), *(asked(name) for name in typer.main.get_group(commands.cli).commands)])


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


GENERATORS: dict[str, Callable[[], str]] = {
    "cli": cli,
    "each-store": each_store,
    "families": families,
    "limits": limits,
    "models": models,
    "readers": readers,
    "stores": stores,
}


def regenerated(text: str) -> str:
    """The text with its generated parts made anew; raises KeyError for a name that nothing generates."""
    return _GENERATED.sub(lambda m: f"{m[1]}{GENERATORS[m['name']]()}{m[4]}", text)


# --- links ---


def broken_links(page: Path) -> Iterator[str]:
    """Links to files of this repository that are not there, or to headings that they don't have."""
    for match in _LINK.finditer(_FENCE.sub("", page.read_text())):
        path, _, anchor = match["target"].partition("#")
        if re.match(r"\w+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"link to {match['target']}: no such file"
        elif anchor and target.suffix == ".md" and anchor not in _anchors(target.read_text()):
            yield f"link to {match['target']}: no such heading"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# --- command line ---


def problems() -> list[str]:
    found = []
    for page in pages():
        name, text = page.relative_to(ROOT), page.read_text()
        found += [f"{name}: {problem}" for problem in broken_links(page)]
        try:
            if regenerated(text) != text:
                found.append(f"{name}: its generated parts have drifted; run `make docs`")
        except KeyError as error:
            found.append(f"{name}: nothing generates {error}; there are {', '.join(sorted(GENERATORS))}")
    return found


def main(action: str) -> int:
    if action == "write":
        for page in pages():
            text = page.read_text()
            if (new := regenerated(text)) != text:
                page.write_text(new)
                print(f"rewrote {page.relative_to(ROOT)}")
        return 0
    found = problems()
    print("\n".join(found) or f"{len(pages())} pages hold")
    return 1 if found else 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["check"], ["write"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
