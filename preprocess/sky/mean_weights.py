"""The mean of two trainings of the sky network.

    python -m preprocess.sky.mean_weights FIRST SECOND --share 0.7 --out weights.safetensors

out = share * FIRST + (1 - share) * SECOND, weight by weight. It works where one training went on
from the other's weights (`preprocess.sky.train --init`), and then often beats both ("model soups",
arXiv 2203.05482); of two that began at random the mean is useless.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from atlas.errors import InputError, run_script
from preprocess.sky.network import SkyNetwork, load_network, save_weights


def mean_network(first: Path, second: Path, share: float) -> SkyNetwork:
    """share * first + (1 - share) * second.

    Args:
        first, second: weights of networks of one shape.
        share: of `first`, [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"--share must be from 0 to 1, got {share}")
    network, other = load_network(first), load_network(second)
    if other.config != network.config:
        raise InputError(f"{second}: a network of {other.config}; wanted {network.config}")
    state, second_state = network.state_dict(), other.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            value.lerp_(second_state[key], 1 - share)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="The mean of two trainings of the sky network.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of FIRST (default 0.5)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    save_weights(mean_network(arguments.first, arguments.second, arguments.share), arguments.out)


if __name__ == "__main__":
    run_script(main)
