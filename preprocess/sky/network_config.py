"""The sizes of the sky network, apart from torch, for whatever reads a weights file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from atlas.errors import InputError


class Block(NamedTuple):
    """One inverted residual block."""

    inputs: int
    outputs: int
    stride: int
    expansion: int

    @property
    def added(self) -> bool:
        """Its answer is added to its input."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the network; stored beside the weights."""

    stem: int = 32
    """Channels of the first convolution, at half of the input's size."""
    groups: tuple[tuple[int, int, int], ...] = (
        (16, 1, 1),
        (24, 2, 2),
        (32, 3, 2),
        (64, 4, 2),
        (96, 3, 1),
        (160, 3, 2),
    )
    """Inverted residual blocks: channels, how many, stride of the first (arXiv 1801.04381, table 2,
    without its last group of blocks)."""
    expansion: int = 6
    """Channels inside a block, in channels of its input; 1 in the first group."""
    decoder: tuple[int, ...] = (24, 40, 64, 96)
    """Channels of the decoder at 1/2, 1/4, 1/8 and 1/16."""

    def __post_init__(self) -> None:
        if sum(stride == 2 for _, _, stride in self.groups) != 4 or len(self.decoder) != 4:
            raise ValueError(f"four groups of stride 2 and four decoder widths wanted, got {self}")

    def metadata(self) -> dict[str, str]:
        """As text, for the head of a weights file."""
        return {
            "stem": str(self.stem),
            "groups": ",".join("x".join(map(str, group)) for group in self.groups),
            "expansion": str(self.expansion),
            "decoder": ",".join(map(str, self.decoder)),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: Path) -> NetworkConfig:
        """What `metadata` wrote; `path` is named where it is something else."""
        try:
            groups = [tuple(map(int, g.split("x"))) for g in metadata["groups"].split(",")]
            return cls(
                stem=int(metadata["stem"]),
                groups=tuple((width, blocks, stride) for width, blocks, stride in groups),
                expansion=int(metadata["expansion"]),
                decoder=tuple(map(int, metadata["decoder"].split(","))),
            )
        except (KeyError, ValueError) as err:
            raise InputError(
                f"{path}: not a sky network: no sizes of one in its metadata ({metadata})"
            ) from err

    def blocks(self) -> list[Block]:
        """All blocks of the encoder, one after another."""
        blocks, inputs = [], self.stem
        for number, (width, count, stride) in enumerate(self.groups):
            expansion = self.expansion if number else 1
            for index in range(count):
                blocks.append(Block(inputs, width, stride if index == 0 else 1, expansion))
                inputs = width
        return blocks

    def taps(self) -> list[int]:
        """Indices of the blocks after which the picture is halved, and of the last."""
        strides = [block.stride for block in self.blocks()]
        return [index for index, after in enumerate([*strides[1:], 2]) if after == 2]
