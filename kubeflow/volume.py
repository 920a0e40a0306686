"""What the volume keeps of spans, without TFX."""

import pathlib

SPAN = "span-"


def copies(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Complete copies of one span's Examples by number; one that is being written has a name that is none."""
    if not folder.is_dir():
        return {}
    return {int(path.name): path for path in folder.iterdir() if path.name.isdecimal()}


def spans(store: pathlib.Path) -> dict[int, pathlib.Path]:
    """The folders of the spans whose Examples are kept, by number."""
    return {
        int(folder.name.removeprefix(SPAN)): folder for folder in store.glob(f"{SPAN}*") if copies(folder)
    }
