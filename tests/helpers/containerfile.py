"""What deploy/Containerfile must fulfil, as rules that name what is wrong with a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """Return the instructions with their arguments, continued lines joined."""
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.strip().partition(" ") for line in joined.splitlines())
    return [(name, " ".join(rest.split())) for name, _, rest in lines if name]


def final_stage(found: list[Instruction]) -> dict[str, str]:
    """Return the instructions of the last stage; of those given twice, the last counts."""
    last = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[last:])


def refusals(text: str) -> list[str]:
    """Return what is wrong with the text of a Containerfile."""
    found = instructions(text)
    return [*_of_the_base(found), *_of_the_content(found), *_of_the_final_stage(final_stage(found))]


def _of_the_base(found: list[Instruction]) -> Iterator[str]:
    presets = [rest for name, rest in found if name == "ARG" and rest.startswith("BASE=")]
    if len(presets) != 1 or not re.fullmatch(r"BASE=[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", presets[0]):
        yield "the base is not pinned by its digest"
    stages = [rest.partition(" ")[0] for name, rest in found if name == "FROM"]
    if stages != ["${BASE}", "${BASE}"]:
        yield "a stage has another base"


def _of_the_content(found: list[Instruction]) -> Iterator[str]:
    copied = [rest.split() for name, rest in found if name == "COPY"]
    if any(name == "ADD" for name, _ in found) or any(source.strip("./") == "" for parts in copied for source in parts[:-1]):
        yield "the whole context is copied, or ADD is used"
    runs = [json.loads(rest) for name, rest in found if name == "RUN" and rest.startswith("[")]
    if len(runs) != sum(name == "RUN" for name, _ in found):
        yield "a command runs in a shell"
    installs = [run for run in runs if run[0].endswith("/pip")]
    if not all("--require-hashes" in run if "-r" in run else "--no-deps" in run for run in installs):
        yield "a package is installed without its hash"
    if not all("--no-build-isolation" in run for run in installs if "wheel" in run):
        yield "the wheel is built with packages that are not pinned"
    if not any("compileall" in run and "unchecked-hash" in run for run in runs):
        yield "the bytecode depends on the time of the build"


def _of_the_final_stage(final: dict[str, str]) -> Iterator[str]:
    if not re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", final.get("USER", "")):
        yield "the user is root, or not a number"
    if '["python", "-c", ' not in final.get("HEALTHCHECK", ""):
        yield "there is no health check"
    if final.get("ENTRYPOINT") != '["callfold"]' or final.get("STOPSIGNAL") != "SIGTERM":
        yield "the entry point is not callfold, or SIGTERM does not stop it"
    missing = [name for name in ("title", "description", "licenses", "version", "revision") if name not in final.get("LABEL", "")]
    if missing:
        yield f"a label is missing: {', '.join(missing)}"
