"""The parametric transforms that a layer's frames are tied together by.

A homography, an affine map, or a pure rotation K R K^-1 of a camera with one focal length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from atlas.coords import Size


@dataclass
class MotionModel:
    """A parametrisation: matrices from updates around the present estimate."""

    name: str
    to_unit: np.ndarray
    focal_px: float
    generators: list[np.ndarray] = field(default_factory=list)
    focal_is_free: bool = False
    """Whether `refine_jointly` may change the focal length, one for the whole clip."""

    def step(self, matrix: np.ndarray, update: np.ndarray) -> np.ndarray:
        """`matrix` (frame px -> reference px) moved by `update`, in the model's own parameters."""
        if self.name == "rotation":
            k = camera_matrix(self.focal_px, self.to_unit)
            turn = Rotation.from_rotvec(update).as_matrix()
            moved = k @ turn @ np.linalg.inv(k) @ matrix
        else:
            change = np.eye(3) + sum(u * g for u, g in zip(update, self.generators, strict=True))
            moved = np.linalg.inv(self.to_unit) @ change @ self.to_unit @ matrix
        return with_unit_determinant(moved)

    def zoomed(self, matrices: np.ndarray, factor: float) -> np.ndarray:
        """Rotations (T, 3, 3) under a focal length times `factor`, their angles divided by it.

        So what lies in the middle of the pictures moves as before, and only their bending changes:
        the focal length is told apart from the angles.
        """
        k, new = (camera_matrix(f, self.to_unit) for f in (self.focal_px, self.focal_px * factor))
        turns = with_unit_determinant(np.linalg.inv(k) @ matrices @ k)
        angles = Rotation.from_matrix(turns).as_rotvec() / factor
        turns = Rotation.from_rotvec(angles).as_matrix()
        return with_unit_determinant(new @ turns @ np.linalg.inv(new))

    @property
    def count(self) -> int:
        return 3 if self.name == "rotation" else len(self.generators)


def camera_matrix(focal_px: float, to_unit: np.ndarray) -> np.ndarray:
    """(3, 3) pinhole K with the principal point at the frame's centre, square pixels."""
    centre = -to_unit[:2, 2] / to_unit[0, 0]
    return np.array([[focal_px, 0, centre[0]], [0, focal_px, centre[1]], [0, 0, 1.0]])


def unit_matrix(size: Size) -> np.ndarray:
    """(3, 3): pixels to [-1, 1] about the frame's centre, longer side, one scale for both axes."""
    s = 2 / max(size.width, size.height)
    cx, cy = (size.width - 1) / 2, (size.height - 1) / 2
    return np.array([[s, 0, -s * cx], [0, s, -s * cy], [0, 0, 1.0]])


def motion_model(name: str, size: Size, focal_px: float) -> MotionModel:
    basis = {
        "affine": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
        "homography": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)],
        "rotation": [],
    }
    if name not in basis:
        raise ValueError(f"model must be one of {sorted(basis)}, got {name!r}")
    generators = []
    for row, column in basis[name]:
        g = np.zeros((3, 3))
        g[row, column] = 1
        generators.append(g)
    return MotionModel(name, unit_matrix(size), focal_px, generators)


def with_unit_determinant(matrices: np.ndarray) -> np.ndarray:
    """(..., 3, 3) homographies scaled to determinant 1: depth is positive ahead of the camera.

    Scaled by their last element, those that turn by more than a right angle would change sign.
    """
    return matrices / np.cbrt(np.linalg.det(matrices))[..., None, None]
