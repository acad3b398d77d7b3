"""The fast path: speed with each stage's share, memory, the camera on known and on real motion.

    python -m benchmarks.fastpath speed CLIP              # made 854x480 and 1920x1080 first
    python -m benchmarks.fastpath memory CLIP
    python -m benchmarks.fastpath rotation
    python -m benchmarks.fastpath residual CLIP [CLIP ...]

`speed` times the whole command, process start to finished file, and beside it the same edit frame
by frame in one thread, both encoded at the same effort. CPU time counts all processes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from atlas import ffmpeg
from atlas.coords import Size
from atlas.video import open_source
from benchmarks.pipeline import ROOT, keep, print_table

SIZES = (Size(480, 854), Size(1080, 1920))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fastpath",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("speed", "memory", "rotation", "residual"))
    parser.add_argument("clips", nargs="*", type=Path, help="videos")
    parser.add_argument("--sky", default="edits/skies/sunset.jpg", help="the edit's picture")
    parser.add_argument("--preset", help="time a preset instead of a plain sky")
    parser.add_argument("--repeats", type=int, default=5, help="of the timed commands")
    parser.add_argument("--frames", type=int, help="of each clip or scene (default: all, 60)")
    parser.add_argument("--json", type=Path, help="keep the table here")
    options = parser.parse_args()
    if options.what != "rotation" and not options.clips:
        parser.error(f"{options.what} needs a clip")
    return options


def measure_speed(clip: Path, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        made = folder / f"{clip.stem}_{size.height}.mp4"
        remade(clip, made, size, options.frames)
        edit = ["--preset", options.preset] if options.preset else ["--sky", options.sky]
        line = ["edit.py", str(made), *edit, "--out", str(folder / "out.mp4")]
        count = open_source(made).info.frame_count
        runs = [_timed(line) for _ in range(options.repeats)]
        wall_s = [run[0] for run in runs]
        fps = count / statistics.median(wall_s)
        row: dict[str, Any] = {
            "size": str(size),
            "frames": count,
            "frames_per_s": round(fps, 1),
            "spread": f"{count / max(wall_s):.1f}-{count / min(wall_s):.1f}",
            "cpu_ms": round(1000 * statistics.median(run[1] for run in runs) / count, 1),
        }
        few = min(count, 40)
        baseline_s = _timed([*line, "--frame-by-frame", "--range", f"0:{few - 1}"])[0]
        start_s = _timed([*line, "--frame-by-frame", "--range", "0:0"])[0]
        each_s = (baseline_s - start_s) / (few - 1)
        row["one_thread_frames_per_s"] = round(1 / each_s, 1)
        rows.append(row | _stages(line))
    return rows


def remade(clip: Path, made: Path, size: Size, count: int | None) -> None:
    scale = ["-vf", f"scale={size.width}:{size.height}", "-an"]
    some = [] if count is None else ["-frames:v", str(count)]
    encoder = ["-c:v", "libx264", "-crf", "16", "-preset", "fast"]
    line = [ffmpeg.executable(), "-y", "-v", "error", "-i", str(clip), *scale, *some, *encoder]
    subprocess.run([*line, str(made)], check=True)


def _timed(line: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command and all processes it starts."""
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(line)}\n{done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start_s, cpu_s


def _stages(line: list[str]) -> dict[str, Any]:
    """CPU milliseconds of each stage, for a frame, as the command itself tells them."""
    done = subprocess.run(
        [sys.executable, *line, "--stage-times"], cwd=ROOT, capture_output=True, text=True
    )
    told = [row for row in done.stdout.splitlines() if row.startswith("stages, CPU ms a frame: ")]
    parts = told[0].split(": ", 1)[1].split(", ")
    return {name: float(value) for name, value in (part.rsplit(" ", 1) for part in parts)}


def measure_memory(clip: Path, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Peak memory of the command on the clip looped to 300 and to 3000 frames."""
    rows = []
    for count in (300, 3000):
        made = folder / f"looped_{count}.mp4"
        line = [ffmpeg.executable(), "-y", "-v", "error", "-stream_loop", "-1", "-i", str(clip)]
        line += ["-vf", "scale=426:240", "-an", "-frames:v", str(count), "-c:v", "libx264"]
        subprocess.run([*line, "-preset", "ultrafast", str(made)], check=True)
        child = [sys.executable, "-c", _PEAK, "edit.py", str(made), "--sky", options.sky]
        done = subprocess.run(
            [*child, "--out", str(folder / "out.mp4")], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr[-500:])
        peak_mb = int(done.stdout.rsplit("peak_kb ", 1)[1]) / 1024
        rows.append({"frames": count, "peak_mb": round(peak_mb, 1), "ratio": None})
    rows[1]["ratio"] = round(rows[1]["peak_mb"] / rows[0]["peak_mb"], 3)
    return rows


_PEAK = """
import resource, runpy, sys
sys.path.insert(0, '.')
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
print('peak_kb', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    options = parse_arguments()
    rows: list[dict[str, Any]] = []
    if options.what == "rotation":
        from benchmarks.rotation import CASES, LENSES, measure_case

        for name in CASES:
            for lens in LENSES:
                count = options.frames or 60
                rows.append(measure_case(name, Size(288, 512), count, 2, lens))
    elif options.what == "residual":
        from benchmarks.residual import sky_residual

        rows = [sky_residual(clip, options.frames) for clip in options.clips]
    else:
        measure = measure_speed if options.what == "speed" else measure_memory
        with tempfile.TemporaryDirectory() as folder:
            for clip in options.clips:
                rows += measure(clip, options, Path(folder))
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    main()
