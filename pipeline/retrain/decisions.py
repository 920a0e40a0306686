"""Events of what a person decided: on disk before the decision, so that a kill between it and its event loses none."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

from components.serving import candidates, serving_folder
from pipeline.retrain import hooks, outbox
from pipeline.root import Root
from pipeline.spans import ledger

if TYPE_CHECKING:
    from components.serving.serving_folder import Version

# Under which name a version's lineage has the decision that made it.
_IN_LINEAGE = {"pushed": "approval", "rollback": "rollback"}


class DecisionEvents:
    """Tells of the decisions in one root.

    Args:
        root: of the runs.
        config: who is told.
    """

    def __init__(self, root: Root, config: hooks.HookConfig) -> None:
        self._root = root
        self._config = config
        self._outbox = outbox.of(root)
        self._own: set[str] = set()
        self._unwritten: list[hooks.Event] = []

    def draft(self, kind: hooks.Kind, by: str, reason: str) -> hooks.Event:
        """What is known of the event before the decision; its `at` and `by` are to stand in the decision's record."""
        return hooks.Event(
            kind=kind,
            at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
            root=str(self._root.path),
            run_id=None,
            spans=(),
            version=None,
            accuracy=None,
            reason=reason,
            seconds=0.0,
            by=by,
        )

    @contextlib.contextmanager
    def about(self, draft: hooks.Event) -> Iterator[None]:
        """Surrounds the decision. Its event is kept if the records say that it was made, whatever the block raises."""
        if not self._config.of(draft.kind):
            yield
            return
        with contextlib.ExitStack() as stack:
            path = None
            with contextlib.suppress(OSError):  # what cannot be kept is told at once, or never
                path = stack.enter_context(self._outbox.draft(draft))
            try:
                yield
            finally:
                made = event_of(self._root, draft)
                if made is not None:
                    self._keep(made)
                if path is not None:
                    path.unlink(missing_ok=True)

    def deliver(self) -> list[str]:
        """Runs the hooks for this decision and for what earlier calls left; a sentence for each that failed."""
        told = []
        try:
            keep_left(self._root)
        except (ValueError, OSError) as error:
            told.append(f"An earlier decision's event cannot be kept yet: {error}")
        told += [problem for event in self._unwritten for problem in hooks.deliver(event, self._config)]
        return told + self._outbox.deliver(self._config, self._own)

    def _keep(self, event: hooks.Event) -> None:
        try:
            self._outbox.put(event)
            self._own.add(event.id)
        except OSError:
            self._unwritten.append(event)


def keep_left(root: Root) -> None:
    """Keeps the events of decisions whose process was killed before it could; nothing of those that were not made.

    Raises:
        OSError: one cannot be written; its draft stays.
    """
    box = outbox.of(root)
    for path, draft in box.left_drafts():
        made = event_of(root, draft)
        if made is not None:
            box.put(made)
        path.unlink(missing_ok=True)


def event_of(root: Root, draft: hooks.Event) -> hooks.Event | None:
    """The event as the records of the root have the decision; None if it was not made.

    Raises:
        ValueError: the records of decisions on candidates are none.
    """
    made = None
    if draft.kind != "rollback":
        told = candidates.decisions(root.serving)
        made = next((one for one in told if (one.by, one.at) == (draft.by, draft.at)), None)
    if draft.kind == "rejected":
        return None if made is None else _completed(root, draft, made.run_id, made.accuracy)
    version = _version_of(root, draft, made.version if made else None)
    if version is None:
        return None
    if draft.kind == "rollback":
        why = f": {draft.reason}" if draft.reason else ""
        draft = dataclasses.replace(draft, reason=f"restored the model of version {version.origin}{why}")
    run_id = version.record.get("lineage", {}).get("run_id")
    return _completed(root, dataclasses.replace(draft, version=version.number), run_id, version.accuracy)


def _version_of(root: Root, draft: hooks.Event, number: int | None) -> "Version | None":
    """The version that came of a decision; a later one may repeat its lineage."""
    name = _IN_LINEAGE[draft.kind]
    for version in serving_folder.versions(root.serving):
        told = version.record.get("lineage", {}).get(name)
        if isinstance(told, dict) and (told.get("by"), told.get("at")) == (draft.by, draft.at):
            return version
        if version.number == number:
            return version
    return None


def _completed(root: Root, draft: hooks.Event, run_id: str | None, accuracy: float | None) -> hooks.Event:
    return dataclasses.replace(
        draft,
        run_id=run_id,
        accuracy=accuracy,
        spans=_spans(root, run_id),
        report=root.report_address(run_id),
    )


def _spans(root: Root, run_id: str | None) -> tuple[int, ...]:
    """What a run was trained on, as the ledger has it; none for a run outside retraining."""
    with contextlib.suppress(ValueError, OSError):
        for training in ledger.Ledger.load(root.ledger).trainings:
            if run_id is not None and training.run_id == run_id:
                return tuple(training.window)
    return ()
