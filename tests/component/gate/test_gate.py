"""The gate from TFMA's metrics to the verdict, on models whose right and wrong answers are chosen image by image."""

import dataclasses
import hashlib
import json
import pathlib
import types
from typing import Any

import numpy as np
import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data.dataset import DataSet
from components.data.features import LABEL_NAMES, content_hashes, image_figures
from components.gate import gate_metrics, gate_statistics, misses, model_card, quality_bands, robustness
from components.gate import verdict as verdicts
from pipeline import eval_config
from pipeline.config import PRESETS
from tests.component import gate_models

GATE = PRESETS["demo"].gate
UNLABELLED = DataSet("photos", "", (), 24, 40, unlabelled=True)
IMAGES = GATE.minimum_test_images  # 2,000
SERVED, NOISE, WORSE, RANDOM = 0, 1, 2, 3  # which byte a model reads
GAINED, LOST = (
    75,
    65,
)  # images on which another seed of the same recipe answers otherwise: 7%, half a point better
WORSE_GAINED, WORSE_LOST = 40, 100  # as many images, three points worse


def _answers(rng, labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    wrong = (labels + rng.integers(1, 10, len(labels))) % 10
    return np.where(right, labels, wrong)


def _changed(rng, right: np.ndarray, gained: int, lost: int) -> np.ndarray:
    """Other answers: so many wrong ones have become right, and so many right ones wrong."""
    changed = right.copy()
    changed[rng.permutation(np.flatnonzero(~right))[:gained]] = True
    changed[rng.permutation(np.flatnonzero(right))[:lost]] = False
    return changed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images in which four models' answers are written: the served one's, as good ones, worse ones, 20% right ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 10
    served = rng.random(IMAGES) < 0.9
    served[labels == 3] = np.arange(IMAGES // 10) < IMAGES // 20  # the cats are weak: half of them
    noise = _changed(rng, served, GAINED, LOST)
    worse = _changed(rng, served, WORSE_GAINED, WORSE_LOST)
    chance = rng.random(IMAGES) < 0.2
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3)) * rng.random((IMAGES, 1, 1, 1))
    images = images.astype(np.uint8).reshape(IMAGES, -1)
    for position, right in enumerate((served, noise, worse, chance)):
        images[:, position] = _answers(rng, labels, right)
        images[:, position + 10] = rng.integers(60, 250, IMAGES)
    images = images.reshape(-1, 32, 32, 3)
    root = tmp_path_factory.mktemp("gate")
    return types.SimpleNamespace(
        root=root,
        images=images,
        labels=labels,
        right=(served, noise, worse, chance),
        examples=gate_models.write_examples(root / "examples", images, labels),
        models=[
            gate_models.export(root / f"model-{position}", position, 100 + position) for position in range(4)
        ],
    )


def _evaluate(world, name, model, baseline, config):
    baseline_model = None if baseline is None else world.models[baseline]
    return gate_models.evaluate(
        world.root / name, world.examples, world.models[model], baseline_model, config
    )


@pytest.fixture(scope="module")
def first(world):
    """The first run: no baseline."""
    return _evaluate(world, "first", SERVED, None, eval_config.gate(GATE))


@pytest.fixture(scope="module")
def regressed(world):
    """The model that is worse by three points, against the served one."""
    return _evaluate(world, "regressed", WORSE, SERVED, eval_config.gate(GATE))


@pytest.fixture(scope="module")
def passing(world):
    """The model that is as good as the served one, against it; its cats are good enough here."""
    lenient = dataclasses.replace(GATE, class_floors=(0.4,) * 10)
    return _evaluate(world, "passing", NOISE, SERVED, eval_config.gate(lenient))


@pytest.fixture(scope="module")
def gain(world):
    """The same model against the one that guesses."""
    return _evaluate(world, "gain", NOISE, RANDOM, eval_config.gain(GATE))


def _probabilities(world, position: int) -> np.ndarray:
    """float64 [images, 10], as `gate_models.ByteModel` says them."""
    flat = world.images.reshape(IMAGES, -1)
    chosen = flat[:, position].astype(int)[:, None] % 10
    strength = flat[:, position + 10].astype(np.float64)[:, None] / 255
    distance = (np.arange(10) - chosen) % 10
    return (distance == 0) * strength + (1 - strength) * np.array(gate_models.SHARES)[distance]


