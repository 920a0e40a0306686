"""The model card: what the model is, what it was trained on, how good it is and what it is not for.

One set of sections is written twice, as Markdown and as HTML, with no template engine. It is pushed beside the model's
`saved_model.pb`; loaders and servers ignore it. Sections follow Mitchell et al., arXiv 1810.03993.
"""

import dataclasses
import html
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components.data import data_digest, dataset
from components.data.dataset import CIFAR10, DataSet
from components.gate import gate_statistics, markdown_table, robustness
from components.gate import verdict as verdicts
from components.serving.pusher import DATA_PROPERTY
from components.serving.serving_folder import CARD_HTML_FILE, CARD_MARKDOWN_FILE

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.55 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em}
h1{margin-bottom:.3em}h2{margin:2em 0 .4em;font-size:1.25em}
.table{overflow-x:auto}table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}
td,th{padding:.25em .8em;text-align:left;vertical-align:top;border-bottom:1px solid #8885}
th{border-bottom:2px solid #888a}tr.missed td{background:#e0404030}
td:first-child{white-space:nowrap}code{font-size:.95em}summary{cursor:pointer}
"""
_MISSED = "missed"
_NAMES = 100
_LONG = 60  # rows from which on a table is shown only when asked

INTENDED_USE = (
    "Embeddings of pictures like those of the data set ({pictures}): retrieval, clustering, and linear classifiers "
    "trained on them."
)
CLASSIFIER_USE = "The signature `classify` is the probe by which the encoder was measured, not a product."
NO_CLASSIFIER = (
    "It answers with embeddings alone: no picture of the data set has a label, so there is no classifier, and no "
    "signatures `classify` and `evaluate`."
)
DATA = (
    "Records in CIFAR-10's binary layout. A digest names the images of a split by content, in whatever files and order "
    "they lie."
)
MEASURED = (
    "Everything below was measured on the test split and on fixed corruptions of it; "
    "other data were not looked at."
)
NOT_MEASURED = (
    "Nothing was measured: whether the embeddings tell pictures apart is for whoever uses them to find out."
)
LIMITS = (
    "Images are cut around their centre and shrunk to {height}x{width} pixels: what is small or at the border is lost.",
    "What the training images leave out, the model has not seen. Not for decisions about people.",
)
CLASSIFIER_LIMITS = (
    "The classifier knows {classes} classes and answers with one of them whatever the image shows.",
    "Its probabilities are not calibrated for images of other kinds.",
)


@dataclasses.dataclass(frozen=True)
class Section:
    """One section of the card.

    Attributes:
        title: its heading.
        paragraphs: of plain text, before the table; `such` words are code.
        header, rows: of the table; none if the header is empty.
        folded: whether the HTML page shows the table only when asked.
    """

    title: str
    paragraphs: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    folded: bool = False


@component
def ModelCard(  # noqa: N802, PLR0913, PLR0917 - the name is the component's, and so are its inputs
    verdict: InputArtifact[standard_artifacts.ModelEvaluation],
    examples: InputArtifact[list[standard_artifacts.Examples]],
    card: OutputArtifact[standard_artifacts.ModelEvaluation],
    settings: Parameter[str],
    code_digest: Parameter[str],
    test_examples: InputArtifact[standard_artifacts.Examples] = None,  # type: ignore[assignment]
    data_set: Parameter[str] = "",
    source_digest: Parameter[str] = "",
) -> None:
    """Writes the card of the model that the verdict is about.

    Args:
        verdict: with `verdict.json`.
        examples: what the model was trained on, of one span or of several.
        card: gets `MODEL_CARD.md`, `MODEL_CARD.html` and a copy of `verdict.json`, and says which model it is about
            and, in the property `data` as JSON, what that was made from (`data_digest.of_model`).
        settings: the pipeline's settings as JSON.
        code_digest: of all source files.
        test_examples: the test set the model was judged on, where that is not the test split of its own span.
        data_set: what it was trained on, as `DataSet.to_json` writes it.
        source_digest: of this component's source files: part of the cache key, and nothing else.
    """
    del source_digest
    text = (pathlib.Path(verdict.uri) / verdicts.JSON_FILE).read_text(encoding="utf-8")
    data = data_digest.of_model(examples, test_examples)
    sections = compose(
        json.loads(text), json.loads(settings), data_facts(data), code_digest, dataset.from_json(data_set)
    )
    folder = pathlib.Path(card.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_MARKDOWN_FILE).write_text(to_markdown(sections), encoding="utf-8")
    (folder / CARD_HTML_FILE).write_text(to_html(sections), encoding="utf-8")
    (folder / verdicts.JSON_FILE).write_text(text, encoding="utf-8")
    card.set_string_custom_property(DATA_PROPERTY, json.dumps(data))
    for name in (robustness.CURRENT_MODEL_PROPERTY, robustness.CURRENT_MODEL_ID_PROPERTY):
        value = verdict.get_custom_property(name)
        if isinstance(value, str):
            card.set_string_custom_property(name, value)
        elif value is not None:
            card.set_int_custom_property(name, int(value))


def data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of what `data_digest.of_model` found; the test split of a span beside a fixed test set is named as such."""
    named = [(f"span {found['span']}", found) for found in data["spans"]]
    if data["fixed_test"]:
        named.append(("fixed test set", data["fixed_test"]))
    return [
        (f"{name}, {split}", f"{content['rows']} images, SHA-256 of their content hashes {content['sha256']}")
        for name, found in named
        for split, content in found["splits"].items()
    ]


def compose(
    verdict: Mapping[str, Any],
    settings: Mapping[str, Any],
    data: Sequence[tuple[str, str]],
    code_digest: str,
    data_set: DataSet = CIFAR10,
) -> list[Section]:
    """The card's sections.

    Args:
        verdict: `verdict.json`.
        settings: `PipelineConfig` as plain values.
        data: rows of what is known of the data.
        code_digest: of all source files.
        data_set: its names and sizes.
    """
    words = {
        "pictures": (data_set.pictures or data_set.name).replace("`", "'"),  # which would begin code
        "height": data_set.height,
        "width": data_set.width,
        "classes": data_set.classes,
    }
    described = [("data set", data_set.name), ("pictures", data_set.pictures)]
    described += [("label names", _names(data_set.label_names))]
    judged = data_set.classes > 0
    limits = (MEASURED, LIMITS[0], *CLASSIFIER_LIMITS, *LIMITS[1:]) if judged else (NOT_MEASURED, *LIMITS)
    use = [INTENDED_USE.format(**words), CLASSIFIER_USE if judged else NO_CLASSIFIER]
    measured = (
        [
            _metrics(verdict),
            _slices(verdict),
            _confusion(verdict, data_set.label_names),
            _corrupted(verdict),
        ]
        if judged
        else []
    )
    return [
        Section("Model card", [_summary(verdict, judged)]),
        Section("Intended use", [" ".join(use)]),
        Section("Limits", [limit.format(**words) for limit in limits]),
        Section("Data", [DATA], ("", "value"), [*described, *data]),
        Section("Method", [_method(settings, judged), f"Digest of the source code: {code_digest}."]),
        *measured,
        _criteria(verdict),
        Section(
            "Settings",
            ["Of pretraining, encoder and probe."],
            ("setting", "value"),
            _flat(_trained(settings)),
            folded=True,
        ),
    ]


def _names(names: Sequence[str]) -> str:
    """All of them, or the first of very many; `dataset.json` has them all."""
    if len(names) <= _NAMES:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} more"


def to_markdown(sections: Sequence[Section]) -> str:
    """The card as Markdown; the first section's title is the document's."""
    blocks = []
    for level, section in zip([1, *[2] * len(sections)], sections, strict=False):
        blocks.append(f"{'#' * level} {section.title}")
        blocks += [_markdown_text(paragraph) for paragraph in section.paragraphs]
        if section.header:
            blocks.append("\n".join(markdown_table.lines(section.header, section.rows)))
    return "\n\n".join(blocks) + "\n"


def to_html(sections: Sequence[Section]) -> str:
    """The card as one HTML page that loads nothing from elsewhere."""
    parts = []
    for level, section in zip([1, *[2] * len(sections)], sections, strict=False):
        parts.append(f"<h{level}>{html.escape(section.title)}</h{level}>")
        parts += [f"<p>{_html_text(paragraph)}</p>" for paragraph in section.paragraphs]
        if section.header:
            rows = "\n".join([_row("th", section.header), *(_row("td", row) for row in section.rows)])
            table = f'<div class="table"><table>\n{rows}\n</table></div>'
            shown = f"{len(section.rows)} rows"
            parts.append(f"<details><summary>{shown}</summary>{table}</details>" if section.folded else table)
    head = f'<meta charset="utf-8"><title>{html.escape(sections[0].title)}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _summary(verdict: Mapping[str, Any], judged: bool) -> str:
    passed = "let it pass unjudged" if verdict["blessed"] else "refused it"
    if not judged:
        return (
            "An image encoder that learnt without labels (BYOL), from pictures of which none has one, so nothing says "
            f"how good it is. The gate {passed}."
        )
    return (
        "An image encoder that learnt without labels (BYOL), with a linear classifier on its frozen features. Of all "
        f"test images that classifier is {verdicts.accuracy_sentence(verdict['metrics'])}. The gate "
        f"{'blessed' if verdict['blessed'] else 'refused'} it."
    )


def _method(settings: Mapping[str, Any], judged: bool) -> str:
    afterwards = (
        " Labels are used afterwards, for the linear probe on frozen features alone; its learning rate is chosen on "
        "held-out training images. The test split is read by the evaluation alone."
    )
    pretraining = settings["pretraining"]
    return (
        "BYOL (arXiv 2006.07733): an online network learns to predict a slowly moving average of itself on another "
        f"view of the same image, here for {pretraining['epochs']} epochs of the training split in batches of "
        f"{pretraining['batch_size']}, seed {pretraining['seed']}."
    ) + (afterwards if judged else "")


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("encoder", "pretraining", "probe")}


