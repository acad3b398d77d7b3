"""The one exception for what a user can get wrong, and how scripts report it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable


class InputError(Exception):
    """A user's file, option or folder is not usable.

    The message is one line and says which file or key, what was found, what is wanted and,
    where it helps, what to do. Scripts print it and exit with status 2.
    """


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; print an `InputError` or a full disk as one line and exit 2.

    Ctrl-C ends with status 130 and one line. Any other exception is a bug and keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _silence_opencv()
    try:
        main()
    except InputError as err:
        print(f"error: {' '.join(str(err).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as err:
        # Full disk, missing permission, vanished drive: the user's to mend, not a bug of ours.
        where = f"{err.filename}: " if err.filename else ""
        print(f"error: {where}{err.strerror or err}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as err:
        print(f"error: out of memory ({err}); a smaller size needs less", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; rerun the same command to go on", file=sys.stderr)
        sys.exit(130)


def _silence_opencv() -> None:
    """Keep OpenCV from printing its own warnings of damaged pictures: our one line says it."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # read when OpenCV is loaded
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
