"""All that the original program's evaluation writes of a fit, as pictures, videos and a table.

One folder with, L standing for the name of a layer: the atlases plain, with what was seen as alpha
and edited; videos of input, reconstruction, residual, mattes, mattes against the given masks, every
layer alone, under a checkerboard and under the edit, atlas positions, flow, and the flow and
rigidity losses at every pixel; the PSNR of every frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import torch

from atlas.clip import Clip, write_bytes, write_rgb
from atlas.coords import Size, pixel_grid, pixel_to_st
from atlas.evaluation import ContenderView, Measurement
from atlas.losses import rigidity
from atlas.mapping import FrameMapping, visible_shares
from atlas.metrics import (
    HeldOutFlow,
    cycle_consistent,
    held_out_flow,
    local_jacobian,
    psnr_db,
    sample_bilinear,
    texels_to_px,
)
from atlas.sheets import over_squares, shade_by, to_bytes
from atlas.texture import sample
from atlas.video_writer import VideoWriter

RESIDUAL_GAIN = 2.0
"""The residual video shows 0.5 + this times (frame - reconstruction)."""
FLOW_LOSS_PX = 4.0
"""What is white in the video of the flow loss, frame pixels."""
RIGIDITY_OCTAVES = 3.0
"""What is white in the video of the rigidity loss: 2^3 times its least value, 2 sqrt(2)."""
FLOW_SHARE = 1 / 32
"""Motion that is fully saturated in the flow video, share of the frame's longer side."""
_VIDEO = {"crf": 18, "preset": "ultrafast"}  # two dozen at once: ultrafast holds few frames back


@dataclass
class FullReport:
    """Context manager: `add` every frame in order; the folder is complete on exit.

    networks: for fields that are evaluated at every pixel, t -> (H, W, 3) float32 straight from
        them, since the original program measures that and not its atlas pictures; else None.
    """

    measurement: Measurement
    folder: Path
    frame_count: int
    networks: Callable[[int], np.ndarray] | None = None
    _writers: dict[str, VideoWriter] = field(default_factory=dict)
    _rows: list[dict[str, float]] = field(default_factory=list)
    _last: tuple[np.ndarray, FrameMapping] | None = None

    def __enter__(self) -> FullReport:
        self.folder.mkdir(parents=True)
        self._stack = ExitStack()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            self._follow(None)
            self._write_atlases()
            self._write_table()
        self._stack.__exit__(kind, value, tb)

    def add(self, t: int, rgb: np.ndarray, views: dict[str, ContenderView]) -> None:
        """One frame: (H, W, 3) uint8, and what every contender made of it."""
        contender = self.measurement.contenders[0]
        view = views[contender.name]
        self._follow(view.found)
        self._last = rgb, view.found
        row = {"frame": t, "psnr_db": psnr_db(view.reconstruction, rgb)}
        self._show("input", rgb)
        self._show("reconstruction", view.reconstruction)
        self._show("residual", residual_picture(rgb, view.reconstruction))
        if self.networks is not None:
            direct = to_bytes(self.networks(t))
            row["psnr_networks_db"] = psnr_db(direct, rgb)
            self._show("reconstruction_networks", direct)
        if view.edited is not None:
            self._show("edited", view.edited)
        self._rows.append(row)
        self._add_layers(t, rgb, view.found)

    def _add_layers(self, t: int, rgb: np.ndarray, found: FrameMapping) -> None:
        measurement = self.measurement
        contender, clip = measurement.contenders[0], measurement.clip
        shares = found.visible()
        given = dict(zip(clip.layer_names, visible_shares(clip.alpha(t)), strict=True))
        gains = None if contender.shading is None else contender.shading(t)
        for i, layer in enumerate(contender.mapping.layers):
            name, uv, share = layer.name, found.uv[i], shares[i]
            color = sample(contender.textures[i].rgb, uv)
            if gains is not None:
                color = color * cv2.resize(gains[i], (share.shape[1], share.shape[0]))
            self._show(f"layer_{name}", over_squares(np.dstack([to_bytes(color), to_bytes(share)])))
            places = uv_picture(uv, layer.canvas)
            self._show(f"uv_{name}", places)
            self._show(f"uv_{name}_masked", np.rint(places * share[..., None]).astype(np.uint8))
            self._show(f"alpha_{name}", _grey(share))
            if name in given:
                self._show(f"alpha_{name}_and_mask", agreement(share, given[name]))
            warp = measurement.scores[contender.name].warps[name]
            board = shade_by(rgb, warp.picture(uv), share) if warp.usable else rgb
            self._show(f"checkerboard_{name}", board)
            scale = measurement.known.texels_per_px[contender.name].get(name, 1.0)
            self._show(f"rigidity_loss_{name}", rigidity_picture(uv, share, scale))
            edit = measurement.edit
            if edit is not None and edit.layer == name:
                rgba = edit.paint(uv, t)
                visible = np.dstack([_straight(rgba), rgba[..., 3] * share])
                self._show(f"paint_{name}", over_squares(to_bytes(visible)))

    def _follow(self, found: FrameMapping | None) -> None:
        """Flow and its loss from the last frame to this one; nothing moves after the last frame."""
        if self._last is None:
            return
        rgb, before = self._last
        t, clip = len(self._rows) - 1, self.measurement.clip
        still = np.zeros((*rgb.shape[:2], 2), np.float32)
        motion = HeldOutFlow(still, still[..., 0] > 0)
        if found is not None:
            motion = neighbour_flow(clip, t)
        self._show("flow", flow_picture(motion))
        self._show("flow_loss", heat(flow_loss_px(before, found or before, motion) / FLOW_LOSS_PX))

    def _show(self, name: str, rgb: np.ndarray) -> None:
        """Append one picture to the video called `name`."""
        writer = self._writers.get(name)
        if writer is None:
            clip = self.measurement.clip
            times_s = clip.info.frame_times_s[: self.frame_count]
            path = self.folder / f"{name}.mp4"
            writer = VideoWriter(
                path, clip.size, fps=clip.info.fps, frame_times_s=times_s, **_VIDEO
            )
            self._writers[name] = self._stack.enter_context(writer)
        writer.write(rgb)

    def _write_atlases(self) -> None:
        contender, edit = self.measurement.contenders[0], self.measurement.edit
        for layer, texture in zip(contender.mapping.layers, contender.textures, strict=True):
            rgba = texture.rgba8()
            write_rgb(self.folder / f"atlas_{layer.name}.png", np.ascontiguousarray(rgba[..., :3]))
            write_rgb(self.folder / f"atlas_{layer.name}_seen.png", rgba)
            if edit is not None and edit.layer == layer.name:
                paint = edit.paint(pixel_grid(layer.canvas), 0)
                rgb = texture.rgb * (1 - paint[..., 3:]) + paint[..., :3]
                write_rgb(self.folder / f"atlas_{layer.name}_edited.png", to_bytes(rgb))

    def _write_table(self) -> None:
        """psnr.csv: a row a frame, then their mean."""
        names = [name for name in self._rows[0] if name != "frame"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["frame", *names])
        for row in self._rows:
            table.writerow([row["frame"], *(f"{row[name]:.3f}" for name in names)])
        means = [float(np.mean([row[name] for row in self._rows])) for name in names]
        table.writerow(["mean", *(f"{value:.3f}" for value in means)])
        write_bytes(self.folder / "psnr.csv", text.getvalue().encode())


