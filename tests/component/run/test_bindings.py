"""What a run takes from earlier ones is what was decided, or nothing at all."""

import pytest
from tfx.types import standard_artifacts

from pipeline.run import bindings
from tests.component import gate_models


def _examples(identifier, span):
    return gate_models.artifact(standard_artifacts.Examples, f"examples/{identifier}", identifier, span=span)


def test_spans_resolve_to_their_newest_examples_in_order():
    stored = [_examples(1, 3), _examples(4, 2), _examples(2, 2), _examples(3, 9)]
    found = bindings.NewestOfSpans([2, 3]).resolve_artifacts(None, {"examples": stored})
    assert [artifact.id for artifact in found["examples"]] == [4, 1]


def test_a_span_that_the_store_lacks_is_named():
    with pytest.raises(ValueError, match=r"no Examples of span 7, 8, expected those of 3, 7, 8"):
        bindings.NewestOfSpans([3, 7, 8]).resolve_artifacts(None, {"examples": [_examples(1, 3)]})


def test_ids_resolve_to_those_artifacts_and_none_to_nothing():
    stored = [_examples(1, 0), _examples(2, 0)]
    assert [a.id for a in bindings.WithIds([2]).resolve_artifacts(None, {"model": stored})["model"]] == [2]
    assert bindings.WithIds([]).resolve_artifacts(None, {"model": stored}) == {"model": []}


def test_an_id_that_is_not_live_is_named():
    with pytest.raises(ValueError, match="no live artifact 5"):
        bindings.WithIds([5]).resolve_artifacts(None, {"model": [_examples(1, 0)]})
