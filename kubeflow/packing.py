"""Parameters that are too long for a container's command line, as KFP fills all of a step's into one argument.

Linux takes 128 KiB (MAX_ARG_STRLEN); thresholds for a thousand classes are three times that, and pack to a hundredth.
"""

import base64
import zlib
from typing import Any

PREFIX = "zlib+base64:"
LONG = 16 * 1024  # characters; shorter ones stay as a person can read them


def packed(value: Any) -> Any:
    """A long text packed, anything else as it is."""
    if not isinstance(value, str) or len(value) <= LONG:
        return value
    return PREFIX + base64.b64encode(zlib.compress(value.encode(), 9)).decode()


def unpacked(value: Any) -> Any:
    """What `packed` was given."""
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    return zlib.decompress(base64.b64decode(value.removeprefix(PREFIX))).decode()
