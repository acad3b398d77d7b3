"""The synthetic scenes are the project's truth, so what they claim is checked by other routes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from atlas.clip import Clip, read_rgb
from atlas.coords import Size, apply_homography, pixel_grid
from atlas.mapping import BakedMapping, FrameMapping
from tests.scene_motion import CAMERA_KINDS, rotation
from tests.scene_paint import Branch, coverage
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import Scene, write_clip, write_truth

HARD = SceneOptions(
    size=Size(84, 148),
    frame_count=9,
    seed=3,
    camera="hand",
    object="deforming",
    occluder=True,
    drift_px=0.8,
    light=0.4,
    parallax=True,
    twigs=True,
)


@pytest.fixture(scope="module")
def hard() -> Scene:
    return make_scene(HARD)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) / 255**2))


def rerender(scene: Scene, m: FrameMapping, t: int) -> np.ndarray:
    """(H, W, 3) float, 0..255: what any user of a mapping does: sample textures, composite."""
    out = np.zeros((*m.alpha.shape[1:], 3))
    for layer, uv, share in zip(scene.layers, m.uv, m.visible(), strict=True):
        rgb = np.ascontiguousarray(layer.texture[..., :3])
        sampled = cv2.remap(
            rgb, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        out += share[..., None] * sampled * layer.gain[t]
    return out * 255


def checkerboard(size: Size, period: int = 12) -> np.ndarray:
    y, x = np.mgrid[: size.height, : size.width]
    board = ((x // period + y // period) % 2).astype(np.float32)
    return np.dstack([board, 1 - board, 0 * board, 0.8 + 0 * board])


@pytest.mark.parametrize("t", [0, 4, 8])
def test_textures_seen_through_the_mapping_are_the_frame(hard, t):
    # One sample at the pixel's centre stands for the mean over the pixel: 43 to 48 dB here, the
    # rest being twigs and noise at the texels' own scale. 40 dB is an error of 2.5 levels. uv
    # wrong by half a texel comes to 31 to 35 dB, so the bound can tell.
    m = hard.mapping().frame(t)
    assert psnr_db(rerender(hard, m, t), hard.frames(t)) >= 40
    shifted = FrameMapping(m.uv + np.float32(0.5), m.alpha, m.confidence)
    assert psnr_db(rerender(hard, shifted, t), hard.frames(t)) < 36
    # On a grid 4 times finer, averaged, it is denser than the scene's own sampling.
    size = hard.size
    fine = hard.mapping().frame(t, Size(size.height * 4, size.width * 4))
    again = cv2.resize(rerender(hard, fine, t), size.wh, interpolation=cv2.INTER_AREA)
    assert psnr_db(again, hard.frames(t)) >= 44


@pytest.mark.parametrize("step", [(2, 3), (5, 4)])
def test_flow_keeps_the_texel(hard, step):
    t, target = step
    flow, visible = hard.flow(t, target)
    assert visible.mean() > 0.8
    goal = pixel_grid(hard.size).astype(np.float64) + flow
    top = hard.mapping().frame(t).visible().argmax(0)
    seen = set()
    for i, layer in enumerate(hard.layers):
        here = visible & (top == i)
        if not here.any():
            continue
        seen.add(layer.name)
        before = hard.mapping().frame(t).uv[i][here]
        after = layer.motion.to_canvas(target, goal[here])
        assert abs(before - after).max() < 1e-4  # float32 positions of about 200 texels
    assert {"near", "object", "foreground", "clouds"} <= seen


def test_flow_moves_the_pixels():
    # The pictures themselves, not the mapping: frame t + 1 read at x + flow looks like frame t.
    scene = make_scene(replace(HARD, light=0.0, twigs=False, parallax=False, drift_px=0.0))
    flow, visible = scene.flow(3, 4)
    goal = pixel_grid(scene.size) + flow
    moved = cv2.remap(scene.frames(4), goal[..., 0], goal[..., 1], cv2.INTER_LINEAR)
    error = abs(moved.astype(float) - scene.frames(3)).mean(-1)
    still = abs(scene.frames(4).astype(float) - scene.frames(3)).mean(-1)
    core = cv2.erode(visible.astype(np.uint8), np.ones((5, 5))) > 0  # bilinear reach of edges
    assert error[core].mean() < 2.5  # what bilinear interpolation blurs
    assert still[core].mean() > 3 * error[core].mean()


def test_hidden_pixels_are_marked(hard):
    # The object covers new ground from frame 3 to 4, and comes out from behind the pole.
    scene = make_scene(replace(HARD, parallax=False, twigs=False))
    _, visible = scene.flow(3, 4)
    i = scene.layer_index("foreground")
    goal = pixel_grid(scene.size) + scene.flow(3, 4)[0]
    top = scene.mapping().frame(3).visible().argmax(0)
    hidden = (top == i) & (scene.alpha_at(scene.layer_index("object"), 4, goal) > 0.9)
    assert hidden.sum() > 5
    assert not visible[hidden].any()


@pytest.mark.parametrize("kind", CAMERA_KINDS)
def test_sky_moves_by_the_stated_rotation(kind):
    size, count = Size(54, 90), 6
    scene = make_scene(SceneOptions(size=size, frame_count=count, camera=kind, pan_deg=9))
    sky, k = scene.layers[-1].motion, scene.camera.k
    for t in range(count):
        r, focal_px = scene.sky_rotation(t)
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(r) == pytest.approx(1)
        assert focal_px == k[0, 0]
        between = k @ r @ scene.sky_rotation(0)[0].T @ np.linalg.inv(k)
        xy = pixel_grid(size)[::9, ::9].astype(np.float64)
        there = sky.to_canvas(t, apply_homography(between, xy))
        np.testing.assert_allclose(there, sky.to_canvas(0, xy), atol=1e-8)


def test_rotation_signs_are_pinned():
    ahead = np.array([0.0, 0.0, 1.0])  # y points down
    turned = rotation(10, 0, 0) @ ahead
    np.testing.assert_allclose(turned, [-np.sin(np.radians(10)), 0, np.cos(np.radians(10))])
    assert (rotation(0, 10, 0) @ ahead)[1] > 0  # looking up, the horizon sinks
    assert (rotation(0, 0, 10) @ [1.0, 0, 0])[1] < 0  # rolled clockwise, the right side rises


@pytest.mark.parametrize("kind", ["pan_back", "hand"])
def test_pan_moves_far_and_near_differently(kind):
    options = SceneOptions(frame_count=7, camera=kind, pan_deg=8, parallax=True)
    scene = make_scene(options)
    xy = np.array([[40.0, 50.0]])

    def step(name: str, t: int) -> np.ndarray:
        motion = scene.layers[scene.layer_index(name)].motion
        return motion.to_frame(t, motion.to_canvas(0, xy)) - xy

    for t in (2, 4):
        assert np.hypot(*(step("near", t) - step("sky", t))[0]) > 0.5
        np.testing.assert_allclose(step("foreground", t), step("sky", t), atol=1e-9)
    if kind == "pan_back":
        np.testing.assert_allclose(step("near", 6), 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_motions_invert(seed):
    scene = make_scene(replace(HARD, seed=seed))
    xy = pixel_grid(scene.size)[::7, ::7].astype(np.float64)
    for layer in scene.layers:
        for t in (0, 5):
            back = layer.motion.to_frame(t, layer.motion.to_canvas(t, xy))
            np.testing.assert_allclose(back, xy, atol=1e-7)


def test_a_layer_is_drawn_wherever_it_reaches(hard):
    # Frames are composited inside each layer's bounding box only: nothing may be cut off, not
    # even of a bent object that fills its canvas to the rim.
    i, n = hard.layer_index("object"), hard.supersample
    white, sky = np.ones_like(hard.layers[i].texture), hard.layers[-1]
    dark = replace(sky, texture=sky.texture * np.float32([0, 0, 0, 1]))
    scene = replace(hard, layers=(replace(hard.layers[i], texture=white), dark))
    fine = pixel_grid(scene.size, Size(scene.size.height * n, scene.size.width * n))
    for t in range(scene.frame_count):
        reach = scene.alpha_at(0, t, fine).reshape(scene.size.height, n, scene.size.width, n)
        drawn = scene.render(t)[..., 0] / scene.layers[0].gain[t]
        np.testing.assert_allclose(drawn, reach.mean((1, 3)), atol=1e-5)


def test_nothing_is_painted_by_an_empty_edit(hard):
    clear = np.zeros((*hard.layers[0].texture.shape[:2], 4), np.uint8)
    same = replace(hard, grain=3.0)
    np.testing.assert_array_equal(same.edited(4, {"near": clear}), same.frames(4))
    assert (hard.frames(4) != same.frames(4)).mean() > 0.5  # the grain is there


@pytest.mark.parametrize("name", ["near", "object", "foreground", "clouds", "sky"])
def test_edit_shows_where_its_layer_does(hard, name):
    t, i = 4, hard.layer_index(name)
    edited = hard.edited(t, {name: checkerboard(hard.layers[i].canvas)}).astype(float)
    change = abs(edited - hard.frames(t)).max(-1)
    share = hard.mapping().frame(t).visible()[i]
    assert change[share == 0].max(initial=0) == 0
    assert change[share > 0.9].mean() > 20
    # a layer's share bounds what an edit of it can change; 2: rounding and correlated edges
    assert (change <= 255 * share + 12).all()
    assert np.mean(change > 255 * share + 2) < 0.01


def test_edit_lands_on_its_texel(hard):
    # A dot painted at one texel is seen where the motion says that texel goes.
    t, i = 2, hard.layer_index("sky")
    xy = np.array([[31.0, 8.0], [120.0, 21.0], [75.0, 14.0]])
    uv = np.rint(hard.layers[i].motion.to_canvas(t, xy))
    clean = replace(hard, layers=hard.layers[-1:])
    edit = np.zeros(hard.layers[i].texture.shape, np.float32)
    for u, v in uv.astype(int):
        edit[v, u] = 1
    change = (clean.edited(t, {"sky": edit}).astype(float) - clean.frames(t)).sum(-1)
    y, x = np.mgrid[: hard.size.height, : hard.size.width]
    for goal in hard.layers[i].motion.to_frame(t, uv):
        near = np.hypot(x - goal[0], y - goal[1]) < 3
        centre = [(change * axis)[near].sum() / change[near].sum() for axis in (x, y)]
        np.testing.assert_allclose(centre, goal, atol=0.15)  # 2 x 2 points weigh a bilinear dot


def test_twig_alpha_is_the_area_mean(hard):
    # Opacity of the ground with its twigs against brute force with 8 x 8 points to the pixel.
    # The scene's own 2 x 2 points, half a texel apart, miss little of a bilinear texture:
    # 0.02 on average, 0.15 at the worst pixel (a twig of half a texel, seen at an angle).
    i, t = hard.layer_index("foreground"), 4
    height, width = hard.size.height, hard.size.width
    fine = pixel_grid(hard.size, Size(height * 8, width * 8))
    points = hard.alpha_at(i, t, fine)
    brute = points.reshape(height, 8, width, 8).mean((1, 3))
    alpha = hard.mapping().frame(t).alpha[i]
    soft = (brute > 0.02) & (brute < 0.98)
    assert soft.sum() > 300
    assert abs(alpha - brute)[soft].mean() < 0.02
    assert abs(alpha - brute).max() < 0.15


@pytest.mark.parametrize("width", [0.5, 1.3, 3.0])
def test_branch_coverage_is_its_area(width):
    # Against geometry at 8 x 8 points a texel; at 45 degrees the box across the branch is wider
    # than the texel-wide one that `coverage` takes, hence 0.2 at single texels; area within 3 %.
    size, n = Size(40, 60), 8
    start, end = (6.3, 31.2), (52.1, 9.4)
    got = coverage([Branch(start, end, width, width)], size)
    xy = pixel_grid(size, Size(size.height * n, size.width * n)).astype(np.float64)
    a, along = np.array(start), np.array(end) - start
    s = np.clip(((xy - a) @ along) / (along @ along), 0, 1)
    distance = np.linalg.norm(xy - a - s[..., None] * along, axis=-1)
    brute = (distance < width / 2).reshape(size.height, n, size.width, n).mean((1, 3))
    assert abs(got - brute).max() < 0.2
    assert got.sum() == pytest.approx(brute.sum(), rel=0.03)


def test_light_only_scales_colours():
    options = SceneOptions(size=Size(48, 70), frame_count=5, camera="still", sky="none", light=0.5)
    scene = make_scene(options)
    first, last = scene.frames(0).astype(float), scene.frames(4).astype(float)
    assert scene.layers[-1].gain[4] == pytest.approx(0.5)
    assert abs(last - 0.5 * first).max() <= 1  # two roundings


def test_plain_sky_has_no_texture():
    scene = make_scene(SceneOptions(size=Size(50, 80), frame_count=2, sky="plain"))
    assert np.ptp(scene.layers[-1].texture, axis=1).max() == 0


def test_same_options_same_scene_other_seed_other_scene():
    a, b = (make_scene(SceneOptions(size=Size(40, 60), frame_count=2)).frames(1) for _ in "ab")
    np.testing.assert_array_equal(a, b)
    other = make_scene(SceneOptions(size=Size(40, 60), frame_count=2, seed=1)).frames(1)
    assert (a != other).mean() > 0.5


def test_truth_on_disk_is_the_scene(hard, tmp_path):
    write_truth(hard, tmp_path / "truth")
    baked = BakedMapping(tmp_path / "truth")
    exact = hard.mapping().frame(3)
    np.testing.assert_array_equal(baked.frame(3).uv, exact.uv)
    assert abs(baked.frame(3).alpha - exact.alpha).max() < 1e-3  # stored in half precision
    texture = cv2.imread(str(tmp_path / "truth" / "texture_object.png"), cv2.IMREAD_UNCHANGED)
    own = hard.layers[hard.layer_index("object")].texture
    assert abs(texture[..., [2, 1, 0, 3]] / 255 - own).max() <= 0.502 / 255


@pytest.mark.parametrize("merged", [False, True])
def test_clip_folder_opens_with_exact_parts(hard, tmp_path, merged):
    scene = replace(hard, frame_count=3)
    clip = Clip(write_clip(scene, tmp_path / "fair", merged=merged))
    clip.check()
    names = ("foreground", "sky") if merged else tuple(layer.name for layer in scene.layers)
    assert clip.layer_names == names
    np.testing.assert_array_equal(clip.frame(2), scene.frames(2))
    np.testing.assert_array_equal(clip.flow(2, 1), scene.flow(2, 1)[0])
    m = scene.mapping().frame(1)
    wanted = np.stack([1 - m.visible()[-1], m.alpha[-1]]) if merged else m.alpha
    assert abs(clip.alpha(1) - wanted).max() <= 0.502 / 255
    assert clip.info.truth == "fair_truth"
    assert BakedMapping(tmp_path / "fair_truth").frame_count == 3
    assert read_rgb(tmp_path / "fair_truth" / "texture_sky.png").shape[:2] == (
        scene.layers[-1].canvas.height,
        scene.layers[-1].canvas.width,
    )


def test_wrong_calls_are_named(hard):
    with pytest.raises(ValueError, match=r"name must be one of .* got 'hill'"):
        hard.edited(0, {"hill": np.zeros((2, 2, 4))})
    with pytest.raises(ValueError, match="edit of 'sky' must be"):
        hard.edited(0, {"sky": np.zeros((2, 2, 4))})
    with pytest.raises(ValueError, match=r"t must be in 0\.\.8, got 9"):
        hard.frames(9)
    with pytest.raises(ValueError, match="object must be one of"):
        SceneOptions(object="round")
    with pytest.raises(ValueError, match="kind must be one of"):
        make_scene(SceneOptions(camera="crane"))
