"""Records of downloadable network weights: where they lie, how they are checked, what they score.

Nothing is fetched at import. `find_weights` takes a local file where one is given, else the cache,
else the network, and checks size and hash before a file gets its final name. `load_state` reads a
checked file without running any code from it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import InputError

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0
Report = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class WeightRecord:
    """One downloadable file.

    `sha256` is the full digest as several independent projects publish it; its first 8 digits are
    also in torchvision's file name. Only what was published is recorded: nobody of this project
    computed it from the file. A shorter string is checked as a prefix.
    """

    name: str
    """What the project calls it; the key in `RECORDS`."""
    url: str
    sha256: str
    """Digest in lower-case hexadecimal, or its first digits (at least 8)."""
    size_bytes: int | None
    """Length of the file; None where it is not published (the hash then decides alone)."""
    licence: str
    source: str
    """Who trained it, with what recipe."""
    score: str
    """Published figure and data set."""

    def __post_init__(self) -> None:
        digits = set("0123456789abcdef")
        if not (8 <= len(self.sha256) <= 64 and set(self.sha256) <= digits):
            raise ValueError(f"sha256 must be 8 to 64 lower-case hex digits, got {self.sha256!r}")

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_BASE = "https://download.pytorch.org/models"
_MEDIAPIPE = "https://storage.googleapis.com/mediapipe-assets/"
_TORCHVISION = "torchvision (BSD-3-Clause); the data it was trained on carries terms of its own: "

RECORDS = {
    record.name: record
    for record in (
        WeightRecord(
            name="raft_large",
            url=f"{_BASE}/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
            size_bytes=21_106_607,
            licence=_TORCHVISION + "FlyingChairs, FlyingThings3D, Sintel, KITTI, HD1K",
            source="torchvision Raft_Large_Weights.C_T_SKHT_V2, references/optical_flow",
            score="EPE 1.819 px Sintel test clean, 3.067 px final",
        ),
        WeightRecord(
            name="raft_small",
            url=f"{_BASE}/raft_small_C_T_V2-01064c6d.pth",
            sha256="01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
            size_bytes=4_006_189,
            licence=_TORCHVISION + "FlyingChairs, FlyingThings3D",
            source="torchvision Raft_Small_Weights.C_T_V2, references/optical_flow",
            score="EPE 1.9901 px Sintel train clean, 3.2831 px final",
        ),
        WeightRecord(
            name="maskrcnn_resnet50_fpn_v2",
            url=f"{_BASE}/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            sha256="73cbd0190fcbe3ba339921fbce2c3a0b6bb9126c9a133c85e43a2a8e060a109e",
            size_bytes=185_828_065,
            licence=_TORCHVISION + "COCO",
            source="torchvision MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1, pull request 5773",
            score="COCO val2017: box mAP 47.4, mask mAP 41.8",
        ),
        WeightRecord(
            name="maskrcnn_resnet50_fpn",
            url=f"{_BASE}/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
            sha256="bf2d0c1efbc936eeee2bc95a48e80ebc86b891f61b0106485937fc29f9315fc0",
            size_bytes=178_090_079,
            licence=_TORCHVISION + "COCO",
            source="torchvision MaskRCNN_ResNet50_FPN_Weights.COCO_V1, references/detection",
            score="COCO val2017: box mAP 37.9, mask mAP 34.6",
        ),
        WeightRecord(
            name="mobilenet_v2_ssd",
            url=_MEDIAPIPE + "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite",
            sha256="d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
            size_bytes=9_987_728,
            licence="MediaPipe (Apache-2.0); trained on Open Images V4 (annotations CC BY 4.0, "
            "pictures listed as CC BY 2.0)",
            source="MediaPipe objectron: SSD on MobileNetV2, half precision; digest of its build",
            score="not published",
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched weights are kept: $SKYWEAVE_CACHE, else ~/.cache/skyweave."""
    given = os.environ.get("SKYWEAVE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "skyweave"


def find_weights(
    record: WeightRecord, local: Path | str | None = None, report: Report | None = None
) -> Path:
    """The file with the weights of `record`: the local one, the cached one, or fetched now.

    Args:
        local: a file of the user's own; taken as it is, whatever its hash (it may be the user's
            own training), and never looked for elsewhere.
        report: called as report(bytes so far, bytes in all or None) while fetching.
    """
    if local is not None:
        path = Path(local)
        if not path.is_file():
            raise InputError(f"{path}: weights not found; wanted a file with {record.name} weights")
        return path
    path = cache_folder() / record.file_name
    if path.is_file():
        try:
            check_file(record, path)
        except InputError as err:
            log.warning("%s; fetching it again", err)
        else:
            return path
    return fetch(record, path, report)


def check_file(record: WeightRecord, path: Path) -> None:
    """Raise `InputError` unless `path` has the size and the hash of `record`."""
    found_bytes = path.stat().st_size
    if record.size_bytes is not None and found_bytes != record.size_bytes:
        raise InputError(
            f"{path}: has {found_bytes} bytes, wanted {record.size_bytes} ({record.name})"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(record.sha256):
        raise InputError(
            f"{path}: sha256 is {found}, wanted {record.sha256} ({record.name}); the file is "
            "damaged or another one"
        )


def fetch(record: WeightRecord, path: Path, report: Report | None = None) -> Path:
    """Download `record` to `path`: under a temporary name, checked, then renamed.

    A partial file of an interrupted run is gone on with where the server allows it, else the
    download starts afresh. A file that fails its check is removed.
    """
    part = path.with_name(path.name + ".part")
    log.info("fetching %s from %s (licence: %s)", record.name, record.url, record.licence)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(record, part, report)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as err:
        reason = err.reason if isinstance(err, urllib.error.URLError) else err
        code = f"HTTP {err.code} " if isinstance(err, urllib.error.HTTPError) else ""
        raise InputError(
            f"{record.name}: cannot fetch {record.url} ({code}{reason}); fetch that file by "
            f"other means and give its path as the weights, or put it at {path}"
        ) from err
    try:
        check_file(record, part)
    except InputError as err:
        part.unlink()
        raise InputError(
            f"{record.name}: what {record.url} sent is not the recorded file ({err}); try again, "
            "or give a local file as the weights"
        ) from err
    part.replace(path)
    return path


def _download(record: WeightRecord, part: Path, report: Report | None) -> None:
    """Fetch into `part`, going on after the bytes that are there already."""
    start = part.stat().st_size if part.is_file() else 0
    if record.size_bytes is not None and start >= record.size_bytes:
        part.unlink()  # as long as the whole, yet never renamed: it failed its check
        start = 0
    request = urllib.request.Request(record.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as err:
        if err.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        part.unlink()
        _download(record, part, report)
        return
    with response:
        if start and response.status != http.client.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else record.size_bytes
        done = start
        with part.open("ab" if start else "wb") as file:
            while block := response.read(CHUNK_BYTES):
                file.write(block)
                done += len(block)
                if report:
                    report(done, total)
    if length and done < start + int(length):
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def load_state(path: Path) -> dict:
    """The state dict in a `.pth` file, read with `weights_only` (no code from it is run).

    Accepts a bare state dict and one under "state_dict" or "model"; strips the "module." that
    DataParallel puts before every key.
    """
    import torch

    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # torch raises pickle, zip, EOF, key and runtime errors here
        raise InputError(
            f"{path}: not a readable PyTorch weight file ({type(err).__name__}); wanted a .pth "
            "state dict"
        ) from err
    for key in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(v, torch.Tensor) for v in data.values()):
        raise InputError(f"{path}: holds {type(data).__name__}, wanted a state dict of tensors")
    return {key.removeprefix("module."): value for key, value in data.items()}
