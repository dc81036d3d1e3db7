"""The auditor of chaos runs shares no code with what it judges: a fault of the product must not hide itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

AUDIT = Path(__file__).parents[2] / "chaos" / "audit"
ALLOWED = {*sys.stdlib_module_names, "aio_pika", "orjson"}
OWN = "tests.chaos.audit"
PRODUCT = ("shared", "ingress", "worker", "console", "simulator", "callfold_client", "bench")


def test_it_imports_the_standard_library_an_amqp_client_and_itself() -> None:
    files = sorted(AUDIT.glob("*.py"))
    assert len(files) >= 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path.name}: name the module in full"
                names = [node.module or ""]
            for name in names:
                assert name.startswith(OWN) or name.partition(".")[0] in ALLOWED, f"{path.name} imports {name}"


def test_nothing_of_the_product_is_loaded_with_it() -> None:
    modules = [f"{OWN}.{path.stem}" for path in AUDIT.glob("*.py") if path.stem != "__main__"]
    script = f"import sys, {', '.join(modules)}; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    listed = subprocess.run([sys.executable, "-c", script], cwd=AUDIT.parents[2], capture_output=True, text=True, check=True)
    assert not set(listed.stdout.split()) & set(PRODUCT)
