"""The fast path: a LayerMapping from a sky matte and a camera track, made while frames stream by.

    mapping = FastPathMapping(Size(480, 854))
    for t, rgb in enumerate(frames):
        mapping.observe(t, rgb)
        m = mapping.frame(t)

Layers "foreground" over "sky". The sky's uv is the homography K R_t K^-1 of the camera's rotation;
the foreground's is the chain of its own dominant homographies, and the sky's where that cannot be
told. Memory does not grow with the clip but for 150 bytes of motion a frame: mattes are kept for
the last few frames only. To go over a clip again, observe it again from frame 0: the motion found
the first time is kept, and the mattes come out the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from atlas.coords import Size, apply_homography
from atlas.layered import homography_map
from atlas.mapping import FrameMapping, Layer, LayerMapping
from preprocess.camera import CameraOptions, CameraPose, CameraTracker
from preprocess.camera_track import CameraSource
from preprocess.sky.choose import open_matter
from preprocess.sky.matte import SkyMatter
from preprocess.tracks import StepMatches


@dataclass(frozen=True, kw_only=True)
class FastPathOptions:
    """How `FastPathMapping` works."""

    margin: tuple[float, float] = (0.75, 0.5)
    """Canvas beyond frame 0, left and right as a share of its width, above and below of its
    height; >= 0. Frame 0 sits in the middle of the canvas at its own scale."""
    matte: str = "auto"
    """Name of the sky matte, see `preprocess.sky.choose.open_matter`."""
    kept_frames: int = 3
    """Frames whose matte is remembered."""
    keep_all_mattes: bool = False
    """Remember every frame's matte, packed to 8 bit: for going over a clip several times."""
    cuts: frozenset[int] | None = None
    """First frames of shots after the first; None finds them."""
    camera: CameraOptions = field(default_factory=CameraOptions)


@dataclass(frozen=True)
class FrameMotion:
    """What stays known of an observed frame: homographies frame px -> canvas texels."""

    sky: np.ndarray
    foreground: np.ndarray
    sky_confidence: float
    foreground_confidence: float
    starts_shot: bool


NO_MATCHES = StepMatches(np.empty((0, 2)), np.empty((0, 2)))


class FastPathMapping(LayerMapping):
    """See the module."""

    def __init__(
        self,
        frame_size: Size,
        options: FastPathOptions | None = None,
        matter: SkyMatter | None = None,
        frame_count: int | None = None,
        camera: CameraSource | None = None,
    ):
        """`frame_count` None: as many as have been observed. `matter` None: as the options say.
        `camera` None finds the camera's motion."""
        self.options = options or FastPathOptions()
        self.frame_size = frame_size
        self._matter = matter or open_matter(self.options.matte)
        self._matter.reset()
        self._declared_count = frame_count
        x = round(self.options.margin[0] * frame_size.width)
        y = round(self.options.margin[1] * frame_size.height)
        self.canvas_offset = (x, y)
        """Texel of the canvas at which pixel (0, 0) of a shot's first frame lies."""
        canvas = Size(frame_size.height + 2 * y, frame_size.width + 2 * x)
        self.layers = (Layer("foreground", canvas), Layer("sky", canvas))
        self._place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
        self._camera = camera or CameraTracker(frame_size, self.options.camera)
        self._chain = HomographyChain(frame_size)
        self._motions: list[FrameMotion] = []
        self._mattes: OrderedDict[int, np.ndarray] = OrderedDict()
        self._packed: dict[int, np.ndarray] = {}
        self._next = 0
        self._thumbnail: np.ndarray | None = None

    @classmethod
    def over(
        cls,
        frames: Callable[[], Iterable[np.ndarray]],
        frame_size: Size,
        options: FastPathOptions | None = None,
    ) -> FastPathMapping:
        """Observe a whole clip, `frames()` giving (H, W, 3) uint8 RGB in order, and rewind.

        All motion is then known; mattes come back as the frames are observed once more.
        """
        mapping = cls(frame_size, options)
        for t, rgb in enumerate(frames()):
            mapping.observe(t, rgb)
        mapping.rewind()
        return mapping

    @property
    def frame_count(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._declared_count or len(self._motions)

    @property
    def focal_px(self) -> float:
        """Focal length of the clip as believed now, pixels of the frame."""
        return self._camera.focal_px

    def motion(self, t: int) -> FrameMotion:
        """The motion of an observed frame."""
        if not 0 <= t < len(self._motions):
            raise ValueError(f"frame {t} has not been observed; {len(self._motions)} have been")
        return self._motions[t]

    def rewind(self) -> None:
        """Make ready to observe the clip once more from frame 0."""
        self._next = 0
        self._mattes.clear()
        self._matter.reset()

    def observe(self, t: int, rgb: np.ndarray) -> None:
        if rgb.shape != (self.frame_size.height, self.frame_size.width, 3):
            raise ValueError(f"rgb must be (H, W, 3) of {self.frame_size}, got {rgb.shape}")
        if t in self._mattes and t < self._next:
            return
        if t == 0 and self._next > 0:
            self.rewind()
        if t != self._next:
            raise ValueError(f"frames are observed in order: wanted {self._next}, got {t}")
        if t in self._packed:
            self._keep(t, self._unpacked(t))
            return
        known = self._motions[t] if t < len(self._motions) else None
        starts_shot = known.starts_shot if known else self._starts_shot(t, rgb)
        if starts_shot:
            self._matter.reset()
        matte = self._matter.matte(rgb)
        if known is None:
            self._motions.append(self._track(rgb, matte, starts_shot))
        if self.options.keep_all_mattes:
            self._packed[t] = cv2.imencode(".png", np.rint(matte * 255).astype(np.uint8))[1]
            matte = self._unpacked(t)  # the first look must equal later ones
        self._keep(t, matte)

    def _keep(self, t: int, matte: np.ndarray) -> None:
        self._mattes[t] = matte
        while len(self._mattes) > self.options.kept_frames:
            self._mattes.popitem(last=False)
        self._next = t + 1

    def _unpacked(self, t: int) -> np.ndarray:
        packed = cv2.imdecode(self._packed[t], cv2.IMREAD_GRAYSCALE)
        return packed.astype(np.float32) / 255

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        motion = self.motion(t)
        if t not in self._mattes:
            raise ValueError(f"the matte of frame {t} is no longer kept: observe it again")
        size = size or self.frame_size
        uv = np.stack([self._uv(motion.foreground, size), self._uv(motion.sky, size)])
        alpha = np.ones((2, size.height, size.width), np.float32)
        matte = self._mattes[t]
        if size != self.frame_size:
            smaller = size.height * size.width < matte.size
            matte = cv2.resize(
                matte, size.wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            )
        np.subtract(1, matte, out=alpha[0])
        confidence = np.array([motion.foreground_confidence, motion.sky_confidence], np.float32)
        return FrameMapping(uv, alpha.clip(0, 1), confidence)

    def _uv(self, homography: np.ndarray, size: Size) -> np.ndarray:
        """(H, W, 2) float32 canvas positions of the pixels of a `size` picture.

        Pixels that look away from the canvas (w <= 0) come back far outside it, not as nan.
        """
        uv = homography_map(homography, self.frame_size, size)
        return np.nan_to_num(uv, copy=False, nan=-1e6)

    def _starts_shot(self, t: int, rgb: np.ndarray) -> bool:
        """Whether frame `t` begins a shot: as told, or a change of the whole picture."""
        thumbnail = cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        if t == 0 or before is None:
            return True
        if self.options.cuts is not None:
            return t in self.options.cuts
        return looks_like_cut(before, thumbnail)

    def _track(self, rgb: np.ndarray, matte: np.ndarray, starts_shot: bool) -> FrameMotion:
        if starts_shot:
            self._camera.cut()
        pose = self._camera.step_grey(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), matte)
        if starts_shot:
            foreground, confidence = self._chain.restart(), 1.0
        else:
            matches = getattr(self._camera, "scene_matches", NO_MATCHES)
            foreground, confidence = self._chain.step(matches, pose)
        return FrameMotion(
            self._place @ pose.homography,
            self._place @ foreground,
            pose.confidence,
            confidence,
            starts_shot,
        )