def neighbour_flow(clip: Clip, t: int) -> HeldOutFlow:
    """Motion from frame t to t + 1 as the fit saw it; DIS flow for clips that come without any."""
    if not (clip.flow_path(t, t + 1).is_file() and clip.flow_path(t + 1, t).is_file()):
        return held_out_flow(clip.frame(t), clip.frame(t + 1))
    forward, backward = clip.flow(t, t + 1), clip.flow(t + 1, t)
    return HeldOutFlow(forward, cycle_consistent(forward, backward))


def flow_loss_px(first: FrameMapping, second: FrameMapping, motion: HeldOutFlow) -> np.ndarray:
    """(H, W) float32: by how far each pixel's atlas positions part along the flow, frame pixels.

    Summed over layers, each weighted by its share, as the flow loss is (Kasten et al. 2021, eq.
    10); 0 where the flow is not consistent.
    """
    y, x = np.nonzero(motion.trusted)
    at = np.stack([x, y], axis=-1) + motion.flow[y, x]
    total = np.zeros(motion.trusted.shape, np.float32)
    for uv_a, uv_b, share in zip(first.uv, second.uv, first.visible(), strict=True):
        parted = sample_bilinear(uv_b, at) - uv_a[y, x]
        length = texels_to_px(parted, local_jacobian(uv_a)[y, x])
        length = np.where(share[y, x] > 0, length, 0) * share[y, x]
        total[y, x] += np.nan_to_num(length, nan=np.inf).clip(0, 1e3)
    return total


def rigidity_picture(uv: np.ndarray, share: np.ndarray, texels_per_px: float) -> np.ndarray:
    """(H, W, 3) uint8: the rigidity loss of one layer, black where it is least or not seen.

    Args:
        uv: (H, W, 2) texels. share: (H, W). texels_per_px: how fine the canvas is.
    """
    scale = texels_per_px if texels_per_px > 0 else 1.0
    jacobian = local_jacobian(np.nan_to_num(uv).astype(np.float64)) / scale
    value = rigidity(torch.from_numpy(jacobian), 1e-6).numpy()
    return heat(np.log2(value / (2 * 2**0.5)) / RIGIDITY_OCTAVES * share)


def residual_picture(rgb: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: what the reconstruction lacks, grey where nothing."""
    difference = rgb.astype(np.float32) - reconstruction.astype(np.float32)
    return np.clip(127.5 + RESIDUAL_GAIN * difference, 0, 255).astype(np.uint8)


def uv_picture(uv: np.ndarray, canvas: Size) -> np.ndarray:
    """(H, W, 3) uint8: red = s, green = t of the ST rule (`coords.pixel_to_st`), within [0, 1]."""
    st = pixel_to_st(np.nan_to_num(uv, posinf=0, neginf=0), canvas)
    return to_bytes(np.dstack([st, np.full(st.shape[:2], 0.25, np.float32)]).clip(0, 1))


def agreement(matte: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: grey where both agree; red where only the matte is, cyan only the mask."""
    return to_bytes(np.dstack([matte, mask, mask]))


def flow_picture(motion: HeldOutFlow) -> np.ndarray:
    """(H, W, 3) uint8: direction as hue, length as saturation; black where it was filtered out."""
    full_px = FLOW_SHARE * max(motion.trusted.shape)
    x, y = motion.flow[..., 0], motion.flow[..., 1]
    hue = np.rad2deg(np.arctan2(y, x)) % 360
    length = np.clip(np.hypot(x, y) / full_px, 0, 1)
    hsv = np.dstack([hue, length, motion.trusted.astype(np.float32)]).astype(np.float32)
    return to_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def heat(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: 0 and below black, 1 and above nearly white."""
    levels = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _grey(share: np.ndarray) -> np.ndarray:
    return np.repeat(to_bytes(share)[..., None], 3, axis=2)


def _straight(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., :3] / np.maximum(rgba[..., 3:], 1e-6)
