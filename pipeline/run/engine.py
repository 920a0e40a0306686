"""Tries the Beam engine of a run, for commands that have not imported Beam yet."""

import pathlib
import tempfile

from pipeline import console
from pipeline.config import BeamConfig


def try_engine(config: BeamConfig, root: pathlib.Path, data: pathlib.Path | None) -> None:
    """Says so and runs `engine_check.check` where the engine is another program; writes nothing that stays.

    Args:
        config: the engine.
        root: of the run.
        data: folder of the record files; None when the run makes its own.

    Raises:
        ValueError: one line: the engine does not work as it stands.
        OSError: the root cannot be written.
    """
    if not config.has_cluster:
        return
    with (
        tempfile.NamedTemporaryFile(prefix="byol-engine-") as log,
        console.quiet(pathlib.Path(log.name)) as person,
    ):
        where = f" at {config.endpoint}" if config.endpoint else ""
        person.print(
            f"Trying the Beam engine {config.engine}{where}, for {config.start_seconds:g} s at the most ...",
            highlight=False,
        )
        from pipeline.run import engine_check

        engine_check.check(config, root, data)
