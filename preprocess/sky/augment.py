"""Many different training pictures from few: geometry, other skies, thin things, fog, camera.

A sample starts as one labelled picture and passes through, each with some chance: crop, turn and
flip; another sky put in through the soft matte; a twig, wire, pole or head of hair with exact
coverage; fog; a mirror image below; exposure, colour, blur, noise and JPEG. Some samples are all
ground and some all sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky import scenery
from preprocess.sky.camera_effects import panned, photographed, veiled
from preprocess.sky.crops import cropped
from preprocess.sky.data import SOFT_DOMAINS, Pair, ground_top, sky_strip, to_bytes
from preprocess.sky.indoors import bokeh, room, surface
from preprocess.sky.landscape import grove, night_lights, plain_things, ridges, shore, town
from preprocess.sky.procedural import SKY_KINDS, afterglow, fractal_noise, sky_picture
from preprocess.sky.rough_labels import smooth_under
from preprocess.sky.scenery import Layer, building, laid_over, water
from preprocess.sky.streets import lane
from preprocess.sky.thin_things import THIN_KINDS
from preprocess.sky.thin_things import thin_coverage as draw_thin

_CROWNS = (scenery.bare_crowns, scenery.foliage, grove, scenery.sparse_crowns)
_CROWN_SHARES = (0.2, 0.2, 0.2, 0.4)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Chances in [0, 1] of each change, and how often each domain is drawn."""

    domain_shares: tuple[tuple[str, float], ...] = (
        ("ade", 0.44),
        ("camvid", 0.14),
        ("lmf", 0.38),
        ("lowlight", 0.04),
    )
    all_ground: float = 0.08
    drawn_ground: float = 0.3
    """Chance that a picture that is all ground is a drawn one: see `indoors`."""
    indoors: float = 0.6
    """Chance that a photographed one is of those that hold no sky at all, mostly rooms."""
    all_sky: float = 0.24
    drawn_land: float = 0.5
    """Chance that land is drawn before a picture that is all sky."""
    lane: float = 0.4
    """Chance that this land is a lane between walls, with little sky above."""
    from_above: float = 0.4
    """Chance that a picture of ground only is turned by any angle, as if seen from the air."""
    high_up: float = 0.4
    """Chance that the air between veils such a picture."""
    panned: float = 0.2
    """Chance that a camera which follows something smears such a picture."""
    turned: float = 0.4
    little_sky: float = 0.25
    """Chance that a labelled picture is cut so that a strip or a patch is all its sky."""
    other_sky_soft: float = 0.5
    """Chance of a sky swap where the matte is soft."""
    other_sky_rough: float = 0.3
    """The same where the label was a polygon."""
    white_sky: float = 0.2
    """Share of burnt-out white among the skies that are put in."""
    dusk: float = 0.16
    """The same of deep orange and red ones."""
    twilight: float = 0.08
    """The same of smooth blue, violet and pink ones."""
    night: float = 0.05
    """The same of nights."""
    afterglow: float = 0.35
    """Share of the other skies put in that are lit like a sunset."""
    silhouette: float = 0.25
    """Chance that the ground under another sky is next to black."""
    thin_thing: float = 0.2
    crowns: float = 0.2
    """Bare or leafy crowns, or a grove, with sky between."""
    crowns_white: float = 0.55
    """The same before a sky that is white."""
    ridges: float = 0.12
    """Mountains put behind the ground of a picture."""
    plain_thing: float = 0.1
    plain_thing_ground: float = 0.35
    """The same in a picture that is all ground."""
    dark: float = 0.16
    """Mean brightness of a sky below which lamps may be lit on the ground."""
    building: float = 0.1
    water: float = 0.08
    burnt: float = 0.1
    """Exposed so long that a pale sky turns white."""
    faded: float = 0.05
    """Dimmed as in a fade to black."""
    fog: float = 0.06
    mirrored: float = 0.05


@dataclass
class Sample:
    """A training picture while it is made; float32, colours in [0, 1]."""

    rgb: np.ndarray
    alpha: np.ndarray
    weight: np.ndarray


