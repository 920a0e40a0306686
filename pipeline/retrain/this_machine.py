"""A retraining's runs on this machine: TFX's LocalDagRunner over a root folder."""

import dataclasses

from rich.console import Console

from pipeline.console import loading
from pipeline.retrain.place import Asked, Served, Trained
from pipeline.root import Root


@dataclasses.dataclass(frozen=True)
class ThisMachine:
    """A `pipeline.retrain.place.Place`; the caller holds the root's lock. TFX is imported when it is needed.

    Attributes:
        root: everything that runs leave behind.
        preset: its name, for the record.
        console: where progress is printed.
    """

    root: Root
    preset: str
    console: Console

    def served(self) -> Served | None:
        """What the metadata store knows of the served version."""
        with loading(self.console):
            from pipeline.run import parentage

        found = parentage.of_served(self.root.serving, self.root.metadata)
        return None if found is None else Served(found.version, found.restored, found.model, found.pretrainer)

    def stored(self) -> set[int]:
        """Spans whose Examples the metadata store has."""
        from pipeline import nodes
        from pipeline.run import parentage

        return parentage.stored_spans(self.root.metadata, nodes.EXAMPLE_GEN)

    def look_at(self, asked: Asked) -> None:
        """Runs the nodes that look at the data."""
        with loading(self.console):
            from pipeline.run import local_runner
            from pipeline.run.bindings import Earlier

        earlier = Earlier(served_model=asked.baseline, spans=asked.compared)
        local_runner.look_at(asked.config, self.preset, asked.records, self.root, self.console, earlier)

    def train(self, asked: Asked) -> Trained:
        """Runs every node; finished ones of a killed run are not repeated."""
        with loading(self.console):
            from pipeline.run import local_runner
            from pipeline.run.bindings import Earlier

        earlier = Earlier(
            served_model=asked.baseline,
            spans=asked.compared,
            window=asked.window,
            warm_start=asked.parent,
        )
        summary = local_runner.run(asked.config, self.preset, asked.records, self.root, self.console, earlier)
        return Trained(
            run_id=summary.run_id,
            accuracy=summary.linear_accuracy,
            version=summary.pushed_version,
            reason=summary.not_pushed_because or "",
            overtaken=summary.overtaken,
            candidate=summary.candidate is not None,
        )

    def prune(self, keep_runs: int, keep_spans: int) -> int:
        """As `byol prune`."""
        from pipeline.past.prune import PrunePolicy, prune

        pruned = prune(self.root, PrunePolicy(keep_runs, keep_spans))
        return pruned.bytes if pruned.removed else 0
