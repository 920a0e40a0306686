"""A blessed model that waits for a person: held, replaced, approved, rejected, overtaken. No TensorFlow."""

import json

import pytest

from components.serving import candidates, serving_folder


@pytest.fixture
def model(tmp_path):
    def make(content):
        folder = tmp_path / f"model-{content}"
        (folder / "variables").mkdir(parents=True, exist_ok=True)
        (folder / "saved_model.pb").write_text(content)
        (folder / "variables" / "data").write_text(content * 3)
        (folder.parent / "card").mkdir(exist_ok=True)
        (folder.parent / "card" / serving_folder.CARD_MARKDOWN_FILE).write_text("card")
        return folder

    return make


@pytest.fixture
def serving(tmp_path):
    return tmp_path / "serving"


def served(serving):
    version = serving_folder.served(serving)
    assert version is not None
    return version


def waiting(serving):
    candidate = candidates.waiting(serving)
    assert candidate is not None
    return candidate


def hold(serving, folder, replaces="", **lineage):
    return candidates.hold(
        folder, serving, {"metrics": {"sparse_categorical_accuracy": 0.75}, **lineage},
        documents=folder.parent / "card", replaces=replaces,
    )  # fmt: skip


def test_a_candidate_is_no_version_until_it_is_approved_and_then_says_by_whom_and_why(model, serving):
    held = hold(serving, model("A"), run_id="run-1")
    assert serving_folder.versions(serving) == []
    assert (held.run_id, held.accuracy) == ("run-1", 0.75)
    version = candidates.approve(serving, "ada", "looks right", held.name)
    now = served(serving)
    assert (now.number, now.digest) == (version.version, held.record["digest"])
    assert (now.path / serving_folder.CARD_MARKDOWN_FILE).read_text() == "card"
    assert not (now.path / "candidate.json").exists()
    approval = now.record["lineage"]["approval"]
    assert (approval["by"], approval["reason"]) == ("ada", "looks right")
    assert candidates.waiting(serving) is None
    (decision,) = candidates.decisions(serving)
    assert (decision.decision, decision.by, decision.version) == ("approved", "ada", version.version)
    with pytest.raises(ValueError, match="No candidate waits"):
        candidates.approve(serving, "ada")


def test_a_newer_candidate_replaces_the_one_that_waits(model, serving):
    first, second = hold(serving, model("A")), hold(serving, model("B"))
    assert candidates.waiting(serving) == second
    assert not first.path.exists()
    assert [(one.name, one.decision) for one in candidates.decisions(serving)] == [(first.name, "replaced")]
    with pytest.raises(ValueError, match=f"the candidate that waits, {second.name}, received {first.name}"):
        candidates.approve(serving, "ada", name=first.name)


def test_a_rejected_model_is_not_held_again(model, serving):
    hold(serving, model("A"))
    with pytest.raises(ValueError, match="Expected a reason"):
        candidates.reject(serving, "ada", " ")
    candidates.reject(serving, "ada", "cats look wrong")
    with pytest.raises(
        candidates.RejectedModelError, match=r"ada rejected this model on .*: cats look wrong"
    ):
        hold(serving, model("A"))
    hold(serving, model("B"))


def test_a_retry_holds_the_same_model_once(model, serving):
    assert hold(serving, model("A")) == hold(serving, model("A"))
    assert candidates.decisions(serving) == []


def test_what_was_served_when_it_was_compared_has_to_be_served_still(model, serving):
    for name in "AB":
        serving_folder.publish(model(name), serving)
    now = served(serving)
    held = hold(serving, model("C"), replaces=now.digest)
    serving_folder.rollback(serving, told={"by": "ada", "reason": "B is worse"})
    assert served(serving).record["lineage"]["rollback"]["reason"] == "B is worse"
    with pytest.raises(serving_folder.OvertakenError, match="a rollback"):
        candidates.approve(serving, "ada")
    assert candidates.waiting(serving) == held
    with pytest.raises(serving_folder.OvertakenError):
        hold(serving, model("D"), replaces=now.digest)


def test_a_candidate_whose_files_changed_is_not_pushed(model, serving):
    held = hold(serving, model("A"))
    (held.path / "model" / "saved_model.pb").write_text("changed")
    with pytest.raises(ValueError, match="not the one that was judged"):
        candidates.approve(serving, "ada")
    assert serving_folder.versions(serving) == []


def test_what_a_killed_replacement_left_is_replaced(model, serving, monkeypatch):
    first = hold(serving, model("A"))
    with monkeypatch.context() as killed:
        killed.setattr(candidates, "_decide", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            hold(serving, model("B"))
    assert waiting(serving).path != first.path
    candidates.approve(serving, "ada")
    assert candidates.waiting(serving) is None


def test_a_record_that_is_none_is_named(model, serving):
    held = hold(serving, model("A"))
    (held.path / "candidate.json").write_text(json.dumps({"lineage": {}}))
    with pytest.raises(ValueError, match=r"Remove .*; the next training makes a candidate again"):
        candidates.waiting(serving)
