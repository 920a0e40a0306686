"""TensorBoard over a root: its runs under names that a person can read, also those at work, and the projector at once.

TensorBoard names a run after its folder, and TFX's is `tfx/Pretrainer/model_run/9/tensorboard`. So it is given a folder
of links, which are set anew while it is running.
"""

import datetime as dt
import importlib.util
import json
import os
import pathlib
import re
import time
import urllib.request
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.staging import read_either
from pipeline import nodes
from pipeline.report import projector
from pipeline.report.run_store import StoredRun
from pipeline.root import Root

_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_MODEL_RUN = "ModelRun"
_ADDRESS_PARTS = 3  # node, output, execution
_REFRESH_SECONDS = 15
_ATTEMPTS = 600  # of a fifth of a second, until TensorBoard has imported TensorFlow and found the embeddings


def link(root: Root) -> int:
    """Makes the folder of links and the projector's configuration; returns how many runs have embeddings.

    Raises:
        ValueError: the store of runs cannot be used.
        OSError: the root cannot be written to.
    """
    folder = root.tensorboard
    folder.mkdir(exist_ok=True)
    told = {path.parent.name: json.loads(read_either(path)) for path in root.path.glob("runs/*/summary.json")}
    wanted = _curves(root, [told[folder] for folder in sorted(told)])
    for there in folder.iterdir():
        if there.is_symlink() and wanted.get(there.name) != there.readlink():
            there.unlink()
    for name, target in wanted.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    return projector.write_config(root, {folder: run_name(summary) for folder, summary in told.items()})


def _curves(root: Root, summaries: Sequence[Mapping[str, Any]]) -> dict[str, pathlib.Path]:
    """Name -> folder of events, relative to the links: of finished runs after them, of others after their start."""
    folders = {path.parent for path in root.artifacts.glob("*/model_run/*/**/events.out.tfevents.*")}
    named: dict[str, pathlib.Path] = {}
    for summary in summaries if folders else []:
        for made in StoredRun(root.metadata, summary["run_id"]).outputs(nodes.PRETRAINER):
            # The end of the address: the root may have been moved since.
            own = root.artifacts.joinpath(*pathlib.PurePath(made.uri).parts[-_ADDRESS_PARTS:])
            for path in [path for path in folders if made.type == _MODEL_RUN and path.is_relative_to(own)]:
                named[run_name(summary)] = path
                folders.remove(path)  # a later run that took it from the cache shows no second time
    for path in folders:
        named[f"{_started(path):%Y-%m-%d %H:%M:%S}, not finished"] = path
    return {name: pathlib.Path(os.path.relpath(path, root.tensorboard)) for name, path in named.items()}


def run_name(summary: Mapping[str, Any]) -> str:
    """Of a finished run: when it started, of which preset it is and, where it was measured, what it reached."""
    accuracy = summary.get("linear_accuracy")
    reached = None if accuracy is None else f"{accuracy:.2%}"
    start = summary["run_id"][:19].replace("T", " ")
    return ", ".join(filter(None, [start, summary.get("preset"), reached]))


def _started(folder: pathlib.Path) -> dt.datetime:
    """When the first events in a folder were written, as the clock of this place showed it."""
    seconds = [int(match[1]) for path in folder.iterdir() if (match := _EVENTS.match(path.name))]
    return dt.datetime.fromtimestamp(min(seconds)).astimezone()


def serve(root: Root, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Shows the root in TensorBoard until Ctrl-C.

    Raises:
        ValueError: it cannot listen there; or as `link`.
        OSError: as `link`.
    """
    count = link(root)
    # What its libraries miss on this machine is no news to whoever looks at curves.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    from tensorboard import program

    board = program.TensorBoard()
    # Where its fast reader is installed it would be taken in any case, but with a note about that.
    fast = importlib.util.find_spec("tensorboard_data_server") is not None
    board.configure(logdir=str(root.tensorboard), host=host, port=port, load_fast="true" if fast else "false")
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise ValueError(error.msg) from error
    if count:
        _await_projector(url)
    tell(f"Curves: {url}#timeseries")
    tell(f"Embeddings of {count} run{'' if count == 1 else 's'}: {url}#projector")
    try:
        while True:
            time.sleep(_REFRESH_SECONDS)
            link(root)
    except KeyboardInterrupt:
        return


def _await_projector(url: str) -> None:
    """Asks until the projector is there: TensorBoard looks for embeddings when first asked, and says no till then."""
    for _ in range(_ATTEMPTS):
        with urllib.request.urlopen(f"{url}data/plugins_listing", timeout=60) as answer:  # noqa: S310 - its own
            if json.load(answer)["projector"]["enabled"]:
                return
        time.sleep(0.2)
