"""Camera tracking on rendered pans whose rotation is known exactly."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from preprocess.camera import CameraOptions, CameraTracker
from preprocess.rotation import (
    angle_between,
    default_focal_px,
    fit_rotation,
    fit_rotation_robust,
    from_vector,
    intrinsics,
    rays,
    rescale,
    rotation_homography,
)

SIZE = Size(height=200, width=356)
PAD = 260


def clouds(size: Size, seed: int, finest_px: float = 3.0) -> np.ndarray:
    """(H, W) float32 noise with detail at every scale from `finest_px` up, mean 0, deviation 1."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size.height, size.width), np.float32)
    for sigma in finest_px * np.array([1, 2, 4, 8]):
        noise = rng.normal(size=(size.height // 2, size.width // 2)).astype(np.float32)
        noise = cv2.resize(cv2.GaussianBlur(noise, (0, 0), sigma / 2), size.wh)
        total += noise / noise.std()
    return total / total.std()


class Pan:
    """A far scene under a sky, seen by a camera that only turns.

    Ground and sky are two pictures on the canvas (frame 0 with a border of PAD pixels); the sky
    may drift over it by itself. `render(R)` gives the frame and its exact sky matte.
    """

    def __init__(self, sky_texture: float, ground_texture: float = 30.0, focal_px=None, seed=0):
        self.camera = intrinsics(SIZE, focal_px or default_focal_px(SIZE))
        wide = Size(SIZE.height + 2 * PAD, SIZE.width + 2 * PAD)
        self.sky = 170 + sky_texture * clouds(wide, seed)
        self.ground = 80 + ground_texture * clouds(wide, seed + 1, finest_px=1.5)
        x = np.arange(wide.width)
        skyline = PAD + 0.55 * SIZE.height + 9 * np.sin(x / 23) + 5 * np.sin(x / 7.3)
        self.above = (np.arange(wide.height)[:, None] < skyline).astype(np.float32)
        self.rng = np.random.default_rng(seed + 2)

    def render(self, rotation: np.ndarray, drift_px: float = 0.0):
        place = np.array([[1, 0, PAD], [0, 1, PAD], [0, 0, 1]], float)
        to_canvas = place @ rotation_homography(rotation, self.camera)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

        def warp(picture: np.ndarray, shift_px: float = 0.0) -> np.ndarray:
            moved = np.array([[1, 0, -shift_px], [0, 1, 0], [0, 0, 1]]) @ to_canvas
            return cv2.warpPerspective(picture, moved, SIZE.wh, flags=flags)

        matte = warp(self.above)
        grey = matte * warp(self.sky, drift_px) + (1 - matte) * warp(self.ground)
        grey = grey + self.rng.normal(0, 1.0, grey.shape)  # sensor noise
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), matte


def turn(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    return from_vector(np.radians([pitch_deg, yaw_deg, roll_deg]))


def track(pan: Pan, rotations, drift_px_per_frame=0.0, options=None, use_matte=True):
    tracker = CameraTracker(SIZE, options)
    poses = []
    for t, rotation in enumerate(rotations):
        rgb, matte = pan.render(rotation, drift_px_per_frame * t)
        poses.append(tracker.step(rgb, matte if use_matte else None))
    return poses


def errors_deg(poses, rotations) -> np.ndarray:
    return np.degrees([angle_between(p.rotation, r) for p, r in zip(poses, rotations, strict=True)])


def shaky_pan(count: int = 24) -> list[np.ndarray]:
    t = np.arange(count)
    shake = np.random.default_rng(3).normal(0, 0.1, (count, 2)).cumsum(axis=0)
    shake -= shake[0]
    return [
        turn(-0.5 * i + shake[i, 0], 0.06 * i + shake[i, 1], 2 * np.sin(i / 9) * (i > 0)) for i in t
    ]


# Limits: the median rotation error that a sky may show on screen without being noticed, 0.1
# degree, is 0.5 px of these small frames.
@pytest.mark.parametrize(
    ("name", "sky_texture", "ground_texture", "drift_px"),
    [
        ("textured sky", 20.0, 30.0, 0.0),
        ("textureless sky", 0.0, 30.0, 0.0),
        ("textured sky over flat ground", 20.0, 0.0, 0.0),
        ("clouds drifting by themselves", 20.0, 30.0, 0.8),
    ],
)
def test_rotation_is_found(name, sky_texture, ground_texture, drift_px):
    rotations = shaky_pan()
    poses = track(Pan(sky_texture, ground_texture), rotations, drift_px)
    errors = errors_deg(poses, rotations)
    assert np.median(errors) < 0.1, name
    assert errors.max() < 0.3, name
    assert np.mean([p.confidence for p in poses]) > 0.5, name


def test_pan_out_and_back_returns_to_the_start():
    out = [turn(-0.9 * i, 0.15 * i) for i in range(21)]
    rotations = out + out[::-1]
    poses = track(Pan(sky_texture=0.0), rotations)
    assert errors_deg(poses, rotations)[-1] < 0.1


def test_focal_length_is_refined_from_a_pan():
    true_px = 1.5 * default_focal_px(SIZE)
    rotations = [turn(-0.5 * i, 0.05 * i) for i in range(36)]
    pan = Pan(sky_texture=20.0, focal_px=true_px)
    tracker = CameraTracker(SIZE)
    for rotation in rotations:
        tracker.step(*pan.render(rotation))
    assert tracker.focal_px == pytest.approx(true_px, rel=0.03)


def test_a_wrong_focal_length_still_keeps_the_sky_on_the_scene():
    """With one focal length too long by half the sky's middle must follow the scene's pixels."""
    true_px = default_focal_px(SIZE) / 1.5
    pan = Pan(sky_texture=20.0, focal_px=true_px)
    rotations = [turn(-0.3 * i) for i in range(14)]
    options = CameraOptions(focal_px=1.5 * true_px)
    poses = track(pan, rotations, options=options)
    middle = np.array([(SIZE.width - 1) / 2, (SIZE.height - 1) / 2, 1])
    true_step_px = true_px * np.radians(0.3)
    x = [(p.homography @ middle / (p.homography @ middle)[2])[0] for p in poses[:12]]
    assert np.diff(x) == pytest.approx(-true_step_px, abs=0.25 * true_step_px)


def test_nothing_to_follow_is_held_and_eased():
    """The picture goes blank in the middle of a pan: the sky must coast on, slow down and stop."""
    pan = Pan(sky_texture=20.0)
    tracker = CameraTracker(SIZE)
    x, confidence = [], []
    for i in range(50):
        rgb, matte = pan.render(turn(-0.4 * i))
        if i >= 15:
            rgb = np.full_like(rgb, 128)
        pose = tracker.step(rgb, matte)
        x.append(pose.homography[0, 2])
        confidence.append(pose.confidence)
    steps = np.diff(x)
    assert max(confidence[16:]) < 0.05
    assert min(confidence[5:15]) > 0.5
    assert np.isfinite(x).all()
    assert np.abs(steps[15:25]).min() > 0.2 * np.abs(steps[10])  # coasts
    assert np.abs(steps[-1]) < 0.05 * np.abs(steps[10])  # stops
    assert np.abs(np.diff(steps[13:])).max() < 0.25 * np.abs(steps[10])  # never brakes at once


def test_cut_starts_anew_and_runs_are_alike():
    pan = Pan(sky_texture=20.0)
    frames = [pan.render(turn(-0.5 * i)) for i in range(6)]
    tracker = CameraTracker(SIZE)
    first = [tracker.step(*frame).homography for frame in frames]
    assert not np.allclose(first[-1], np.eye(3), atol=1)
    tracker.cut()
    again = [tracker.step(*frame).homography for frame in frames]
    np.testing.assert_array_equal(first, again)


def test_without_a_matte_the_whole_picture_is_followed():
    rotations = shaky_pan(20)
    poses = track(Pan(sky_texture=20.0), rotations, use_matte=False)
    assert np.median(errors_deg(poses, rotations)) < 0.1


@pytest.mark.parametrize("size", [Size(1, 1), Size(5, 300), Size(300, 7), Size(33, 34)])
def test_tiny_and_lopsided_frames_give_valid_poses(size):
    tracker = CameraTracker(size)
    rng = np.random.default_rng(0)
    for _ in range(3):
        rgb = rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
        pose = tracker.step(rgb, np.ones((size.height, size.width), np.float32))
        assert np.isfinite(pose.homography).all()
        assert np.linalg.det(pose.rotation) == pytest.approx(1)


def test_frame_of_another_size_is_refused():
    with pytest.raises(ValueError, match="rgb must be 356x200, got 355x200"):
        CameraTracker(SIZE).step(np.zeros((200, 355, 3), np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_kabsch_recovers_a_rotation(seed):
    rng = np.random.default_rng(seed)
    truth = from_vector(rng.normal(0, 0.5, 3))
    a = rng.normal(size=(7, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    np.testing.assert_allclose(fit_rotation(a, a @ truth.T, rng.random(7)), truth, atol=1e-9)


def test_robust_fit_ignores_two_fifths_of_wrong_matches():
    rng = np.random.default_rng(1)
    camera = intrinsics(SIZE, 300.0)
    truth = turn(2.0, -1.0, 3.0)
    source = rng.uniform((0, 0), SIZE.wh, (100, 2))
    moved = rays(source, camera) @ truth.T
    target = moved[:, :2] / moved[:, 2:] * 300 + camera[:2, 2]
    target[:40] += rng.uniform(3, 30, (40, 2))
    fit = fit_rotation_robust(source, target, camera, np.ones(100))
    assert fit is not None
    assert np.degrees(angle_between(fit.rotation, truth)) < 1e-3
    assert fit.inlier.tolist() == [False] * 40 + [True] * 60
    assert fit.share == pytest.approx(0.6)


def test_pinned_direction_of_rotation_homography():
    """Turning the camera right by 1 degree shows at its middle what lay f tan(1 deg) right."""
    camera = intrinsics(SIZE, 300.0)
    middle = np.array([(SIZE.width - 1) / 2, (SIZE.height - 1) / 2, 1])
    moved = rotation_homography(turn(1.0), camera) @ middle
    expected = middle[:2] + np.array([300 * np.tan(np.radians(1)), 0])
    np.testing.assert_allclose(moved[:2] / moved[2], expected)


def test_rescale_keeps_roll():
    np.testing.assert_allclose(rescale(turn(2, 4, 6), 0.5), turn(1, 2, 6), atol=1e-12)
