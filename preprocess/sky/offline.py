"""Mattes of a whole clip that lean on the frames before and after; hand mattes carried between.

Frames pass through in blocks: a block is finished when the next one has been seen, so memory stays
bounded however long the clip is.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.sky.adapt import HandMattes
from preprocess.sky.around import RefinedFrame, averaged_around
from preprocess.sky.infer import NetworkMatter
from preprocess.sky.matte import SkyMatter
from preprocess.sky.temporal import FineSteadier, FlowSteadier, Motion, carry, small_flow

_BLOCK_FRAMES = 24
_HAND_BLOCK_FRAMES = 48
_SURVEY_FRAMES = 32
_WORKERS = min(4, os.cpu_count() or 1)
"""Frames brought to full size side by side; each takes some hundred MB."""


@dataclass
class _Frame:
    """A frame on its way: full picture, small picture, small matte; what came of it so far."""

    rgb: np.ndarray
    small: np.ndarray
    coarse: np.ndarray
    hand: np.ndarray | None = None
    """Hand matte at full size."""
    hand_small: np.ndarray | None = None
    forward: np.ndarray | None = None
    motion: Motion | None = None
    """From the frame before to this one."""


def clip_mattes(
    matter: SkyMatter,
    frames: Iterable[np.ndarray],
    *,
    causal: bool = False,
    hand: HandMattes | None = None,
    survey: Iterable[np.ndarray] = (),
) -> Iterator[np.ndarray]:
    """Sky mattes of one clip's frames, in order.

    Args:
        matter: the network's matte looks both ways; any other is causal by itself.
        frames: (H, W, 3) uint8; where the size changes a new clip begins.
        causal: never look ahead. Hand mattes then act on later frames only.
        hand: the user's own mattes for some frames.
        survey: frames from all over the clip; the colours of its sky and ground are learnt from
            them first, so that all frames are decided alike. See `survey_times`.
    Yields:
        (H, W) float32 in [0, 1]; exactly the hand matte on its frames.
    """
    matter.reset()
    if not isinstance(matter, NetworkMatter):
        yield from _one_by_one(matter, frames, hand)
        return
    if not causal:
        matter.survey(survey)
    passed = _passed(matter, frames, hand, causal=causal)
    if causal:
        yield from _steadied(matter, ((frame, _finished(matter, frame, m)) for frame, m in passed))
        return
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        finished = _finished_ahead(pool, matter, passed)
        if (options := matter.options.steady) is None:
            yield from (matte for _, matte in finished)
            return
        whole = (RefinedFrame(f.rgb, matte, settled=f.hand is not None) for f, matte in finished)
        yield from averaged_around(whole, options)
    finally:
        pool.shutdown(cancel_futures=True)


def _passed(
    matter: NetworkMatter,
    frames: Iterable[np.ndarray],
    hand: HandMattes | None,
    *,
    causal: bool,
) -> Iterator[tuple[_Frame, np.ndarray]]:
    """Each frame with its small matte (h, w), steadied by the frames before, or by both sides."""
    forward = _Pass(matter)
    waiting: list[_Frame] = []
    source = _prepared(matter, frames, hand)
    block_frames = 1 if causal else _HAND_BLOCK_FRAMES if hand else _BLOCK_FRAMES
    while block := list(itertools.islice(source, block_frames)):
        for frame in block:
            frame.forward = forward(frame)
            frame.motion = forward.motion
        if causal:
            yield from ((frame, frame.forward) for frame in block if frame.forward is not None)
            continue
        yield from _both_ways(matter, waiting, block)
        waiting = block
    yield from _both_ways(matter, waiting, [])


def _finished_ahead(
    pool: ThreadPoolExecutor, matter: NetworkMatter, passed: Iterator[tuple[_Frame, np.ndarray]]
) -> Iterator[tuple[_Frame, np.ndarray]]:
    """`_finished` mattes in order, a few frames at work at a time."""
    at_work: deque[tuple[_Frame, Future[np.ndarray]]] = deque()
    for frame, coarse in passed:
        at_work.append((frame, pool.submit(_finished, matter, frame, coarse)))
        if len(at_work) > 2 * _WORKERS:
            first, future = at_work.popleft()
            yield first, future.result()
    for first, future in at_work:
        yield first, future.result()


def _steadied(
    matter: NetworkMatter, finished: Iterable[tuple[_Frame, np.ndarray]]
) -> Iterator[np.ndarray]:
    """Mattes at full size, steadied by those before; a hand matte stays and is remembered."""
    options = matter.options.steady
    steadier = FineSteadier(options) if options else None
    for frame, matte in finished:
        if steadier is None:
            yield matte
        else:
            yield steadier(matte, None if frame.hand is not None else frame.motion)


def survey_times(frame_count: int) -> list[int]:
    """Frames to pass to `clip_mattes` as its survey: spread evenly, at most `_SURVEY_FRAMES`."""
    count = min(frame_count, _SURVEY_FRAMES)
    return [int(t) for t in np.unique(np.linspace(0, frame_count - 1, count).round())]


def _one_by_one(
    matter: SkyMatter, frames: Iterable[np.ndarray], hand: HandMattes | None
) -> Iterator[np.ndarray]:
    shape = None
    for t, rgb in enumerate(frames):
        if rgb.shape != shape:
            matter.reset()
            shape = rgb.shape
        matte = matter.matte(rgb)
        truth = hand.matte(t, rgb.shape[:2]) if hand else None
        yield matte if truth is None else truth


def _prepared(
    matter: NetworkMatter, frames: Iterable[np.ndarray], hand: HandMattes | None
) -> Iterator[_Frame]:
    for t, rgb in enumerate(frames):
        small, coarse = matter.coarse(rgb)
        frame = _Frame(rgb, small, coarse)
        if hand:
            frame.hand = hand.matte(t, rgb.shape[:2])
            frame.hand_small = hand.small(t, rgb.shape[:2], coarse.shape)
        yield frame


class _Pass:
    """The matte's way through the frames in one direction: corrected by hand, then steadied."""

    def __init__(self, matter: NetworkMatter) -> None:
        options = matter.options.steady
        self._steadier = FlowSteadier(options) if options else None
        self._corrections = Corrections()

    @property
    def motion(self) -> Motion | None:
        """How the frame before became the last one."""
        return self._steadier.motion if self._steadier else None

    def __call__(self, frame: _Frame) -> np.ndarray:
        matte = self._corrections(frame.small, frame.coarse, frame.hand_small)
        if self._steadier is None:
            return matte
        if frame.hand_small is not None:
            self._steadier.reset()
        return self._steadier(frame.small, matte)


