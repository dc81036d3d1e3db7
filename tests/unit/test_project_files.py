"""The files around the code are valid, name what exists, and hold no second copy of the version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from console.cli.main import app

_ROOT = Path(__file__).resolve().parents[2]
_PROJECT: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
_NOT_OURS = {".git", ".venv", ".callfold", ".hypothesis", "build", "__pycache__", "node_modules"}
_VERSIONED = {"CHANGELOG.md", "pyproject.toml", "clients/python/pyproject.toml", "clients/typescript/package.json"}
_LOCKS = {
    "deploy/requirements.txt",
    "deploy/build-requirements.txt",
    "tests/requirements.txt",
    "clients/typescript/package-lock.json",
    "tests/clients/package-lock.json",
}  # other packages may have the same version
_GITHUB = _ROOT / ".github"
_SCHEMAS = {
    "vendor.github-workflows": sorted((_GITHUB / "workflows").iterdir()),
    "vendor.dependabot": [_GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": sorted(path for path in (_GITHUB / "ISSUE_TEMPLATE").iterdir() if path.name != "config.yml"),
    "vendor.github-issue-config": [_GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
}


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(_ROOT):
        folders[:] = [name for name in folders if name not in _NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder, name) for name in names)


def _loaded(path: Path) -> Any:  # noqa: ANN401
    return yaml.safe_load(path.read_text("utf-8"))


def _second_copies(files: Iterator[Path], number: str) -> list[str]:
    pattern = re.compile(rb"(?<![\d.])" + re.escape(number).encode() + rb"(?!\.?\d)")
    named = ((str(path.relative_to(_ROOT)), path) for path in files)
    return sorted(name for name, path in named if name not in _VERSIONED | _LOCKS and pattern.search(path.read_bytes()))


def test_the_version_stands_in_pyproject_and_the_changelog_alone() -> None:
    assert _second_copies(_files(), _PROJECT["version"]) == []


def test_a_second_copy_of_the_version_is_found_and_an_address_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_ROOT", tmp_path)
    for name, text in {
        "a": 'v = "1.2.3"',
        "b": "1.2.3.",
        "c": "11.2.3",
        "d": "1.2.3.4",
        "e": "1.2.34",
        "CHANGELOG.md": "1.2.3",
    }.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert _second_copies(iter(sorted(tmp_path.iterdir())), "1.2.3") == ["a", "b"]


def test_the_installed_version_is_the_one_of_pyproject_and_the_changelog_has_it() -> None:
    assert version("callfold") == _PROJECT["version"], "run `make setup`"
    changelog = (_ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(_PROJECT['version'])} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


def test_the_command_line_shows_the_installed_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"callfold {version('callfold')}\n"


def test_the_security_page_supports_the_present_version() -> None:
    series = ".".join([*_PROJECT["version"].split(".")[:2], "x"])
    assert f"| {series} | yes |" in (_ROOT / "SECURITY.md").read_text("utf-8")


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_files_for_github_fit_their_schema(schema: str) -> None:
    # The schemas come with the tool: nothing is fetched.
    assert _SCHEMAS[schema]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, _SCHEMAS[schema])]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


def test_ci_runs_the_commands_of_the_readme_with_least_rights_and_within_a_limit() -> None:
    workflow = _loaded(_GITHUB / "workflows" / "ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert [command for command in commands if not command.startswith("git config")] == [
        *("make check", ".ci/run", "make test-clients", "make audit")
    ]
    assert all(0 < job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
    assert os.access(_ROOT / ".ci" / "run", os.X_OK)


def test_ci_checks_every_supported_python() -> None:
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(_PROJECT["classifiers"]))
    assert _loaded(_GITHUB / "workflows" / "ci.yml")["jobs"]["check"]["strategy"]["matrix"]["python"] == classifiers


def test_every_file_that_ci_and_dependabot_name_exists() -> None:
    text = (_GITHUB / "workflows" / "ci.yml").read_text("utf-8")
    for name in re.findall(r"cache-dependency-path: (\S+)", text):
        assert (_ROOT / name).is_file()
    for update in _loaded(_GITHUB / "dependabot.yml")["updates"]:
        directory = _ROOT / update["directory"].strip("/")
        expected = {
            "pip": "pyproject.toml",
            "npm": "package-lock.json",
            "docker": "Containerfile",
            "github-actions": ".github/workflows/ci.yml",
        }
        assert (directory / expected[update["package-ecosystem"]]).is_file()


def test_hooks_run_the_tools_of_the_virtual_environment_and_fetch_none() -> None:
    repositories = _loaded(_ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    tools = Path(sys.executable).parent
    for hook in repositories[0]["hooks"]:
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        assert program.startswith(".venv/bin/")
        assert (tools / Path(program).name).exists()
        if arguments[:1] == ["-m"]:
            assert (_ROOT / f"{arguments[1].replace('.', '/')}.py").is_file()


def test_the_dev_container_installs_what_make_installs_on_a_supported_python() -> None:
    described = json.loads((_ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert described["postCreateCommand"] == "make setup"
    image = re.fullmatch(r"python:(3\.\d+)-bookworm", described["image"])
    assert image
    assert f"Programming Language :: Python :: {image[1]}" in _PROJECT["classifiers"]


_MAKING = ["CONTRIBUTING.md", "docs/releasing.md", ".github/workflows/ci.yml", ".github/pull_request_template.md", ".ci/run"]


@pytest.mark.parametrize("name", _MAKING)
def test_every_target_of_make_that_is_named_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|run: |exec |^    )make ([a-z-]+)", (_ROOT / name).read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= targets


def test_every_term_of_the_glossary_is_used() -> None:
    """A term of which neither code nor documents speak has gone."""
    glossary = (_ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Glossary")[2]
    terms = {term for row in re.findall(r"^\| ([a-z][a-z ,-]+) \|", glossary, re.MULTILINE) for term in row.split(", ")} - {
        "term"
    }
    pages = [_ROOT / "README.md", _ROOT / "ARCHITECTURE.md", *(_ROOT / "docs").rglob("*.md"), *(_ROOT / "shared").rglob("*.py")]
    text = re.sub(r"[\s_]+", " ", " ".join(page.read_text("utf-8") for page in pages).lower())
    assert len(terms) > 25
    assert sorted(term for term in terms if not re.search(rf"\b{term}", text)) == []