class Augmenter:
    """Draws training samples without end; its generator makes a seed repeatable."""

    def __init__(
        self,
        pairs: list[Pair],
        skies: list[np.ndarray],
        rng: np.random.Generator,
        config: AugmentConfig | None = None,
    ) -> None:
        """`skies`: pictures that are sky only, (H, W, 3) uint8; may be empty."""
        self.config = config or AugmentConfig()
        self.rng = rng
        self.skies = [*skies, *(sky for sky in map(sky_strip, pairs) if sky is not None)]
        self.pairs = {
            domain: [pair for pair in pairs if pair.domain == domain]
            for domain, _ in self.config.domain_shares
        }
        self.ground = [pair for pair in pairs if ground_top(pair) is not None]
        self.bare = [pair for pair in self.ground if ground_top(pair) == 0]
        shares = [
            (domain, share) for domain, share in self.config.domain_shares if self.pairs[domain]
        ]
        if not shares:
            raise ValueError("pairs holds no picture of a domain in config.domain_shares")
        self._domains = [domain for domain, _ in shares]
        weights = np.array([share for _, share in shares])
        self._shares = weights / weights.sum()

    def batch(self, count: int, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rgb (B, H, W, 3), alpha and weight (B, H, W); all uint8, 255 = 1."""
        samples = [self.sample(size) for _ in range(count)]
        rgb, alpha, weight = (
            np.stack([to_bytes(getattr(s, field)) for s in samples])
            for field in ("rgb", "alpha", "weight")
        )
        return rgb, alpha, weight

    def sample(self, size: Size) -> Sample:
        """One augmented picture of `size`."""
        config, rng = self.config, self.rng
        kind = rng.random()
        if kind < config.all_sky:
            shape = (size.height, size.width)
            sky = self._any_sky(size)
            sample = Sample(sky, np.ones(shape, np.float32), np.ones(shape, np.float32))
            if rng.random() < config.drawn_land:
                self._draw_land(sample)
        elif kind < config.all_sky + config.all_ground:
            sample = self._no_sky(size)
        else:
            sample = self._labelled(size)
        self._add_scenery(sample)
        if sample.alpha.mean() > 0.03 and rng.random() < config.fog:
            self.add_fog(sample)
        if rng.random() < config.mirrored:
            self._add_mirror(sample)
        if rng.random() < config.burnt:
            sample.rgb = np.clip(sample.rgb * rng.uniform(1.2, 2.5), 0, 1)
        if rng.random() < config.faded:
            sample.rgb = sample.rgb * np.float32(rng.uniform(0.2, 0.7))
        return photographed(sample.rgb, sample.alpha, sample.weight, rng, Sample)

    def _add_scenery(self, sample: Sample) -> None:
        """Things in front of the sky, each with its chance, the far ones first."""
        config, rng = self.config, self.rng
        size = Size(*sample.alpha.shape)
        if sample.alpha.mean() > 0.1 and rng.random() < config.ridges:
            sky = smooth_under(sample.rgb, sample.alpha, size.width // 8)
            self.lay_behind(sample, ridges(rng, size, sky), sky)
        if sample.alpha.mean() > 0.1 and rng.random() < config.building:
            sky = _mean_sky(sample)
            self._lay_over(sample, building(rng, size, sky))
        if sample.alpha.mean() > 0.1 and rng.random() < config.water:
            sky = smooth_under(sample.rgb, sample.alpha, size.width // 8)
            self._lay_over(sample, water(rng, size, sky))
        if sample.alpha.mean() > 0.1:
            white = _mean_sky(sample).min() > 0.85
            if rng.random() < (config.crowns_white if white else config.crowns):
                draw = _CROWNS[rng.choice(len(_CROWNS), p=_CROWN_SHARES)]
                self._add_dark_thing(sample, draw(rng, size))
        if sample.alpha.mean() > 0.02 and rng.random() < config.thin_thing:
            kind = str(rng.choice(THIN_KINDS, p=[0.45, 0.2, 0.2, 0.15]))
            self._add_dark_thing(sample, draw_thin(rng, size, kind))
        has_sky = sample.alpha.mean() > 0.01
        if rng.random() < (config.plain_thing if has_sky else config.plain_thing_ground):
            self._lay_over(sample, plain_things(rng, size))
        if has_sky and _mean_sky(sample).mean() < config.dark and rng.random() < 0.5:
            sample.rgb = np.clip(sample.rgb + night_lights(rng, size, sample.alpha), 0, 1)

    def _draw_land(self, sample: Sample) -> None:
        """Land before a sky, so that the whole picture is drawn."""
        rng = self.rng
        size = Size(*sample.alpha.shape)
        sky = sample.rgb
        if rng.random() < self.config.lane:
            self._lay_over(sample, lane(rng, size))
            return
        if rng.random() < 0.55:
            self._lay_over(sample, ridges(rng, size, sky))
        if rng.random() < 0.4:
            self._lay_over(sample, town(rng, size, sky))
        if rng.random() < 0.4:
            self._lay_over(sample, shore(rng, size, sky))
        if rng.random() < 0.2:
            self._add_dark_thing(sample, grove(rng, size))

    def _no_sky(self, size: Size) -> Sample:
        """A picture that is all ground: drawn, or the part of a photograph below its sky."""
        rng, config = self.rng, self.config
        if not self.ground or rng.random() < config.drawn_ground:
            draw = (room, surface, bokeh)[rng.choice(3, p=[0.8, 0.1, 0.1])]
            shape = (size.height, size.width)
            return Sample(draw(rng, size), np.zeros(shape, np.float32), np.ones(shape, np.float32))
        bare = bool(self.bare) and rng.random() < config.indoors
        pairs = self.bare if bare else self.ground
        pair = pairs[rng.integers(len(pairs))]
        any_angle = not bare and rng.random() < config.from_above
        angle = rng.uniform(0, 2 * np.pi) if any_angle else self._turn()
        sample = Sample(*cropped(pair, size, rng, top=ground_top(pair) or 0, angle=angle))
        if any_angle and rng.random() < config.high_up:
            sample.rgb = veiled(sample.rgb, rng)
        if rng.random() < config.panned:
            sample.rgb = panned(sample.rgb, rng)
        return sample

    def _labelled(self, size: Size) -> Sample:
        rng, config = self.rng, self.config
        domain = self._domains[rng.choice(len(self._domains), p=self._shares)]
        pair = self.pairs[domain][rng.integers(len(self.pairs[domain]))]
        little = rng.random() < config.little_sky
        sample = Sample(*cropped(pair, size, rng, angle=self._turn(), little_sky=little))
        soft = pair.domain in SOFT_DOMAINS
        chance = config.other_sky_soft if soft else config.other_sky_rough
        if sample.alpha.mean() > 0.005 and rng.random() < chance:
            self.put_sky(sample, self._any_sky(Size(*sample.alpha.shape)))
        return sample

    def _turn(self) -> float | None:
        """rad: how a camera that is not held level is turned; None where it is."""
        rng = self.rng
        if rng.random() >= self.config.turned:
            return None
        return np.deg2rad(np.clip(rng.normal(0, 7), -25, 25))

    def _any_sky(self, size: Size) -> np.ndarray:
        """A sky only, of any kind and light; (H, W, 3) float32."""
        rng = self.rng
        config, kind = self.config, rng.random()
        for name, share in (
            ("white", config.white_sky),
            ("dusk", config.dusk),
            ("twilight", config.twilight),
            ("night", config.night),
        ):
            if kind < share:
                return sky_picture(rng, size, name)
            kind -= share
        sky = self._day_sky(size)
        return afterglow(rng, sky) if rng.random() < self.config.afterglow else sky

    def _day_sky(self, size: Size) -> np.ndarray:
        """Part of a photographed sky, or a computed one; (H, W, 3) float32."""
        rng = self.rng
        if not self.skies or rng.random() < 0.5:
            return sky_picture(rng, size, str(rng.choice(SKY_KINDS)))
        source = self.skies[rng.integers(len(self.skies))]
        height, width = source.shape[:2]
        crop_h = max(8, int(height * rng.uniform(0.4, 1.0)))
        crop_w = max(8, int(width * rng.uniform(0.3, 1.0)))
        y, x = rng.integers(height - crop_h + 1), rng.integers(width - crop_w + 1)
        crop = source[y : y + crop_h, x : x + crop_w]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        resized = cv2.resize(np.ascontiguousarray(crop), size.wh, interpolation=cv2.INTER_LINEAR)
        return resized.astype(np.float32) / 255

    def put_sky(self, sample: Sample, sky: np.ndarray) -> None:
        """Put a sky (H, W, 3) in place of a picture's own.

        new = alpha * sky + (frame - alpha * old sky), the ground lit by the new sky in part."""
        rng = self.rng
        alpha = sample.alpha[..., None]
        width = sample.alpha.shape[1]
        old = smooth_under(sample.rgb, sample.alpha, width // 6)
        ground = np.clip(sample.rgb - alpha * old, 0, 1 - alpha)
        new_mean = float((sky * alpha).mean() / max(float(alpha.mean()), 1e-3))
        old_mean = float((sample.rgb * alpha).mean() / max(float(alpha.mean()), 1e-3))
        ratio = np.clip(new_mean / max(old_mean, 0.05), 0.15, 1.3)
        lit = 1 + rng.uniform(0.2, 1.0) * (ratio - 1)
        if rng.random() < self.config.silhouette:
            lit = rng.uniform(0.0, 0.3)
        tint = 1 + rng.uniform(0, 0.6) * (_colour_cast(sky) - 1)
        sample.rgb = np.clip(alpha * sky + ground * (lit * tint).astype(np.float32), 0, 1)

    def _add_dark_thing(self, sample: Sample, coverage: np.ndarray) -> None:
        """Put a thing of known coverage (H, W) over picture and matte, mostly a dark one."""
        rng = self.rng
        dark = rng.uniform(0, 0.35) if rng.random() < 0.8 else rng.uniform(0.3, 0.9)
        colour = dark * rng.uniform(0.7, 1.3, 3).astype(np.float32)
        shading = 0.6 + 0.8 * fractal_noise(rng, Size(*coverage.shape), 6, 4)[..., None]
        self._lay_over(sample, Layer(np.clip(colour * shading, 0, 1), coverage))

    def _lay_over(self, sample: Sample, layer: Layer) -> None:
        """Hide part of the picture; the matte there is known exactly."""
        sample.rgb = laid_over(sample.rgb, layer)
        sample.alpha = sample.alpha * (1 - layer.coverage)
        sample.weight = np.maximum(sample.weight, layer.coverage)

    def lay_behind(self, sample: Sample, layer: Layer, sky: np.ndarray) -> None:
        """Put a layer between sky and ground: rgb + a c (layer - sky), a the matte, c coverage.

        Where the matte is 1 the sky is the picture itself; on its edges `sky` (H, W, 3) stands in.
        """
        alpha = sample.alpha[..., None]
        behind = np.where(alpha > 0.99, sample.rgb, sky)
        hidden = alpha * layer.coverage[..., None]
        sample.rgb = np.clip(sample.rgb + hidden * (layer.rgb - behind), 0, 1)
        sample.alpha = sample.alpha * (1 - layer.coverage)

    def add_fog(self, sample: Sample) -> None:
        """Pale veil that thickens towards the skyline; the sky itself becomes the veil."""
        rng = self.rng
        height, width = sample.alpha.shape
        veil = sky_picture(rng, Size(height, width), "haze")
        nearness = cv2.blur(sample.alpha, (2 * (width // 8) + 1, 2 * (height // 5) + 1))
        nearness = np.maximum(nearness, sample.alpha)
        thickness = np.clip(rng.uniform(0, 0.25) + rng.uniform(0.3, 1.2) * nearness, 0, 0.93)
        thickness = np.maximum(thickness, rng.uniform(0.7, 1.0) * sample.alpha)
        sample.rgb = sample.rgb + thickness[..., None] * (veil - sample.rgb)

    def _add_mirror(self, sample: Sample) -> None:
        """Still water: the lower part shows the upper one upside down, dimmer; it is no sky."""
        rng = self.rng
        height = sample.alpha.shape[0]
        shore = int(height * rng.uniform(0.4, 0.75))
        rows = np.arange(shore, height)
        squeeze = rng.uniform(0.7, 1.3)
        source = np.clip(shore - 1 - (rows - shore) * squeeze, 0, shore - 1).astype(int)
        water = sample.rgb[source] * rng.uniform(0.5, 1.0)
        ripple = int(rng.integers(1, 4))
        water = cv2.blur(water, (2 * ripple + 1, 2 * ripple + 3))
        sample.rgb = np.concatenate([sample.rgb[:shore], water.astype(np.float32)])
        zeros = np.zeros_like(sample.alpha[shore:])
        sample.alpha = np.concatenate([sample.alpha[:shore], zeros])
        sample.weight = np.concatenate([sample.weight[:shore], np.ones_like(zeros)])


def _mean_sky(sample: Sample) -> np.ndarray:
    """Mean colour of what the matte marks, (3,); the matte must mark something."""
    alpha = sample.alpha
    return (sample.rgb * alpha[..., None]).sum((0, 1)) / max(float(alpha.sum()), 1e-6)


def _colour_cast(sky: np.ndarray) -> np.ndarray:
    """Mean colour over its own grey, (3,) float32."""
    mean = sky.mean((0, 1))
    return np.clip(mean / max(float(mean.mean()), 0.02), 0.4, 1.8).astype(np.float32)