class Corrections:
    """What the last hand matte changed, carried by optical flow to the frames that follow."""

    def __init__(self, half_life_frames: float = 60.0) -> None:
        self._fade = 0.5 ** (1 / half_life_frames)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(
        self, small: np.ndarray, coarse: np.ndarray, hand: np.ndarray | None
    ) -> np.ndarray:
        """The matte (h, w) of the next frame, corrected; `hand` where the user gave one."""
        if hand is not None:
            self._last = (small, hand - coarse)
            return hand
        if self._last is None or self._last[1].shape != coarse.shape:
            self._last = None
            return coarse
        last_small, change = self._last
        flow = small_flow(small, last_small)
        difference = np.abs(carry(last_small, flow).astype(np.float32) - small).max(axis=2)
        agrees = np.exp(-((cv2.blur(difference, (5, 5)) / 40) ** 2))
        change = carry(change, flow) * agrees * self._fade
        self._last = (small, change)
        return np.clip(coarse + change, 0, 1).astype(np.float32)


def _both_ways(
    matter: NetworkMatter, block: list[_Frame], ahead: list[_Frame]
) -> Iterator[tuple[_Frame, np.ndarray]]:
    """`block` with the mean of the forward pass and one that comes back from `ahead`."""
    backward = _Pass(matter)
    for frame in reversed(ahead):
        backward(frame)
    mattes = [backward(frame) for frame in reversed(block)]
    for frame, back in zip(block, reversed(mattes), strict=True):
        assert frame.forward is not None
        yield frame, (frame.forward + back) / 2


def _finished(matter: NetworkMatter, frame: _Frame, coarse: np.ndarray) -> np.ndarray:
    """(H, W) float32: the small matte (h, w) at full size, or the hand matte."""
    if frame.hand is not None:
        return frame.hand
    return matter.refine(frame.rgb, frame.small, coarse)
