"""The one line that a person gets when a node fails."""

import errno

from components.data.anomaly_gate import DataAnomalyError
from pipeline.console import cause
from pipeline.run.local_runner import objects


def _raised(error: Exception, context: Exception) -> Exception:
    """`error` as Python leaves it when it was raised from `context`."""
    error.__cause__ = context
    return error


def test_the_innermost_reason_is_told():
    error = _raised(RuntimeError("stage 3 failed"), ValueError("data_batch_1.bin: record 7 has label 200"))
    assert cause(error) == "data_batch_1.bin: record 7 has label 200"


def test_beams_remarks_and_stacks_are_dropped():
    told = """Traceback (most recent call last):
  File "worker.py", line 1, in process
ValueError: data_batch_1.bin is truncated [while running 'InputToRecord/ReadRanges']
[while running 'WriteSplit[train]/Write']
"""
    assert cause(RuntimeError(told)) == "ValueError: data_batch_1.bin is truncated"


def test_a_full_disk_keeps_its_words():
    assert "No space left on device" in cause(OSError(errno.ENOSPC, "No space left on device"))


def test_an_error_without_words_is_named():
    assert cause(KeyError()) == "KeyError"


def test_only_an_objection_of_a_gate_is_one_and_not_what_broke_a_gate_down():
    finding = DataAnomalyError("span 7, split train: 30% of the pictures are darker")
    assert objects(finding)
    assert objects(_raised(RuntimeError("stage 3 failed"), finding))
    assert not objects(ValueError("The served model knows 10 classes, shapes has 3"))
    assert not objects(_raised(RuntimeError("stage 3 failed"), OSError(errno.ENOSPC, "No space left")))