def test_every_metric_equals_its_reference(world, first):
    probabilities = _probabilities(world, SERVED)
    rows = np.arange(IMAGES)
    evaluation = verdicts.Evaluation(first[0].uri)
    measured = evaluation.metrics[()]
    assert measured["example_count"] == IMAGES
    assert measured["sparse_categorical_accuracy"] == pytest.approx(world.right[SERVED].mean(), abs=1e-6)
    ranks = (probabilities > probabilities[rows, world.labels][:, None]).sum(1)
    assert measured["sparse_top_k_categorical_accuracy"] == pytest.approx((ranks < 5).mean(), abs=1e-6)
    assert (ranks == 0).mean() + 0.02 < (ranks < 5).mean() < 0.98
    crossentropy = -np.log(probabilities[rows, world.labels]).mean()
    assert measured["sparse_categorical_crossentropy"] == pytest.approx(crossentropy, rel=1e-4)
    confidence = probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    error = sum(
        (bins == b).mean() * abs(world.right[SERVED][bins == b].mean() - confidence[bins == b].mean())
        for b in np.unique(bins)
    )
    assert measured["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (world.labels, probabilities.argmax(1)), 1)
    assert evaluation.confusion_matrix == counts.tolist()


def test_slices_by_class_and_image_quality_hold_the_right_images(world, first):
    measured = verdicts.Evaluation(first[0].uri).metrics
    for label in range(10):
        here = world.labels == label
        assert measured[("label", label),]["sparse_categorical_accuracy"] == pytest.approx(
            world.right[SERVED][here].mean(), abs=1e-6
        )
    figures = image_figures(world.images)
    for band, (figure, _, _) in quality_bands.BANDS.items():
        bands = quality_bands.bands_of(band, figures[figure])
        for name in set(bands):
            found = measured[(band, name.decode()),]
            assert found["example_count"] == (bands == name).sum()
            expected = world.right[SERVED][bands == name].mean()
            assert found["sparse_categorical_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert {key[0][0] for key in measured if key} == {"label", *quality_bands.BANDS}


def test_a_weak_class_is_named_and_refuses_the_blessing_although_the_mean_is_good(first):
    evaluation, blessing = first
    assert blessing.get_int_custom_property("blessed") == 0
    missed = [c for c in verdicts.Evaluation(evaluation.uri).criteria("") if not c.passed]
    assert [(c.metric, c.slice, c.value) for c in missed] == [
        ("sparse_categorical_accuracy", "label=cat", 0.5)
    ]
    told = misses.misses([dataclasses.asdict(missed[0])])
    assert told[0].cells == ("accuracy", "cat", "60.00%", "50.00%", "10.00 points")


def test_without_a_baseline_no_change_is_asked_for(first):
    evaluation = verdicts.Evaluation(first[0].uri)
    assert not evaluation.has_baseline
    assert evaluation.comparison() == {"result": verdicts.FIRST}
    assert not [c for c in evaluation.criteria("") if "change" in c.metric]
    assert not [name for name in evaluation.metrics[()] if "change" in name]


def test_a_model_worse_by_three_points_is_refused_on_the_images_that_changed(world, regressed):
    evaluation, blessing = regressed
    assert blessing.get_int_custom_property("blessed") == 0
    read = verdicts.Evaluation(evaluation.uri)
    new, old = world.right[WORSE], world.right[SERVED]
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    lower, upper = gate_statistics.change_interval(gained, lost, IMAGES, GATE.confidence)
    found = read.comparison()
    assert found["result"] == verdicts.WORSE
    assert (found["images_gained"], found["images_lost"]) == (gained, lost) == (WORSE_GAINED, WORSE_LOST)
    assert found["interval"] == pytest.approx([lower, upper])
    assert found["change"] == pytest.approx(-0.03)
    assert found["mcnemar_p"] == pytest.approx(gate_statistics.mcnemar_p(gained, lost))
    (change,) = [c for c in read.criteria("the served model") if c.metric == gate_metrics.CHANGE_UPPER]
    assert not change.passed
    assert change.value == pytest.approx(upper)
    assert change.baseline == pytest.approx(old.mean(), abs=1e-6)
    assert "against the served model: accuracy" in change.remark
    (told,) = misses.misses([dataclasses.asdict(change)])
    assert told.cells[0] == "change against the served model, at best"
    assert told.cells[2:] == (
        "-0.50 points",
        f"{100 * upper:+.2f} points",
        f"{100 * (-0.005 - upper):.2f} points",
    )


def test_a_difference_by_noise_neither_blocks_nor_counts_as_better(world, passing):
    """As many images changed sides as in the model that is worse, but about as many either way."""
    evaluation, blessing = passing
    assert blessing.get_int_custom_property("blessed") == 1
    read = verdicts.Evaluation(evaluation.uri)
    found = read.comparison()
    assert (found["images_gained"], found["images_lost"]) == (GAINED, LOST)
    assert found["change"] == pytest.approx(0.005)
    assert found["result"] == verdicts.EQUAL
    (change,) = [c for c in read.criteria("the served model") if c.metric == gate_metrics.CHANGE_UPPER]
    _, upper = gate_statistics.change_interval(GAINED, LOST, IMAGES)
    assert change.value == pytest.approx(upper)
    assert change.passed


def test_what_another_seed_would_change_is_called_neither_better_nor_worse(regressed):
    read = verdicts.Evaluation(regressed[0].uri)
    upper = read.comparison()["interval"][1]
    assert read.comparison(seed_spread=-upper - 1e-6)["result"] == verdicts.WORSE
    assert read.comparison(seed_spread=-upper + 1e-6)["result"] == verdicts.EQUAL


def test_the_gain_over_the_untrained_encoder_is_judged_by_its_lower_bound(world, gain):
    evaluation, blessing = gain
    assert blessing.get_int_custom_property("blessed") == 1
    (criterion,) = verdicts.gain_criteria(verdicts.Evaluation(evaluation.uri))
    new, old = world.right[NOISE], world.right[RANDOM]
    lower, _ = gate_statistics.change_interval(int((new & ~old).sum()), int((old & ~new).sum()), IMAGES)
    assert criterion.value == pytest.approx(lower)
    assert criterion.passed
    assert criterion.baseline == pytest.approx(old.mean(), abs=1e-6)


def test_an_evaluation_without_the_untrained_encoder_is_a_missed_criterion(first):
    (criterion,) = verdicts.gain_criteria(verdicts.Evaluation(first[0].uri))
    assert not criterion.passed
    (told,) = misses.misses([dataclasses.asdict(criterion)])
    assert told.words == "gain: the untrained encoder was not evaluated"


@pytest.fixture
def judge(world, passing, gain, tmp_path):
    """Runs Verdict for the model that passes on evidence a test may exchange; returns blessing, record, artifact."""
    model = world.models[NOISE]
    about = {"current_model": model.uri, "current_model_id": model.id}
    kinds = standard_artifacts

    def run(accuracy=None, **evidence):
        corrupted = gate_models.artifact(kinds.ModelEvaluation, tmp_path / "corrupted", 30, **about)
        pathlib.Path(corrupted.uri).mkdir(exist_ok=True)
        report = {"accuracy": {"clean": 0.8, "noise": 0.7, "jpeg": 0.6, **(accuracy or {})}, "images": 500}
        (tmp_path / "corrupted" / robustness.REPORT_FILE).write_text(json.dumps({**report, "severity": 3}))
        blessing = gate_models.artifact(kinds.ModelBlessing, tmp_path / "blessing", 40)
        verdict = gate_models.artifact(kinds.ModelEvaluation, tmp_path / "verdict", 41)
        inputs = {
            "model": model,
            "evaluation": passing[0],
            "evaluation_blessing": passing[1],
            "gain": gain[0],
            "gain_blessing": gain[1],
            "corrupted": corrupted,
            "infra_blessing": gate_models.artifact(
                kinds.InfraBlessing, tmp_path / "infra", 31, blessed=1, **about
            ),
            **evidence,
        }
        verdicts.Verdict.test_call(
            **inputs,
            blessing=blessing,
            verdict=verdict,
            minimum_corrupted_accuracy=0.6,
            minimum_worst_corrupted_accuracy=0.5,
        )
        return blessing, json.loads((tmp_path / "verdict" / verdicts.JSON_FILE).read_text()), verdict

    return run


def test_a_model_that_meets_everything_is_blessed_by_name(world, judge, tmp_path):
    blessing, record, verdict = judge()
    assert record["reason"] == ""
    assert blessing.get_int_custom_property("blessed") == verdict.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("current_model") == world.models[NOISE].uri
    assert blessing.get_int_custom_property("current_model_id") == world.models[NOISE].id
    assert record["baseline_model"] == world.models[SERVED].uri
    asked = {(c["metric"], c["slice"]) for c in record["criteria"]}
    assert ("sparse_categorical_accuracy", verdicts.OVERALL) in asked
    assert {("sparse_categorical_accuracy", f"label={name}") for name in LABEL_NAMES} <= asked
    assert {
        (gate_metrics.CHANGE_UPPER, verdicts.OVERALL),
        (gate_metrics.CHANGE_LOWER, verdicts.OVERALL),
    } <= asked
    assert {
        ("accuracy_under_corruption", "noise of severity 3"),
        ("serving check", verdicts.OVERALL),
    } <= asked
    for criterion in record["criteria"]:
        assert criterion.keys() >= {"metric", "slice", "threshold", "value", "baseline", "passed"}
    assert json.loads(verdict.get_string_custom_property("criteria")) == record["criteria"]
    text = (tmp_path / "verdict" / verdicts.MARKDOWN_FILE).read_text()
    assert text.startswith("# Blessed")
    assert text.count("| met |") == len(record["criteria"])


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (
            {"jpeg": 0.49},
            "on mean of all corruptions: 59.50%, 0.50 points short of the 60.00% that was asked",
        ),
        (
            {"jpeg": 0.49, "noise": 0.9},
            "on jpeg of severity 3: 49.00%, 1.00 points short of the 50.00% that was asked",
        ),
    ],
)
def test_a_model_that_breaks_under_a_corruption_is_refused(judge, accuracy, words):
    blessing, record, verdict = judge(accuracy=accuracy)
    assert blessing.get_int_custom_property("blessed") == 0
    assert words in record["reason"]
    assert verdict.get_string_custom_property("reason") == record["reason"]


