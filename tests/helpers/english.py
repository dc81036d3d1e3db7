"""The rules of CONTRIBUTING.md about English, as a check: `python -m tests.helpers.english [PATH ...]` lists what breaks them.

Read are the documents, docstrings, comments, sentences in strings and names of the product's code. Tests are left out: the name of
a test is its sentence.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MAX_WORDS = 25
# Phrases that no operator or engineer of the field would use, and what they stand for.
PHRASES = {
    r"tells?|told|telling": "publish, report, record, return, show",
    r"anew": "again, or name the step",
    r"beside": "next to, besides, in addition to",
    r"meanwhile": "in the meantime, or name the interval",
    r"who(m)?ever": "any client, any worker",
    r"nobody|somebody": "name the component",
    r"of (ours|its own|their own)": "name the owner",
    r"all the same|so (long|often|many) a[st]?": "name the limit",
    r"in hand": "in flight, unacked",
    r"given out|giv(es?|ing) out": "delivered",
    r"(?<!dead )(?<!dead-)letters?(?! (case|or digits?|and digits?|digits?))": "dead letter, message",
    r"not had|is had|was had|be had|are had|were had": "fetched, acquired",
    r"he|him|his|she|her": "they, or the noun",
    r"bur(y|ied|ies)": "dead-letter, tombstone",
    r"patiently|patience": "retries until",
    r"seen through": "completed",
    r"lies|lie(?! in wait)": "is stored, is kept",
}
_PHRASES = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): better for pattern, better in PHRASES.items()}
_NAMES = re.compile(
    r"(^|_)(told|tells?|telling|anew|beside|meanwhile|whoever|patiently|(?<!dead_)letters?)(_|$)|^_?(found|wanted|words|heard|had)$"
)
_FIRST_WORDS = re.compile(r"(Tell|Say|What|Have|Where|How|Who|Whose|Whether|Note|Look)\b(?! (up|whether))")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(`*\[]*[A-Z0-9`<])")
_CODE = re.compile(r"``?[^`]+``?|https?://\S+|<[^>\s]+>|\{[^}]*\}")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"^\s*(?:[-*] |\d+\. |#+ )")
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ARGUMENT = re.compile(r"^(?:(?:KEYS|ARGV|Returns)[^:]{0,60}: |- )")
# In a docstring: an attribute, an exception.
_NAMED_ITEM = re.compile(r"^(?:\s*(?:[-*] |\d+\. )|\s+[\w`*.,\[\]| ]{1,60}: )")
_KINDS = {".py", ".md", ".lua", ".sh", ".html", ".toml", ".yaml", ".yml", ".cfg", ".conf"}
_FILES = {"Makefile", "Containerfile"}
_SKIPPED_COMMENT = re.compile(r"#(!|:)|# ?(noqa|type:|pragma|fmt:|mypy:|ruff:)")


class Finding(NamedTuple):
    path: str
    line: int
    problem: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}: {self.text}"


class _Text(NamedTuple):
    line: int
    text: str


def findings(paths: Iterable[Path]) -> list[Finding]:
    """Check files; returns what breaks the rules, in the order of the files."""
    found = []
    for path in paths:
        name, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
        nodes = list(ast.walk(ast.parse(text))) if path.suffix == ".py" else []
        found += [Finding(name, *rest) for rest in _names(nodes)]
        found += [Finding(name, *rest) for rest in _first_words(nodes)]
        for paragraph in _paragraphs(path.suffix, text, nodes):
            found += [Finding(name, paragraph.line, *rest) for rest in _problems(paragraph.text)]
    return found


def checked_files() -> list[Path]:
    """List what is checked: what git knows, without tests, lock files and pictures."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [
        ROOT / name
        for name in listed
        if name and not name.startswith("tests/") and (Path(name).suffix in _KINDS or Path(name).name in _FILES)
    ]


def _paragraphs(suffix: str, text: str, nodes: Sequence[ast.AST]) -> Iterator[_Text]:
    if suffix == ".py":
        yield from _docstrings(nodes)
        yield from _comments(text)
        yield from _strings(nodes)
    elif suffix == ".md":
        yield from _markdown(text)
    elif suffix == ".html":
        bare = re.sub(r"\{[{%#].*?[}%#]\}|<(script|style|svg).*?</\1>", "x", text, flags=re.DOTALL)
        for number, line in enumerate(re.sub(r"<[^>]*>", "\n", bare).splitlines(), 1):
            if line.strip():
                yield _Text(number, line.strip())
    else:
        marked = _marked(text, "--" if suffix == ".lua" else "#")
        yield from _joined(marked, _ARGUMENT if suffix == ".lua" else _ITEM)


