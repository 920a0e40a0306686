"""Names of folders that TFX and Beam take for something else than a folder."""

import os
import pathlib
import re

# What Beam's `FileSystem.translate_pattern` and TensorFlow's `Glob` read as fnmatch does; a backslash is the latter's.
_PATTERNS = r"[]*?" + "\\"
# What TFX's `_glob_to_regex` (tfx/components/example_gen/utils.py) leaves as it is when it looks for a span's number.
_OF_SPANS = "^$|{}"


def check(path: pathlib.Path, is_data: bool = False) -> None:
    """Refuses a folder that TFX could not find again.

    Args:
        path: where it is, or would be.
        is_data: whether spans are looked for in it.

    Raises:
        ValueError: its whole path holds a character of a pattern, or is no UTF-8 text, as ML Metadata stores it.
    """
    whole = str(path.absolute())
    taken = _PATTERNS + (_OF_SPANS if is_data else "")
    found = re.findall(f"[{re.escape(taken)}]", whole)
    if found:
        raise ValueError(
            f"{whole}: TFX reads {' '.join(dict.fromkeys(found))} in the name of a folder as a pattern. Rename it, or "
            "give a link to it whose path has none of these."
        )
    try:
        os.fsencode(whole).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{whole!a}: the name of a folder is no UTF-8 text, which TFX needs to write it down. Rename it, or give a "
            "link to it."
        ) from error