def test_a_regression_and_a_failed_serving_check_are_both_told(world, judge, tmp_path):
    infra = gate_models.artifact(
        standard_artifacts.InfraBlessing, tmp_path / "infra", 31, blessed=0, reason="NaN in batches/classify"
    )
    blessing, record, _ = judge(infra_blessing=infra)
    assert blessing.get_int_custom_property("blessed") == 0
    assert "serving check: NaN in batches/classify" in [m.words for m in misses.misses(record["criteria"])]


def test_the_accuracies_outlive_the_files_in_the_verdicts_properties(world, judge, tmp_path):
    _, record, verdict = judge()
    assert verdict.get_string_custom_property("comparison") == record["comparison"]["result"]
    for name, model in (("accuracy", NOISE), ("baseline_accuracy", SERVED)):
        expected = world.right[model].mean()
        assert verdict.get_float_custom_property(name) == pytest.approx(expected, abs=1e-6)


def test_without_a_baseline_there_is_no_baseline_accuracy(judge, first):
    _, _, verdict = judge(evaluation=first[0], evaluation_blessing=first[1])
    assert verdict.get_string_custom_property("comparison") == verdicts.FIRST
    assert verdict.has_custom_property("accuracy")
    assert not verdict.has_custom_property("baseline_accuracy")


