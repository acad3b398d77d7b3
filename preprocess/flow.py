"""Optical flow between frames: DIS without weights, RAFT with them; written to `NAME_flow/`.

Convention: flow from a to b is (H, W, 2) float32 pixels, channel 0 is x, 1 is y; pixel (x, y) of
a is at (x, y) + flow[y, x] in b. Backward flow is the flow from the later frame to the earlier.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import Clip, write_bytes
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.progress import Progress as ProgressBar
from atlas.progress import progress as progress_bar

log = logging.getLogger(__name__)

METHODS = ("auto", "raft", "raft_small", "dis")
WORKERS = 2
TAG_NAME = "flow.json"
Progress = Callable[[Iterable, int, str], Iterable]


class FlowMethod(ABC):
    """Something that finds the motion between two pictures of one size."""

    description: str
    """Names the method, its version and settings; goes into `clip.json` and the folder's tag."""
    workers: int = 1
    """How many pairs may be computed at once, each from a thread of its own."""

    @abstractmethod
    def flow(self, a_rgb: np.ndarray, b_rgb: np.ndarray) -> np.ndarray:
        """Motion from picture a to picture b.

        Args:
            a_rgb, b_rgb: (H, W, 3) uint8 RGB, one size.
        Returns:
            (H, W, 2) float32, pixels.
        """


class DisFlow(FlowMethod):
    """Dense inverse search (Kroeger, Timofte, Dai, Van Gool, ECCV 2016) from OpenCV.

    The medium preset, but refined down to the full resolution's half (`finest_scale` 1).
    Deterministic; needs no weights.
    """

    workers = WORKERS

    def __init__(self, finest_scale: int = 1):
        self.finest_scale = finest_scale
        version = ".".join(cv2.__version__.split(".")[:2])
        self.description = f"dis (OpenCV {version}, medium, finest scale {finest_scale})"
        self._local = threading.local()  # one DISOpticalFlow is not safe to share between threads

    def flow(self, a_rgb: np.ndarray, b_rgb: np.ndarray) -> np.ndarray:
        _check_pair(a_rgb, b_rgb)
        height, width = a_rgb.shape[:2]
        a, b = (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (a_rgb, b_rgb))
        down, right = max(0, MIN_DIS_SIDE - height), max(0, MIN_DIS_SIDE - width)
        if down or right:  # smaller than DIS's patches and pyramid allow: repeat the border
            a, b = (cv2.copyMakeBorder(x, 0, down, 0, right, cv2.BORDER_REPLICATE) for x in (a, b))
        found = self._engine().calc(a, b, None)[:height, :width]  # type: ignore[arg-type]
        return np.ascontiguousarray(found, np.float32)

    def _engine(self) -> cv2.DISOpticalFlow:
        engine = getattr(self._local, "engine", None)
        if engine is None:
            engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            engine.setFinestScale(self.finest_scale)
            self._local.engine = engine
        return engine


MIN_DIS_SIDE = 32
"""DIS reads 8-pixel patches on its coarser levels; below this side the picture is padded."""


class RaftFlow(FlowMethod):
    """RAFT (Teed and Deng, ECCV 2020) through torchvision; see `thirdparty.raft`."""

    def __init__(self, name: str, weights: Path | str | None, device: str):
        from thirdparty.raft import Raft

        with download_bar(f"fetching {name}") as report:
            self._raft = Raft(name, weights=weights, device=device, report=report)
        self.description = self._raft.description

    def flow(self, a_rgb: np.ndarray, b_rgb: np.ndarray) -> np.ndarray:
        _check_pair(a_rgb, b_rgb)
        return self._raft.flow(a_rgb, b_rgb)


