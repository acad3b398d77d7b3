"""The import directions between packages, read from the source with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"atlas", "preprocess", "thirdparty", "edits", "tests", "benchmarks", "train", "edit"}
OURS |= {"evaluate", "app"}
ALLOWED = {
    "atlas": {"atlas"},
    "thirdparty": {"thirdparty", "atlas.errors"},
    "preprocess": {"preprocess", "atlas", "thirdparty"},
    "edits": {"edits", "atlas"},
}
FORBIDDEN_NAMES = {"utils.py", "helper.py", "helpers.py", "misc.py", "common.py"}


def imported_modules(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: import *"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def allowed(module: str, rules: set[str]) -> bool:
    return any(module == rule or module.startswith(rule + ".") for rule in rules)


def violations(package: str, rules: set[str], root: Path = ROOT) -> list[str]:
    found = []
    for path in sorted((root / package).rglob("*.py")):
        for module in imported_modules(path):
            if module.split(".")[0] in OURS and not allowed(module, rules):
                found.append(f"{path.relative_to(root)} imports {module}")
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    assert violations(package, ALLOWED[package]) == []


def test_a_wrong_import_is_found(tmp_path):
    (tmp_path / "thirdparty").mkdir()
    (tmp_path / "thirdparty" / "raft.py").write_text(
        "from atlas import clip\nimport atlas.errors\n"
    )
    found = violations("thirdparty", ALLOWED["thirdparty"], tmp_path)
    assert found == ["thirdparty/raft.py imports atlas.clip"]


def test_files_are_named_for_their_job():
    names = [p for package in ALLOWED for p in (ROOT / package).rglob("*.py")]
    assert [p for p in names if p.name in FORBIDDEN_NAMES] == []


def test_no_module_edits_the_import_path():
    sources = [p for package in ALLOWED for p in (ROOT / package).rglob("*.py")]
    assert [p for p in sources if "sys.path" in p.read_text(encoding="utf-8")] == []


def test_edits_of_a_run_need_no_torch():
    """It takes seconds to import; sampling and compositing do without."""
    modules = "edits.session edits.apply edits.cli edits.stmap atlas.layered_file atlas.shots"
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(modules.split())}"
    code += ", thirdparty.lna"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