def _metrics(verdict: Mapping[str, Any]) -> Section:
    metrics = verdict["metrics"]
    rows = [
        (name, _text(value), _interval(name, value, metrics), _text(verdict["baseline_metrics"].get(name)))
        for name, value in metrics.items()
        if not name.endswith("_diff") and name != "accuracy_interval"
    ]
    served = verdicts.comparison_sentence(verdict["comparison"])
    control = verdicts.comparison_sentence(verdict["control"])
    words = [
        "Over every test image; intervals are Wilson's, 95%.",
        f"Against {verdicts.SERVED} when this one was judged: {served}.",
        f"Against the same classifier on an untrained encoder: {control}.",
    ]
    if verdict["newest"]:
        newest = verdicts.accuracy_sentence(verdict["newest"]["metrics"])
        words.append(f"On {verdicts.NEWEST} alone: {newest}.")
    return Section("Metrics", words, ("metric", "value", "95% interval", verdicts.SERVED), rows)


def _interval(name: str, value: float | None, metrics: Mapping[str, Any]) -> str:
    """The interval of a share of the test images; what is a mean over them has none here."""
    if value is None or not name.endswith("accuracy"):
        return ""
    count = metrics[verdicts.EXAMPLE_COUNT]
    return _text(gate_statistics.accuracy_interval(round(value * count), count))


