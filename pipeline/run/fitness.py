"""Whether records fit what is asked of them and what is served: known from files alone, before anything is trained."""

import pathlib

from components.data.cifar10 import RecordFolder
from components.data.dataset import DataSet
from components.serving import serving_folder
from pipeline.config import PipelineConfig

_SHOWN_NAMES = 10


def check_records(found: RecordFolder, config: PipelineConfig) -> None:
    """Checks the counts that a preset needs.

    Raises:
        ValueError: too few test images, a class that no training image shows, floors of other classes, or a training
            that would end before its warm-up.
    """
    if found.data_set.classes:
        _check_labels(found, config)
    config.pretraining.total_steps(found.train_records)


def _check_labels(found: RecordFolder, config: PipelineConfig) -> None:
    """What needs labels: the gate's test images and floors, and the probe's training images."""
    if found.test_unlabelled:
        raise ValueError(
            f"{found.path} has test images without a label, {found.test_unlabelled} of {found.test_records}; the gate "
            "judges by labels. Label them, or make a data set without any label."
        )
    if found.test_records < config.gate.minimum_test_images:
        raise ValueError(
            f"The gate needs {config.gate.minimum_test_images} test images; {found.path} has "
            f"{found.test_records}. Give the whole test split, or lower gate.minimum_test_images."
        )
    config.gate.floors(found.data_set.label_names)
    check_each_class_is_shown(found.data_set, found.train_label_counts, str(found.path))


def check_each_class_is_shown(data_set: DataSet, counts: tuple[int, ...], where: str) -> None:
    """Checks that the probe will find a labelled training image of each class: it is fitted hours later.

    Args:
        data_set: whose classes.
        counts: labelled training images of each class.
        where: they lie, in words.

    Raises:
        ValueError: there is a class without any.
    """
    missing = [name for name, count in zip(data_set.label_names, counts, strict=True) if not count]
    if missing:
        more = f" and {len(missing) - _SHOWN_NAMES} more" if len(missing) > _SHOWN_NAMES else ""
        raise ValueError(
            f"{where} has no labelled training image of {', '.join(missing[:_SHOWN_NAMES])}{more}; the probe needs "
            f"some of each of {data_set.classes} classes. Label some, or leave the class out of the data set."
        )


def check_served(data_set: DataSet, serving: pathlib.Path) -> None:
    """Checks that what is served in a folder is a baseline for models of a data set.

    Whoever reads from the folder counts on its classes and on the size of its pictures, so another data set's model is
    not pushed over it, nor trained in vain.

    Args:
        data_set: what would be trained on.
        serving: the folder that TensorFlow Serving watches.

    Raises:
        ValueError: what is served has other classes or another size.
    """
    served = serving_folder.served(serving)
    trained_on = None if served is None else served.data_set
    if served is None or trained_on is None:
        return
    if not trained_on.fits(data_set):
        raise ValueError(
            f"{serving} serves version {served.number} of {described(trained_on)}; received {described(data_set)}: its "
            "model can neither be compared with that one nor take its place. Take a new --root for another data set."
        )


def check_test_set(data_set: DataSet, tested_on: DataSet) -> None:
    """Checks that models of a span's data set can be judged on the fixed test set.

    Raises:
        ValueError: they have other classes or another size.
    """
    if not data_set.fits(tested_on):
        raise ValueError(
            f"The span holds {described(data_set)}, the fixed test set {described(tested_on)}; expected the same "
            "classes in the same order, and the same size. Import the span into the folder of the others "
            "(`byol data import SOURCE DIR --span N`), which keeps both."
        )


def described(data_set: DataSet) -> str:
    """Its name, classes and size in words."""
    first = f", {data_set.label_names[0]!r} first" if data_set.label_names else ""
    return f"{data_set.name} ({data_set.in_words}{first})"
