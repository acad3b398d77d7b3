"""The fast path as a stream: decode, matte, track and composite overlap; memory stays constant.

Frames stay the planes that the video stores (`atlas.planes`): what shows no sky is written as it
was decoded. One sky and a look are done here; any other edit of a video goes through
`edits.apply.Renderer`, frame by frame, with the same camera track.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from atlas.coords import Size
from atlas.layered import homography_map
from atlas.mapping import FrameMapping, Layer
from atlas.pipeline import Pipeline, StageTimes
from atlas.planes import PlaneFormat, Planes
from edits.kinds import SkyEdit
from edits.look_pass import NO_AIR, LookFrame, LookPass, travel_of
from edits.paint import Paint
from edits.picture import read_checked
from edits.recipe import Recipe, check_files
from edits.sky import open_sky
from edits.stream_composite import old_sky, replaced_sky, sky_rows
from edits.stream_look import Laid, PlaneLook
from edits.stream_sky import SkyPlanes
from edits.view import canvas_view

MARGIN = (0.75, 0.5)
"""Canvas of the sky beyond frame 0, shares of its width and height: `FastPathOptions.margin`."""


class Seen(Protocol):
    """One frame made small: what `Observer.look` finds."""

    @property
    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8."""
        ...

    @property
    def sky(self) -> np.ndarray:
        """(h, w) float32, 1 = sky."""
        ...

    @property
    def starts_shot(self) -> bool: ...