def _marked(text: str, mark: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        yield number, stripped.removeprefix(mark).strip() if stripped.startswith(mark) and not stripped.startswith("#!") else ""


def _joined(lines: Iterable[tuple[int, str]], item: re.Pattern[str] = _ITEM) -> Iterator[_Text]:
    """Join the lines of a paragraph; an empty line or an item ends it."""
    first, parts = 0, list[str]()
    for number, line in lines:
        if parts and (not line.strip() or item.match(line)):
            yield _Text(first, " ".join(parts))
            parts = []
        if line.strip():
            first = first if parts else number
            parts.append(item.sub("", line).strip() if not parts else line.strip())
    if parts:
        yield _Text(first, " ".join(parts))


def _markdown(text: str) -> Iterator[_Text]:
    is_code, lines, cells = False, list[tuple[int, str]](), list[_Text]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        if (
            is_code
            or line.lstrip().startswith("<")
            or (line.startswith(("    ", "```")) and not re.match(r"\s+([-*]|\d+\.) ", line))
        ):
            lines.append((number, ""))
        elif line.startswith("|"):
            cells += [_Text(number, cell.strip()) for cell in re.split(r"(?<!\\)\|", line) if cell.strip(" -:")]
            lines.append((number, ""))
        else:
            lines.append((number, line))
    yield from _joined(lines)
    yield from cells


def _docstrings(nodes: Sequence[ast.AST]) -> Iterator[_Text]:
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            first = node.body[0]
            lines = (ast.get_docstring(node) or "").splitlines()
            numbered = ((first.lineno + number, _SECTION.sub("", line)) for number, line in enumerate(lines))
            yield from _joined(numbered, _NAMED_ITEM)


def _comments(text: str) -> Iterator[_Text]:
    previous, lines = 0, list[tuple[int, str]]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _SKIPPED_COMMENT.match(token.string):
            number = token.start[0]
            if number != previous + 1 or not token.line.lstrip().startswith("#"):
                lines.append((number, ""))
            lines.append((number, token.string.lstrip("# ")))
            previous = number
    yield from _joined(lines)


def _strings(nodes: Sequence[ast.AST]) -> Iterator[_Text]:
    """Sentences in strings: errors, helps, what commands print."""
    documented = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in ast.walk(node)} - set(map(id, joined))
    for node in nodes:
        if id(node) in documented or id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            sentence = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            sentence = node.value
        else:
            continue
        if len(sentence.split()) > 2 and not sentence.lstrip().startswith(("<", "{", "GET ", "POST ", "HTTP/")):
            for number, line in enumerate(sentence.splitlines()):
                if line.strip():
                    yield _Text(node.lineno + number, line.strip())


def _names(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str, str]]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        else:
            continue
        if _NAMES.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()):
            yield node.lineno, "a name that does not say what it is", name


def _first_words(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str, str]]:
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if _FIRST_WORDS.match(first):
                yield node.lineno, "a docstring begins with an imperative or a noun", first


def _problems(paragraph: str) -> Iterator[tuple[str, str]]:
    bare = _CODE.sub("X", _LINK.sub(r"\1", paragraph))
    for pattern, better in _PHRASES.items():
        for match in pattern.finditer(bare):
            yield f'"{match[0]}" ({better})', _around(bare, match.start())
    for sentence in _SENTENCE_END.split(bare):
        count = len([word for word in sentence.split() if re.search(r"\w", word)])
        if count > MAX_WORDS:
            yield f"{count} words in a sentence", sentence[:100]
        if len(re.findall(r"[:;](?=\s)", sentence)) > 1:
            yield "more than one : or ; in a sentence", sentence[:100]


def _around(text: str, at: int) -> str:
    return text[max(0, at - 40) : at + 40]


def main() -> int:
    paths = [Path(name).resolve() for name in sys.argv[1:]]
    files = [file for file in checked_files() if not paths or any(file == path or path in file.parents for path in paths)]
    found = findings(files)
    for finding in found:
        print(finding)  # noqa: T201 - a command
    print(f"{len(found)} findings in {len(files)} files")  # noqa: T201
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