def test_the_newest_span_is_judged_on_its_own_images(world, judge, tmp_path, first):
    """The evaluation with the weak cats stands for the newest span's; it is another model's, which is told as well."""
    model = world.models[NOISE]
    about = {"current_model": model.uri, "current_model_id": model.id}
    own = gate_models.artifact(standard_artifacts.ModelBlessing, tmp_path / "own", 33, blessed=0, **about)
    blessing, record, _ = judge(newest=first[0], newest_blessing=own)
    assert blessing.get_int_custom_property("blessed") == 0
    judged = path_utils.serving_model_path(world.models[SERVED].uri)
    assert record["reason"] == (
        f"2 of {len(record['criteria'])} criteria were missed, the first being accuracy on cat, the newest span's test "
        "images: 50.00%, 10.00 points short of the 60.00% that was asked"
    )
    about_another = f"TFMA judged the model at {judged}, not the one at {model.uri}"
    rows = [
        "| accuracy | cat, the newest span's test images | 60.00% | 50.00% | 10.00 points |",
        f"| evaluation, newest span |  |  | {about_another} |  |",
    ]
    newest = [c["slice"] for c in record["criteria"] if verdicts.NEWEST in c["slice"]]
    assert verdicts.NEWEST in newest
    assert set(newest) >= {f"label={name}, {verdicts.NEWEST}" for name in LABEL_NAMES}
    assert record["newest"]["metrics"]["example_count"] == IMAGES
    assert record["newest"]["comparison"] == {"result": verdicts.FIRST}
    text = (tmp_path / "verdict" / verdicts.MARKDOWN_FILE).read_text()
    right = int(world.right[SERVED].sum())
    low, high = gate_statistics.accuracy_interval(right, IMAGES)
    assert (
        f"On the newest span's test images alone: right on {right / IMAGES:.2%} of {IMAGES} (95% interval {low:.2%} to "
        f"{high:.2%}); against the served model: there is none yet."
    ) in text
    assert text.startswith(f"# Not blessed\n\n{record['reason']}.\n\n| what | on which pictures |")
    assert all(f"\n{row}\n" in text for row in rows)