@contextmanager
def download_bar(description: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback for `thirdparty.weights.find_weights`; the bar appears with the first bytes."""
    with ExitStack() as stack:
        bars: list[ProgressBar] = []
        seen = [0]

        def report(done: int, total: int | None) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar(None, total, description)))
            bars[0].advance(done - seen[0])
            seen[0] = done

        yield report


def open_method(
    method: str = "auto", weights: Path | str | None = None, device: str = "cpu"
) -> FlowMethod:
    """The flow method that a user asked for; `auto` says in one log line which and why.

    Args:
        method: one of `METHODS`. `auto`: RAFT when `weights` are given, or when `device` is a GPU
            and the weights are cached or can be fetched; else DIS. On a CPU RAFT takes seconds
            a pair, so there it is used only when asked for.
        weights: a file with RAFT weights (torchvision's or princeton-vl's), or None.
        device: torch device for RAFT.
    """
    if method not in METHODS:
        raise InputError(f"--flow is {method!r}, wanted one of {', '.join(METHODS)}")
    if method == "dis":
        return DisFlow()
    if method in ("raft", "raft_small"):
        return RaftFlow("raft_small" if method == "raft_small" else "raft_large", weights, device)
    if weights is not None:
        found = RaftFlow("raft_large", weights, device)
        log.info("flow: %s, since its weights are given", found.description)
        return found
    if device.split(":")[0] == "cpu":
        log.info(
            "flow: dis, since RAFT takes seconds a pair on a CPU (some hundred times as long as "
            "DIS); ask for it with --flow raft"
        )
        return DisFlow()
    try:
        found = RaftFlow("raft_large", None, device)
    except InputError as err:
        log.info("flow: dis, since RAFT cannot be had: %s", err)
        return DisFlow()
    log.info("flow: %s, since there is a GPU and its weights are here", found.description)
    return found


def flow_between(
    a_rgb: np.ndarray, b_rgb: np.ndarray, method: FlowMethod | None = None
) -> np.ndarray:
    """(H, W, 2) float32 px: motion from picture a to picture b, any two; DIS unless told."""
    return (method or DisFlow()).flow(a_rgb, b_rgb)


def make_flow(
    clip: Clip,
    method: str = "auto",
    weights: Path | str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> str:
    """Write forward and backward flow between all neighbouring frames of `clip`.

    Whole files of the right shape, made by the same method from the same frames, are kept, so an
    interrupted run goes on where it stopped. Files that something else put there (a folder
    without our tag) are kept too, and that is logged.

    Returns:
        What made the flow, for `clip.json`.
    """
    engine = open_method(method, weights, device)
    folder = clip.sibling("flow")
    folder.mkdir(parents=True, exist_ok=True)
    foreign = _prepare_folder(clip, folder, engine.description)
    pairs = [p for t in range(clip.frame_count - 1) for p in ((t, t + 1), (t + 1, t))]
    todo = sorted({min(t, u) for t, u in pairs if not _is_whole(clip.flow_path(t, u), clip.size)})
    if foreign:
        log.info("flow: %s was not made by preprocess; its whole files are kept", folder)

    def both_ways(t: int) -> None:
        a, b = clip.frame(t), clip.frame(t + 1)
        for source, target, first, second in ((t, t + 1, a, b), (t + 1, t, b, a)):
            path = clip.flow_path(source, target)
            if not _is_whole(path, clip.size):
                save_flow(path, engine.flow(first, second))

    done = _map_threads(both_ways, todo, engine.workers)
    for _ in progress(done, len(todo), "flow") if progress else done:
        pass
    if foreign:
        gaps = f"; gaps filled by {engine.description}" if todo else ""
        return f"found beside the frames{gaps}"
    return engine.description


def save_flow(path: Path, flow: np.ndarray) -> None:
    """Write (H, W, 2) flow as float32 `.npy`, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(flow, np.float32), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def consistency(fwd: np.ndarray, bwd: np.ndarray, max_px: float = 1.0) -> np.ndarray:
    """Which pixels come back to where they were when followed there and back.

    |fwd(x) + bwd(x + fwd(x))| <= max_px; pixels that leave the picture are not consistent.

    Args:
        fwd: (H, W, 2) float32 px, motion from a to b. bwd: the same from b to a.
        max_px: largest cycle error, pixels.
    Returns:
        (H, W) bool, in a's pixels.
    """
    if fwd.shape != bwd.shape:
        raise ValueError(f"fwd and bwd must have one shape, got {fwd.shape} and {bwd.shape}")
    size = Size(*fwd.shape[:2])
    there = pixel_grid(size) + fwd.astype(np.float32)
    back = cv2.remap(bwd.astype(np.float32), there, None, cv2.INTER_LINEAR)  # type: ignore
    error_px = np.linalg.norm(fwd + back, axis=-1)
    inside = (there >= -0.5).all(-1)
    inside &= (there[..., 0] <= size.width - 0.5) & (there[..., 1] <= size.height - 0.5)
    return inside & (error_px <= max_px)


def resize_flow(flow: np.ndarray, size: Size) -> np.ndarray:
    """Flow of the same pair of pictures, both resized to `size`.

    x is scaled by the ratio of the widths and y by the ratio of the heights.

    Args:
        flow: (H, W, 2) float, px of its own size.
    Returns:
        (size.height, size.width, 2) float32, px of `size`.
    """
    height, width = flow.shape[:2]
    shrink = size.height * size.width < height * width
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    out = cv2.resize(flow.astype(np.float32), size.wh, interpolation=how)
    return out * np.array([size.width / width, size.height / height], np.float32)


def warp_backward(picture: np.ndarray, flow: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Bring frame b's `picture` into frame a's view: out(x) = picture(x + flow(x)), bilinear.

    Args:
        picture: (H, W) or (H, W, C), belongs to frame b. flow: (H, W, 2) px, motion from a to b.
        outside: value where x + flow(x) leaves the picture.
    """
    where = pixel_grid(Size(*flow.shape[:2])) + flow
    return cv2.remap(
        picture,
        where,
        None,  # type: ignore[arg-type]
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(outside,) * 4,
    )


def _prepare_folder(clip: Clip, folder: Path, description: str) -> bool:
    """Remove what the method or the frames have outdated, and tag the folder.

    The tag is written before the first flow file and after the last outdated one is gone, so it
    never vouches for a file made otherwise. Returns True when the folder is not ours.
    """
    tag_path = folder / TAG_NAME
    hashes = frame_hashes(clip)
    names = clip.frame_names
    paths = {
        clip.flow_path(t, u): (names[t], names[u])
        for t in range(clip.frame_count - 1)
        for t, u in ((t, t + 1), (t + 1, t))
    }
    old = _read_tag(tag_path)
    if old is None:
        if any(folder.glob("*.npy")):
            return True
        old = {}
    old_hashes = old.get("frames", {}) if old.get("method") == description else {}
    for path, (a, b) in paths.items():
        if old_hashes.get(a) != hashes[a] or old_hashes.get(b) != hashes[b]:
            path.unlink(missing_ok=True)
    if old and old.get("method") != description:
        log.info("flow: was made by %s, wanted %s: redoing it", old.get("method"), description)
    tag = {"method": description, "frames": hashes}
    write_bytes(tag_path, json.dumps(tag, indent=1).encode())
    return False


def _read_tag(path: Path) -> dict | None:
    try:
        tag = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return tag if isinstance(tag, dict) else {}


def frame_hashes(clip: Clip) -> dict[str, str]:
    """Frame name -> hash of its file: tells whether flow or masks were made from these frames."""
    hashes = {}
    for name in clip.frame_names:
        data = (clip.folder / name).read_bytes()
        hashes[name] = hashlib.blake2b(data, digest_size=16).hexdigest()
    return hashes


def flow_maker(clip: Clip) -> str:
    """What made the flow beside `clip`, as its tag says; "unknown" without a tag."""
    return str((_read_tag(clip.sibling("flow") / TAG_NAME) or {}).get("method", "unknown"))


def _is_whole(path: Path, size: Size) -> bool:
    """Whether `path` is a readable float32 flow file of the right shape and length."""
    try:
        flow = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return flow.shape == (size.height, size.width, 2) and flow.dtype == np.float32


def _map_threads(job: Callable[[int], None], items: list[int], workers: int) -> Iterator[None]:
    """Run `job` over `items`, at most `workers` at once; the first failure stops the rest."""
    if workers <= 1:
        yield from map(job, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(job, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_pair(a_rgb: np.ndarray, b_rgb: np.ndarray) -> None:
    if a_rgb.shape != b_rgb.shape:
        raise ValueError(f"a and b must have one shape, got {a_rgb.shape} and {b_rgb.shape}")
    if a_rgb.ndim != 3 or a_rgb.shape[2] != 3 or a_rgb.dtype != np.uint8:
        raise ValueError(f"wanted (H, W, 3) uint8 RGB, got {a_rgb.shape} {a_rgb.dtype}")
