"""The argument parser of all commands: a mistake is one line that names the way to the help."""

from __future__ import annotations

import argparse
from typing import NoReturn

from atlas.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """Raises `InputError` where argparse would print the usage and end the program.

    Help text keeps its line breaks, so that examples can be copied.
    """

    def __init__(self, *, prog: str, description: str, epilog: str):
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")
