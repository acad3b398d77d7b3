"""Pictures to look at: labelled contact sheets, side by side, before and after, overlays.

All pictures are (H, W, 3) uint8 RGB. Labels are ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

BACKGROUND = (24, 25, 28)
"""RGB of a sheet's ground."""
INK = (225, 226, 230)
"""RGB of labels."""
GAP_PX = 6
LABEL_HEIGHT_PX = 22
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_EMPTY = (40, 42, 46)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[str],
    row_names: Sequence[str],
    cell_width: int = 320,
) -> np.ndarray:
    """A table of pictures with a title over every column and a name beside every row.

    Pictures keep their shape and are scaled to `cell_width`; a row is as high as its highest.

    Args:
        rows: pictures of any sizes; None leaves a cell empty.
        columns, row_names: as many as there are columns and rows.
    """
    if len(rows) != len(row_names) or not rows:
        raise ValueError(f"wanted one name a row, got {len(row_names)} for {len(rows)} rows")
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"every row must have {len(columns)} pictures")
    names_width = max(text_width(name) for name in row_names) + 2 * GAP_PX
    width = names_width + len(columns) * (cell_width + GAP_PX)
    head = np.full((LABEL_HEIGHT_PX + GAP_PX, width, 3), BACKGROUND, np.uint8)
    for i, title in enumerate(columns):
        x = names_width + i * (cell_width + GAP_PX)
        write_text(head, shortened(title, cell_width), (x + 2, LABEL_HEIGHT_PX - 4))
    bands = [head]
    for row, name in zip(rows, row_names, strict=True):
        cells = [None if cell is None else fit_width(cell, cell_width) for cell in row]
        height = max([cell.shape[0] for cell in cells if cell is not None] or [LABEL_HEIGHT_PX])
        band = np.full((height + GAP_PX, width, 3), BACKGROUND, np.uint8)
        write_text(band, name, (GAP_PX, min(height, LABEL_HEIGHT_PX) - 4))
        for i, cell in enumerate(cells):
            x = names_width + i * (cell_width + GAP_PX)
            if cell is None:
                band[:height, x : x + cell_width] = _EMPTY
            else:
                band[: cell.shape[0], x : x + cell_width] = cell
        bands.append(band)
    return np.concatenate(bands)


def side_by_side(
    left: np.ndarray, right: np.ndarray, labels: tuple[str, str] | None = None
) -> np.ndarray:
    """(H, 2 W, 3): two pictures of one size, each with its label in a corner."""
    if left.shape != right.shape:
        raise ValueError(f"left and right must have one shape, got {left.shape}, {right.shape}")
    if labels is not None:
        left, right = corner_label(left, labels[0]), corner_label(right, labels[1])
    return np.concatenate([left, right], axis=1)


def before_after(before: np.ndarray, after: np.ndarray, split: float = 0.5) -> np.ndarray:
    """(H, W, 3): `before` left of a white line, `after` right of it.

    Args:
        split: where the line stands, share of the width.
    """
    if before.shape != after.shape:
        raise ValueError(f"before and after must have one shape, got {before.shape}, {after.shape}")
    x = round(split * before.shape[1])
    out = np.concatenate([before[:, :x], after[:, x:]], axis=1)
    thick = max(before.shape[1] // 400, 1)
    out[:, max(x - thick, 0) : x + thick] = 255
    return out


def corner_label(rgb: np.ndarray, text: str) -> np.ndarray:
    """The picture with `text` on a dark box in its top-left corner, sized for the picture."""
    out = rgb.copy()
    scale = max(rgb.shape[1] / 1000, 0.4)
    thickness = max(round(scale * 1.5), 1)
    (width, height), below = cv2.getTextSize(text, _FONT, scale, thickness)
    pad = max(height // 2, 3)
    box = out[: height + below + 2 * pad, : width + 2 * pad]
    box[:] = (box * 0.35).astype(np.uint8)
    cv2.putText(out, text, (pad, pad + height), _FONT, scale, INK, thickness, cv2.LINE_AA)
    return out


def over_squares(rgba: np.ndarray, square_px: int = 16) -> np.ndarray:
    """(H, W, 3): straight RGBA laid over grey squares, as paint programs show what is empty.

    Args:
        rgba: (H, W, 4) uint8.
    """
    y, x = np.indices(rgba.shape[:2]) // square_px
    squares = np.where((x + y) % 2 == 0, 52, 66).astype(np.float32)[..., None]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + squares * (1 - alpha)).astype(np.uint8)


def tint(
    rgb: np.ndarray, alpha: np.ndarray, color: tuple[int, int, int] = (255, 60, 40)
) -> np.ndarray:
    """The picture with `color` laid over it in proportion to a matte, at most half opaque.

    Args:
        alpha: (H, W) float, [0, 1].
    """
    weight = 0.5 * alpha[..., None].astype(np.float32)
    return np.rint(rgb * (1 - weight) + np.array(color, np.float32) * weight).astype(np.uint8)


def shade_by(rgb: np.ndarray, board: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The picture with a checkerboard painted on one layer: dark squares where `board` is 0.

    Args:
        board: (H, W) float, [0, 1]. share: (H, W) float, [0, 1], of the layer.
    """
    value = (0.25 + 0.75 * board)[..., None] * 255
    weight = 0.55 * share[..., None]
    return np.rint(rgb * (1 - weight) + value * weight).astype(np.uint8)


def fit_width(rgb: np.ndarray, width: int) -> np.ndarray:
    """The picture scaled to `width`, its shape kept."""
    if rgb.shape[1] == width:
        return rgb
    height = max(round(rgb.shape[0] * width / rgb.shape[1]), 1)
    shrinking = width < rgb.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(rgb, (width, height), interpolation=how)


def to_bytes(rgb: np.ndarray) -> np.ndarray:
    """Float pictures in [0, 1] to uint8, rounded and clipped."""
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)


def write_text(rgb: np.ndarray, text: str, origin: tuple[int, int]) -> None:
    """Write a label into the picture; `origin` is the left end of its base line, pixels."""
    cv2.putText(rgb, text, origin, _FONT, 0.45, INK, 1, cv2.LINE_AA)


def text_width(text: str) -> int:
    """Width of a label, pixels."""
    return cv2.getTextSize(text, _FONT, 0.45, 1)[0][0]


def shortened(text: str, width: int) -> str:
    """The text, cut and ended with dots where it is wider than `width` pixels."""
    if text_width(text) <= width:
        return text
    while text and text_width(text + "..") > width:
        text = text[:-1]
    return text + ".."
