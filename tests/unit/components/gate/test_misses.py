"""What a refusal says: one sentence, and a table whose numbers are those of the verdict."""

import io
import json

import pytest
from rich.console import Console

from components.gate import misses
from pipeline import refusal
from pipeline.root import Root


def criterion(metric, threshold, value, pictures="all test images", passed=False, remark=""):
    return {
        "metric": metric, "slice": pictures, "threshold": threshold, "value": value, "baseline": None,
        "passed": passed, "kind": "floor", "remark": remark,
    }  # fmt: skip


CRITERIA = [
    criterion("sparse_categorical_accuracy", 0.8, 0.283),
    criterion("sparse_categorical_accuracy", 0.1, 0.9, "label=cat", passed=True),
    criterion("accuracy_under_corruption", 0.5, 0.49, "jpeg of severity 3"),
    criterion("paired_accuracy_change_upper", -0.005, -0.0249),
    criterion("paired_accuracy_change_lower", 0.05, 0.012),
    criterion("example_count", 10000.0, 9999.0),
    criterion("serving check", None, None, remark="NaN in batches/classify"),
]
TABLE = [
    ("accuracy", "all test images", "80.00%", "28.30%", "51.70 points"),
    ("accuracy when corrupted", "jpeg of severity 3", "50.00%", "49.00%", "1.00 points"),
    (
        "change against the served model, at best",
        "all test images",
        "-0.50 points",
        "-2.49 points",
        "1.99 points",
    ),
    (
        "gain over an untrained encoder, at least",
        "all test images",
        "+5.00 points",
        "+1.20 points",
        "3.80 points",
    ),
    ("number of pictures", "all test images", "10,000", "9,999", "1"),
    ("serving check", "", "", "NaN in batches/classify", ""),
]


def test_the_table_has_a_row_for_each_miss_and_none_for_what_was_met():
    assert [miss.cells for miss in misses.misses(CRITERIA)] == TABLE


def test_the_sentence_counts_and_names_the_first():
    assert misses.sentence(CRITERIA) == (
        "6 of 7 criteria were missed, the first being accuracy on all test images: 28.30%, 51.70 points short of the "
        "80.00% that was asked"
    )
    assert misses.sentence(CRITERIA[1:2]) == ""
    assert (
        misses.sentence(CRITERIA[-1:]) == "1 of 1 criteria was missed, serving check: NaN in batches/classify"
    )


def test_a_miss_by_a_hair_is_not_called_no_miss():
    (miss,) = misses.misses([criterion("sparse_categorical_accuracy", 0.8, 0.79999)])
    assert miss.cells[2:] == ("80.00%", "80.00%", "under 0.01 points")


def test_what_was_not_measured_says_so():
    (miss,) = misses.misses([criterion("sparse_categorical_accuracy", 0.8, None, "label=cat")])
    assert miss.cells == ("accuracy", "cat", "80.00%", "not measured", "")


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_broken_on_a_terminal(width):
    file = io.StringIO()
    refusal.tell(misses.misses(CRITERIA), Console(file=file, width=width))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for row in TABLE[:-1]:
        assert any(all(cell in line for cell in row[2:]) for line in lines), row
    assert lines[-1] == "serving check: NaN in batches/classify"


def test_a_summary_gives_the_misses_back(tmp_path):
    root = Root(tmp_path)
    path = root.summary("run-1")
    path.parent.mkdir(parents=True)
    missed = misses.misses(CRITERIA)
    path.write_text(json.dumps({"missed": [vars(miss) for miss in missed]}))
    assert refusal.recorded(root, "run-1") == tuple(missed)
    assert refusal.recorded(root, "run-2") == refusal.recorded(root, None) == ()


ODD = "[bold]|`<script>alert(1)</script>`"


def test_a_class_of_any_name_is_printed_as_it_is():
    missed = misses.misses([criterion("sparse_categorical_accuracy", 0.5, 0.25, f"label={ODD}")])
    file = io.StringIO()
    refusal.tell(missed, Console(file=file, width=120))
    assert ODD in file.getvalue()
    (_, _, row) = misses.markdown(missed)
    assert "<script>" not in row
    assert row.count("|") - row.count("\\|") == 6
    assert "\\[bold\\]\\|\\`&lt;script\\>alert(1)&lt;/script\\>\\`" in row


def test_of_many_misses_the_first_are_shown():
    missed = misses.misses(
        [criterion("sparse_categorical_accuracy", 0.5, 0.25, f"label=class {n:03d}") for n in range(100)]
    )
    file = io.StringIO()
    refusal.tell(missed, Console(file=file, width=120))
    assert file.getvalue().count("class ") == misses.SHOWN
    assert f"And {100 - misses.SHOWN} more" in file.getvalue()