class HomographyChain:
    """The scene's dominant plane followed from frame to frame."""

    _LEAST_MATCHES = 12

    def __init__(self, size: Size):
        self.size = size
        self._total = np.eye(3)
        self._camera_before = np.eye(3)

    def restart(self) -> np.ndarray:
        """Begin a shot: the identity."""
        self._total = np.eye(3)
        self._camera_before = np.eye(3)
        return self._total

    def step(self, matches: StepMatches, pose: CameraPose) -> tuple[np.ndarray, float]:
        """Frame pixels to pixels of the shot's first frame, (3, 3), and the confidence.

        Where the scene's own motion cannot be told, or the chain would fold the picture over or
        shrink it out of use, the step is that of the camera.
        """
        camera_step = np.linalg.inv(self._camera_before) @ pose.homography
        self._camera_before = pose.homography
        step, confidence = self._measure(matches)
        if step is None or not self._usable(self._total @ step):
            step, confidence = camera_step, 0.25 * pose.confidence
        if not self._usable(self._total @ step):
            step, confidence = np.eye(3), 0.0
        self._total = self._total @ step
        self._total = self._total / self._total[2, 2]
        return self._total, confidence

    def _measure(self, matches: StepMatches) -> tuple[np.ndarray | None, float]:
        """Homography from this frame to the last one, and the share of matches that follow it."""
        if len(matches.before_px) < self._LEAST_MATCHES:
            return None, 0.0
        tolerance_px = max(1.0, max(self.size.wh) / 600)
        step, inlier = cv2.findHomography(
            matches.after_px, matches.before_px, cv2.USAC_MAGSAC, tolerance_px
        )
        if step is None or inlier is None or inlier.sum() < self._LEAST_MATCHES:
            return None, 0.0
        return step, float(inlier.mean())

    def _usable(self, total: np.ndarray) -> bool:
        """Whether the frame's corners stay in order and within 1/8 to 8 times the frame's area."""
        if not np.isfinite(total).all():
            return False
        w, h = self.size.width - 1, self.size.height - 1
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float64)
        moved = apply_homography(total, corners)
        if not np.isfinite(moved).all() or np.abs(moved).max() > 20 * max(w, h, 1):
            return False
        if not cv2.isContourConvex(moved.astype(np.float32)):
            return False
        return 1 / 8 < cv2.contourArea(moved.astype(np.float32), True) / max(w * h, 1) < 8


def looks_like_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two (32, 32, 3) float32 thumbnails are of different shots.

    A cut changes the picture's layout, not just its brightness: what is left after matching mean
    and contrast must differ too, so that a flash or a change of exposure is no cut.
    """
    if np.abs(before - after).mean() < 18:
        return False
    a = (before - before.mean()) / (before.std() + 4)
    b = (after - after.mean()) / (after.std() + 4)
    return float((a * b).mean()) < 0.6
