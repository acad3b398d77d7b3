"""Text as a picture: as large as it fits, centred."""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size
from edits.kinds import parse_color
from edits.picture import Picture

LONGER_SIDE = 2048
_TRIAL_PX = 100
_FILL = 0.94
"""Share of the picture that the text may take up."""
_LINE = 1.15
"""From one base line to the next, in font sizes."""
_WEIGHT = 600


def render_text(text: str, aspect: float, color: str) -> Picture:
    """Text set as large as a picture of this aspect (width over height) allows.

    OpenCV 5 draws it with its own sans serif and knows all of Unicode that this has; OpenCV 4
    with its stroke font, which is ASCII.
    """
    long = LONGER_SIDE
    size = Size(long, max(round(long * aspect), 8)) if aspect < 1 else (
        Size(max(round(long / aspect), 8), long)
    )  # fmt: skip
    lines = text.splitlines() or [text]
    pen = _Pen()
    widest = max(max(pen.width(line) for line in lines), 1)
    tall = _TRIAL_PX * (_LINE * (len(lines) - 1) + 1)
    scale = _FILL * min(size.width / widest, size.height / tall)
    alpha = np.zeros((size.height, size.width, 3), np.uint8)
    middle = (size.height - tall * scale) / 2
    for i, line in enumerate(lines):
        base = middle + (_LINE * i + 0.82) * _TRIAL_PX * scale  # 0.82: from the top to the base
        left = (size.width - pen.width(line) * scale) / 2
        pen.draw(alpha, line, (round(left), round(base)), scale)
    rgb = np.empty((size.height, size.width, 3), np.float32)
    rgb[:] = np.array(parse_color(color), np.float32) / 255
    return Picture(rgb, alpha[..., 0].astype(np.float32) / 255)


class _Pen:
    """OpenCV's fonts behind one interface; widths at `_TRIAL_PX`."""

    def __init__(self) -> None:
        self._face = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None

    def width(self, line: str) -> float:
        if self._face is None:
            return cv2.getTextSize(line, cv2.FONT_HERSHEY_DUPLEX, _TRIAL_PX / 30, 8)[0][0]
        box = cv2.getTextSize((0, 0), line, (0, 0), self._face, _TRIAL_PX, _WEIGHT)
        return box[2]

    def draw(self, target: np.ndarray, line: str, origin: tuple[int, int], scale: float) -> None:
        if self._face is None:
            size, thick = _TRIAL_PX / 30 * scale, max(round(8 * scale), 1)
            white = (255, 255, 255)
            cv2.putText(
                target, line, origin, cv2.FONT_HERSHEY_DUPLEX, size, white, thick, cv2.LINE_AA
            )
            return
        size = round(_TRIAL_PX * scale)
        cv2.putText(target, line, origin, (255, 255, 255), self._face, size, _WEIGHT)