class Observer(Protocol):
    """Who finds the sky and the camera: `preprocess.observer.SkyObserver`."""

    form: PlaneFormat

    @property
    def focal_px(self) -> float: ...

    def look(self, planes: Planes) -> Any: ...

    def locate(self, planes: Planes, seen: Any) -> np.ndarray: ...

    def matte(self, planes: Planes, seen: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class StreamFrame:
    """One frame on its way through the stages; what a stage finds is added to it.

    homography: (3, 3), frame pixels to pixels of the shot's first frame. alpha: (H, W) uint8,
    255 = sky. done: the edited planes.
    """

    index: int
    time_s: float
    planes: Planes
    seen: Seen | None = None
    homography: np.ndarray | None = None
    alpha: np.ndarray | None = None
    done: Planes | None = None


class SkyStream:
    """A recipe of one sky and a look, opened for a stream of planes."""

    def __init__(
        self,
        recipe: Recipe,
        observer: Observer,
        sky_matte: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        """`sky_matte`: as `RenderContext.sky_matte`, for skies cut out of photos."""
        check_files(recipe)
        self.form, self._observer = observer.form, observer
        self.times = StageTimes()
        size = self.form.size
        x, y = round(MARGIN[0] * size.width), round(MARGIN[1] * size.height)
        canvas = Size(size.height + 2 * y, size.width + 2 * x)
        self._place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
        edit = streamed_edit(recipe)
        self._source = None if edit is None else open_sky(edit, Layer("sky", canvas), sky_matte)
        look = recipe.look
        self._look = LookPass(look) if look is not None and look.active else None
        self._plane_look = PlaneLook(self.form)
        self._sky: SkyPlanes | None = None
        self._paint: Paint | None = None

    def run(
        self, frames: Iterable[tuple[int, float, Planes]], depth: int = 8
    ) -> Generator[StreamFrame, None, None]:
        """Edited frames in order, of (number, seconds, planes); `depth`: most between stages."""
        stages = [("matte", self._matte), ("track", self._track), ("composite", self._composite)]
        given = (StreamFrame(*frame) for frame in frames)
        yield from Pipeline(given, stages, depth=depth, times=self.times)

    def _matte(self, frame: StreamFrame) -> StreamFrame:
        return replace(frame, seen=self._observer.look(frame.planes))

    def _track(self, frame: StreamFrame) -> StreamFrame:
        return replace(frame, homography=self._observer.locate(frame.planes, frame.seen))

    def _composite(self, frame: StreamFrame) -> StreamFrame:
        assert frame.seen is not None
        assert frame.homography is not None
        alpha = self._observer.matte(frame.planes, frame.seen)
        onto = self._place @ frame.homography
        if self._sky is None and self._source is not None:
            self._open(alpha, onto)
        done, rows, laid = frame.planes, sky_rows(alpha), None
        if self._sky is not None and rows is not None:
            new = self._sky.sample(onto, rows, frame.time_s)
            laid = Laid(rows, new, old_sky(self.form, frame.seen.rgb, frame.seen.sky))
        if self._look is not None and self._look.look.mode != "skyar":
            done = self._lit(frame, alpha, onto, laid)
        elif laid is not None:
            done = replaced_sky(self.form, done, alpha, (laid.rows, laid.planes), laid.old)
        if self._look is not None and self._look.look.mode == "skyar":
            done = self._as_skyar(frame, alpha, onto, done)
        return replace(frame, alpha=alpha, done=done)

    def _open(self, alpha: np.ndarray, onto: np.ndarray) -> None:
        """Put the sky at its place, by where the first frame looks."""
        assert self._source is not None
        size = self.form.size
        uv = np.stack([homography_map(onto, size, size)] * 2)
        share = alpha.astype(np.float32) / 255
        first = FrameMapping(uv, np.stack([1 - share, np.ones_like(share)]), np.ones(2, np.float32))
        focal = self._observer.focal_px
        self._paint = self._source.place(canvas_view(first, 1, None, focal))
        self._sky = SkyPlanes(self._paint, self.form)

    def _lit(
        self, frame: StreamFrame, alpha: np.ndarray, onto: np.ndarray, laid: Laid | None
    ) -> Planes:
        """The frame with its new sky, if any, and the look."""
        assert self._look is not None
        assert frame.seen is not None
        form, small = self.form, frame.seen.rgb
        view = Size(max(2, form.size.height // 8), form.size.width // 8)
        uv, sky = homography_map(onto, form.size, view), self._sky_colors(frame.time_s)
        given = LookFrame(small, small, frame.seen.sky, uv, sky, frame.time_s)
        air = self._look.measure(given) if self._look.look.needs_sky else NO_AIR
        done = self._plane_look.apply(frame.planes, alpha, laid, air)
        if self._look.weather is None:
            return done
        travel_px = travel_of(uv, form.size.width)
        return self._look.weather.apply_planes(done, form, frame.time_s, travel_px)

    def _sky_colors(self, time_s: float) -> Callable[[np.ndarray], np.ndarray] | None:
        paint = self._paint
        return None if paint is None else (lambda uv: paint.sample(uv, time_s))

    def _as_skyar(
        self, frame: StreamFrame, alpha: np.ndarray, onto: np.ndarray, done: Planes
    ) -> Planes:
        """SkyAR's look, which is made from the whole original frame, in RGB."""
        assert self._look is not None
        form = self.form
        dtype = np.uint8 if form.bits == 8 else np.uint16
        given = LookFrame(
            before=form.rgb_of(frame.planes, dtype),
            after=form.rgb_of(done, dtype),
            share=alpha.astype(np.float32) * np.float32(1 / 255),
            uv=homography_map(onto, form.size, form.size),
            sky=self._sky_colors(frame.time_s),
            time_s=frame.time_s,
        )
        return form.planes_of(self._look.apply(given))


def streamed_edit(recipe: Recipe) -> SkyEdit | None:
    """The sky of a recipe that a stream can do; None for a look alone."""
    edits = [edit for edit in recipe.edits if isinstance(edit, SkyEdit)]
    return edits[0] if edits else None


def can_stream(recipe: Recipe) -> bool:
    """Whether a recipe is one opaque sky, a look, or both, on the fast path's sky layer."""
    edits = recipe.edits
    if len(edits) > 1 or recipe.keep_grain:
        return False
    if recipe.look is not None and recipe.look.layer != "sky":
        return False
    if not edits:
        return recipe.look is not None and recipe.look.active
    edit = edits[0]
    if not isinstance(edit, SkyEdit) or edit.layer != "sky":
        return False
    picture = edit.source.lower().endswith((".png", ".tif", ".tiff", ".webp"))
    return edit.fit != "atlas" and not (picture and _has_alpha(edit.source))


def _has_alpha(source: str) -> bool:
    path = Path(source)
    if not path.is_file():
        return False  # said later, with the rest of what a recipe names
    pixels = cv2.imdecode(np.frombuffer(read_checked(path), np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels is not None and pixels.ndim == 3 and pixels.shape[2] == 4
