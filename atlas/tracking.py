"""What a fit reports while it runs, behind one interface: TensorBoard, or nowhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np

from atlas.errors import InputError


class Tracker(ABC):
    """Takes numbers, pictures and text under names such as `loss/flow`; a context manager."""

    @abstractmethod
    def scalar(self, name: str, value: float, step: int) -> None:
        """One number at iteration `step`."""

    @abstractmethod
    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """One picture: (H, W) or (H, W, 3) or (H, W, 4), uint8 or float in [0, 1], RGB(A)."""

    @abstractmethod
    def text(self, name: str, text: str, step: int = 0) -> None:
        """A piece of text, shown as it is."""

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Several numbers, each called `group/name`."""
        for name, value in values.items():
            self.scalar(f"{group}/{name}", value, step)

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class NullTracker(Tracker):
    """Keeps nothing."""

    def scalar(self, name: str, value: float, step: int) -> None:
        pass

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        pass

    def text(self, name: str, text: str, step: int = 0) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardTracker(Tracker):
    """Event files in a run folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as err:
            raise InputError("tracking needs TensorBoard: pip install tensorboard") from err
        self._writer = SummaryWriter(str(folder), flush_secs=10)

    def scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        self._writer.add_image(name, _to_uint8(picture), step, dataformats="HWC")

    def text(self, name: str, text: str, step: int = 0) -> None:
        indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown's verbatim
        self._writer.add_text(name, indented, step)

    def close(self) -> None:
        self._writer.close()


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 of whatever `Tracker.image` takes."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4):
        raise ValueError(f"picture must be (H, W[, 1, 3 or 4]), got {picture.shape}")
    if picture.dtype == np.uint8:
        return picture
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