def test_a_newest_span_of_another_model_or_half_told_is_refused(judge, regressed):
    blessing, record, _ = judge(newest=regressed[0], newest_blessing=regressed[1])
    assert blessing.get_int_custom_property("blessed") == 0
    assert "evidence, newest span" in [miss.what for miss in misses.misses(record["criteria"])]
    with pytest.raises(ValueError, match="received newest alone"):
        judge(newest=regressed[0])
    with pytest.raises(ValueError, match="received newest_blessing alone"):
        judge(newest_blessing=regressed[1])


@pytest.mark.parametrize(
    ("exchanged", "said"),
    [
        ({"gain_blessing": 1}, "evidence, gain over the untrained encoder: "),
        ({"evaluation_blessing": 1}, "evidence, evaluation: "),
        ({"evaluation": 0}, "evaluation, evaluation: TFMA judged the model at"),
        ({"gain": 0}, "evaluation, gain over the untrained encoder: TFMA judged the model at"),
    ],
)
def test_evidence_about_another_model_blesses_nothing(world, judge, regressed, exchanged, said):
    """A blessing for model A does not bless model B, whichever of the pieces is exchanged."""
    blessing, record, _ = judge(**{name: regressed[part] for name, part in exchanged.items()})
    assert blessing.get_int_custom_property("blessed") == 0
    (told,) = [miss.words for miss in misses.misses(record["criteria"]) if miss.words.startswith(said)]
    assert world.models[WORSE].uri in told


@pytest.mark.parametrize(("run", "problems"), [("run-1", 0), ("run-2", 1)])
def test_on_kubeflow_each_step_has_the_model_in_a_folder_of_its_own(tmp_path, run, problems):
    model = gate_models.artifact(
        standard_artifacts.Model, tmp_path / "pod-2/minio/bucket/run-1/LinearProbe/model"
    )
    path = tmp_path / f"pod-1/minio/bucket/{run}/LinearProbe/model/Format-Serving"
    judged: Any = types.SimpleNamespace(model_path=str(path))
    assert len(verdicts._judged_criteria(model, {"evaluation": judged})) == problems


def test_the_card_says_what_the_verdict_measured(world, judge, tmp_path):
    _, record, verdict = judge()
    card = gate_models.artifact(standard_artifacts.ModelEvaluation, tmp_path / "card", 50)
    settings = json.dumps(dataclasses.asdict(PRESETS["demo"]))
    fixed_images = np.random.default_rng(9).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    fixed = gate_models.write_examples(tmp_path / "fixed", fixed_images, np.arange(10))
    model_card.ModelCard.test_call(
        verdict=verdict,
        examples=[world.examples],
        test_examples=fixed,
        card=card,
        settings=settings,
        code_digest="0123abc",
    )
    assert card.get_string_custom_property("current_model") == world.models[NOISE].uri
    text = (tmp_path / "card" / "MODEL_CARD.md").read_text()
    page = (tmp_path / "card" / "MODEL_CARD.html").read_text()
    low, high = gate_statistics.accuracy_interval(int(world.right[NOISE].sum()), IMAGES)
    for words in (
        f"right on {world.right[NOISE].mean():.2%} of {IMAGES} (95% interval {low:.2%} to {high:.2%})",
        "Intended use",
        "Limits",
        "0123abc",
        "for 10 epochs of the training split",
        "label=cat",
        "brightness_band=dark",
        "Against the served model when this one was judged: no measurable difference",
        f"for {world.right[RANDOM].mean():.4f}",  # the control's accuracy
    ):
        assert words in text
        assert words in page
    splits = json.loads(card.get_string_custom_property("data"))
    for name, images, found in (
        ("span 7", world.images, splits["spans"][0]),
        ("fixed test set", fixed_images, splits["fixed_test"]),
    ):
        digest = hashlib.sha256(b"".join(sorted(content_hashes(images)))).hexdigest()
        assert f"| {name}, test | {len(images)} images, SHA-256 of their content hashes {digest} |" in text
        assert found["splits"] == {"test": {"rows": len(images), "sha256": digest}}
        assert found["span"] == 7
    low, high = gate_statistics.accuracy_interval(round(0.6 * 500), 500)
    assert f"| jpeg | 0.6000 | {low:.4f} to {high:.4f} |" in text
    assert "the signature <code>classify</code>" in page.lower()
    assert json.loads((tmp_path / "card" / verdicts.JSON_FILE).read_text()) == record


