"""How a run on this machine looks at earlier ones: TFX's resolvers, by spans and ids that were decided before it.

TFX's own strategies take the latest of something. What is trained on and compared with depends on the serving folder
and on which spans were refused, which they do not know (docs/decisions/0061-what-a-run-takes-from-earlier-ones.md).
"""

import dataclasses
from collections.abc import Sequence

import ml_metadata as mlmd
from tfx import types
from tfx.components.example_gen.utils import SPAN_PROPERTY_NAME
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.dsl.input_resolution.strategies.span_range_strategy import SpanRangeStrategy
from tfx.proto import range_config_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from components.data.example_gen import Cifar10ExampleGen
from pipeline import pipeline

Artifacts = dict[str, list[types.Artifact]]


class NewestOfSpans(ResolverStrategy):
    """Resolves to the newest Examples of each of some spans, in their order.

    Args:
        spans: numbers of the spans.
    """

    def __init__(self, spans: Sequence[int]) -> None:
        self._spans = tuple(spans)

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Returns one artifact a span for each input.

        Raises:
            ValueError: the store lacks the Examples of a span.
        """
        return {key: self._newest(artifacts) for key, artifacts in input_dict.items()}

    def _newest(self, artifacts: list[types.Artifact]) -> list[types.Artifact]:
        newest: dict[int, types.Artifact] = {}
        for artifact in sorted(artifacts, key=lambda a: a.id):
            newest[artifact.get_int_custom_property(SPAN_PROPERTY_NAME)] = artifact
        missing = [span for span in self._spans if span not in newest]
        if missing:
            raise ValueError(
                f"The metadata store has no Examples of span {', '.join(map(str, missing))}, expected those of "
                f"{', '.join(map(str, self._spans))}. Were they pruned? `byol run --span N` reads a span again."
            )
        return [newest[span] for span in self._spans]


class WithIds(ResolverStrategy):
    """Resolves to the artifacts with some ids; to nothing for none.

    Args:
        ids: of the metadata store.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = frozenset(ids)

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Returns those of each input that were asked for.

        Raises:
            ValueError: the store lacks one of them.
        """
        found = {key: [a for a in artifacts if a.id in self._ids] for key, artifacts in input_dict.items()}
        missing = self._ids - {artifact.id for artifacts in found.values() for artifact in artifacts}
        if missing:
            raise ValueError(
                f"The metadata store has no live artifact {', '.join(map(str, sorted(missing)))}. It was removed from "
                "the store or its files were pruned; start with a new --root, or serve a version that this root made."
            )
        return found


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What a run takes from earlier ones.

    Attributes:
        served_model: id of the LinearProbe's Model that is served; None when nothing is.
        spans: what this run's span is compared with, itself left out; None for every span of a lower number.
        window: spans that are trained on, this run's included; empty for this run's alone.
        warm_start: id of the Pretrainer's Model to start from; None for random weights.
    """

    served_model: int | None = None
    spans: tuple[int, ...] | None = None
    window: tuple[int, ...] = ()
    warm_start: int | None = None


def bindings(earlier: Earlier) -> pipeline.Bindings:
    """What `create_pipeline` needs in order to look at earlier runs on this machine."""

    def spans_so_far(example_gen: Cifar10ExampleGen, locations: pipeline.Locations) -> BaseNode:
        return _spans_so_far(example_gen, _number(locations), earlier.spans)

    def window(example_gen: Cifar10ExampleGen, _: pipeline.Locations) -> BaseNode:
        return _examples(example_gen, NewestOfSpans, {"spans": list(earlier.window)}, pipeline.WINDOW)

    def served_model(_: pipeline.Locations) -> BaseNode:
        return _model(earlier.served_model, pipeline.LINEAR_PROBE, pipeline.SERVED_MODEL)

    def warm_start(_: pipeline.Locations) -> BaseNode:
        return _model(earlier.warm_start, pipeline.PRETRAINER, pipeline.WARM_START)

    return pipeline.Bindings(
        spans_so_far=spans_so_far,
        served_model=served_model,
        window=window if earlier.window else None,
        warm_start=warm_start if earlier.warm_start is not None else None,
    )


def _number(locations: pipeline.Locations) -> int:
    if locations.span == "latest":
        raise ValueError("TFX's resolver needs the number of the span; received 'latest'. Look it up first.")
    return locations.span or 0


def _spans_so_far(example_gen: Cifar10ExampleGen, span: int, spans: tuple[int, ...] | None) -> Resolver:
    """This run's span and others, never nothing: TFX skips what depends on an empty resolver, silently."""
    if spans is not None:
        chosen = sorted({*spans, span})
        return _examples(example_gen, NewestOfSpans, {"spans": chosen}, pipeline.SPANS_SO_FAR)
    every = range_config_pb2.RangeConfig(
        static_range=range_config_pb2.StaticRange(start_span_number=0, end_span_number=span)
    )
    strategy = SpanRangeStrategy
    return _examples(example_gen, strategy, {"range_config": every}, pipeline.SPANS_SO_FAR)


def _examples(
    example_gen: Cifar10ExampleGen,
    strategy: type[ResolverStrategy],
    config: dict[str, object],
    name: str,
) -> Resolver:
    """Examples of several spans in the store, once this run's are there, whatever order they came in."""
    resolver = Resolver(
        strategy_class=strategy,
        config=config,
        examples=Channel(type=standard_artifacts.Examples, producer_component_id=example_gen.id),
    ).with_id(name)
    resolver.add_upstream_node(example_gen)
    return resolver


def _model(identity: int | None, producer: str, name: str) -> Resolver:
    return Resolver(
        strategy_class=WithIds,
        config={"ids": [] if identity is None else [identity]},
        model=Channel(type=standard_artifacts.Model, producer_component_id=producer),
    ).with_id(name)
