"""What the benchmarks of fits share: run the commands as a user would, read their reports."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atlas.run import current_commit, machine_name

ROOT = Path(__file__).resolve().parent.parent


def command(*arguments: str | Path) -> float:
    """Run `python ARGUMENTS` in the project's folder; returns wall-clock seconds.

    Raises:
        SystemExit: the command failed; its last lines are printed.
    """
    start_s = time.monotonic()
    line = [sys.executable, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = done.stdout.decode(errors="replace").strip().splitlines()[-5:]
        raise SystemExit("\n".join([f"failed: {' '.join(line)}", *tail]))
    return time.monotonic() - start_s


def report_of(run: Path, *more: str | Path) -> dict[str, Any]:
    """`evaluate.py`'s report of a run."""
    out = run.with_name(run.name + "_report")
    command("evaluate.py", run, "--out", out, *more)
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as a Markdown table, columns in the order of the first row's keys."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(name)) for name in columns) + " |")


def keep(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write rows with machine, date and commit as JSON, if a path is given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "machine": machine_name(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": current_commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }
    path.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def kept_rows(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file that `keep` wrote; none without one."""
    if path is None or not path.is_file():
        return []
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else _plain(value)


def _plain(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
