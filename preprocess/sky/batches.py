"""Batches of augmented pictures, drawn in a thread of their own."""

from __future__ import annotations

import queue
import threading

import numpy as np

from atlas.coords import Size
from preprocess.sky.augment import Augmenter

BATCH_SIZES = (
    Size(192, 256),
    Size(192, 256),
    Size(160, 256),
    Size(224, 224),
    Size(192, 320),
    Size(160, 288),
    Size(224, 320),
    Size(256, 192),
    Size(224, 384),
    Size(256, 352),
    Size(288, 512),
)
"""Sizes of training pictures, drawn per batch: those at which the network is asked to work."""
EARLY_SIZES = (Size(128, 160), Size(128, 192), Size(96, 160), Size(128, 128), Size(160, 128))
"""Sizes of the first part of the training: context is learnt from small pictures, and sooner."""


class BatchStream:
    """Draws batches in a thread, a few ahead of the network."""

    def __init__(self, augmenter: Augmenter, batch: int, seed: int) -> None:
        self.sizes: tuple[Size, ...] = EARLY_SIZES
        """What is drawn from; the trainer sets it."""
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, np.ndarray]] = queue.Queue(3)
        rng = np.random.default_rng(seed)

        def fill() -> None:
            while True:
                size = self.sizes[rng.integers(len(self.sizes))]
                self._queue.put(augmenter.batch(batch, size))

        self._thread = threading.Thread(target=fill, daemon=True)
        self._thread.start()

    def next(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next batch; fails when the drawing thread has died."""
        while True:
            try:
                return self._queue.get(timeout=10)
            except queue.Empty:
                if not self._thread.is_alive():
                    raise RuntimeError("the thread that draws batches has stopped") from None