@pytest.mark.parametrize(("policy", "blessed"), [("refuse", 0), ("push", 1)])
def test_without_labels_nothing_is_judged_and_a_setting_decides(tmp_path, policy, blessed):
    kinds = standard_artifacts
    model = gate_models.artifact(kinds.Model, tmp_path / "model", 7)
    about = {"current_model": model.uri, "current_model_id": model.id}
    given = {
        "model": model,
        "infra_blessing": gate_models.artifact(
            kinds.InfraBlessing, tmp_path / "infra", 31, blessed=1, **about
        ),
        "blessing": gate_models.artifact(kinds.ModelBlessing, tmp_path / "blessing", 40),
        "verdict": gate_models.artifact(kinds.ModelEvaluation, tmp_path / "verdict", 41),
        "minimum_corrupted_accuracy": 0.6,
        "minimum_worst_corrupted_accuracy": 0.5,
        "without_labels": policy,
        "data_set": UNLABELLED.to_json(),
    }
    verdicts.Verdict.test_call(**given)
    record = json.loads((tmp_path / "verdict" / verdicts.JSON_FILE).read_text())
    assert given["blessing"].get_int_custom_property("blessed") == blessed
    assert not record["judged"]
    assert [c["metric"] for c in record["criteria"]] == [verdicts.LABELS, "serving check"]
    assert ("--set gate.without_labels=push" in record["reason"]) == (not blessed)
    assert not given["verdict"].has_custom_property(verdicts.ACCURACY_PROPERTY)
    assert "nothing was judged" in (tmp_path / "verdict" / verdicts.MARKDOWN_FILE).read_text()

    settings = json.loads(json.dumps(dataclasses.asdict(PRESETS["demo"])))
    sections = model_card.compose(record, settings, [], "0123abc", UNLABELLED)
    assert not {"Metrics", "Confusion", "Robustness"} & {section.title for section in sections}
    card = model_card.to_markdown(sections)
    assert "signatures `classify` and `evaluate`" in card
    assert ("The gate let it pass unjudged." in card) == bool(blessed)
    assert "| label names | none |" in card

    given["infra_blessing"].set_int_custom_property("blessed", 0)
    verdicts.Verdict.test_call(**given)
    assert given["blessing"].get_int_custom_property("blessed") == 0

    with pytest.raises(ValueError, match="Expected 5 inputs about 10 classes, received 0"):
        verdicts.Verdict.test_call(**{**given, "data_set": ""})


def test_a_card_of_a_thousand_odd_names_is_text_and_can_be_read():
    names = tuple(f"<b>{number}</b>|`x`" for number in range(1000))
    record = {
        "judged": True,
        "blessed": True,
        "metrics": {verdicts.ACCURACY: 0.5, verdicts.EXAMPLE_COUNT: 2000.0, "accuracy_interval": [0.4, 0.6]},
        "baseline_metrics": {},
        "comparison": {"result": verdicts.FIRST},
        "control": {"result": verdicts.FIRST},
        "newest": None,
        "slices": {},
        "confusion_matrix": [],
        "confusions": [{"true": names[1], "predicted": names[2], "images": 7}],
        "corrupted": {"accuracy": {"clean": 0.5}, "images": 20, "severity": 3},
        "criteria": [],
    }
    settings = json.loads(json.dumps(dataclasses.asdict(PRESETS["demo"])))
    many = DataSet("many `<i>`", "", names, 96, 96)
    sections = model_card.compose(record, settings, [], "0123abc", many)
    text, page = model_card.to_markdown(sections), model_card.to_html(sections)
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<b>" not in page
    assert "| &lt;b\\>1&lt;/b\\>\\|\\`x\\` | &lt;b\\>2&lt;/b\\>\\|\\`x\\` | 7 |" in text
    assert "and 900 more" in text
    assert len(page) < 40_000