def _slices(verdict: Mapping[str, Any]) -> Section:
    rows = [
        (
            name,
            _text(values[verdicts.EXAMPLE_COUNT]),
            _text(values[verdicts.ACCURACY]),
            _text(values["accuracy_interval"]),
        )
        for name, values in verdict["slices"].items()
    ]
    header = ("images", "number", "accuracy", "95% interval")
    return Section("By class and image quality", [], header, rows, folded=len(rows) > _LONG)


def _confusion(verdict: Mapping[str, Any], names: tuple[str, ...]) -> Section:
    if not verdict["confusion_matrix"]:
        confusions = verdict.get("confusions", [])
        words = f"The {len(confusions)} most frequent mistakes; of {len(names)} classes no table of all by all is made."
        found = [(one["true"], one["predicted"], str(one["images"])) for one in confusions]
        return Section("Confusion", [words], ("true class", "taken for", "images"), found)
    rows = [
        (name, *map(str, counts)) for name, counts in zip(names, verdict["confusion_matrix"], strict=False)
    ]
    return Section("Confusion", ["Rows are true classes, columns predicted ones."], ("", *names), rows)


def _corrupted(verdict: Mapping[str, Any]) -> Section:
    report = verdict["corrupted"]
    words = (
        f"Accuracy on {report['images']} test images under corruptions of severity {report['severity']} of 5."
    )
    rows = [
        (
            name,
            _text(value),
            _text(gate_statistics.accuracy_interval(round(value * report["images"]), report["images"])),
        )
        for name, value in report["accuracy"].items()
    ]
    return Section("Robustness", [words], ("corruption", "accuracy", "95% interval"), rows)


def _criteria(verdict: Mapping[str, Any]) -> Section:
    rows = [
        (
            c["metric"],
            c["slice"],
            *(_text(c[key]) for key in ("threshold", "value", "baseline")),
            "met" if c["passed"] else _MISSED,
        )
        for c in verdict["criteria"]
    ]
    words = (
        "What was asked. The baseline of a change is the other model's accuracy; that of a corruption, the accuracy on "
        "the same images as they are."
    )
    return Section(
        "Gate", [words], ("metric", "images", "threshold", "value", "baseline", ""), rows, len(rows) > _LONG
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        rows += _flat(value, f"{prefix}{name}.") if nested else [(prefix + name, str(value))]
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " to ".join(_text(part) for part in value)
    return f"{value:.4f}".removesuffix(".0000") if isinstance(value, float) else str(value)


def _markdown_text(text: str) -> str:
    """A paragraph, with `such` words as code and everything else as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else markdown_table.escaped(part) for part in parts)


def _html_text(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _row(tag: str, cells: Sequence[str]) -> str:
    start = '<tr class="missed">' if cells[-1] == _MISSED else "<tr>"
    return start + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
