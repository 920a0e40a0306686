"""Plants each failure mode of BYOL in a copy of the source, and sees that the tests meant for it fail.

    .venv/bin/python -m tests.unit.trainer.planted_faults [WORD]      all, or the faults with WORD in their name

prints a line a fault, and ends with status 1 when a named test passes all the same.
docs/decisions/0033-failure-modes.md has the table. It takes minutes, so it is no part of the test suite. Each fault has
a process of its own, forked after Keras is imported and before the backend computes anything, so that none pays for the
import.
"""

import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
from xml.etree import ElementTree

import keras  # noqa: F401, imported once for all children
import pytest

ROOT = pathlib.Path(__file__).parents[3]
FOLDERS = ("benchmarks", "components", "kubeflow", "pipeline", "tests", "trainer")
UNIT = "tests/unit/trainer/"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One way to be wrong.

    Attributes:
        name: the failure mode, as the table has it.
        file, right, wrong: `wrong` replaces `right`, which must be in the file exactly once.
        tests: "file::test"; each must fail, in one of its cases at least.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "collapse to a point goes unnoticed",
        "trainer/byol/monitors.py",
        "if spread < COLLAPSE_SHARE:",
        "if values['loss'] < COLLAPSE_SHARE:",
        (
            UNIT + "test_pretraining.py::test_a_collapsed_training_stops_after_its_first_epoch",
            UNIT + "test_monitors.py::test_projections_in_a_point_are_named_a_collapse_with_advice",
            UNIT + "test_monitors.py::test_good_values_and_missing_monitors_pass",
        ),
    ),
    Fault(
        "dimensional collapse goes unnoticed",
        "trainer/byol/monitors.py",
        "if rank < COLLAPSE_RANK:",
        "if rank < 0:",
        (UNIT + "test_monitors.py::test_two_opposite_clusters_have_spread_but_rank_one",),
    ),
    Fault(
        "a view is paired with itself",
        "trainer/byol/losses.py",
        "regression_loss(prediction_1, target_2) + regression_loss(prediction_2, target_1)",
        "regression_loss(prediction_1, target_1) + regression_loss(prediction_2, target_2)",
        (
            UNIT + "test_losses.py::test_each_prediction_is_compared_with_the_other_views_target",
            UNIT + "test_byol.py::test_the_loss_of_a_step_is_the_sum_of_both_terms_over_two_different_views",
        ),
    ),
    Fault(
        "both views are drawn alike",
        "trainer/byol/byol.py",
        "        view_1, view_2 = (\n            augmentations.make_view(images, self._draw(images), config)",
        "        draws = self._draw(images)\n        view_1, view_2 = (\n"
        "            augmentations.make_view(images, draws, config)",
        (UNIT + "test_byol.py::test_the_two_views_and_the_images_of_a_batch_are_drawn_apart",),
    ),
    Fault(
        "the optimizer trains the target",
        "trainer/byol/byol.py",
        "        variable.trainable = False\n",
        "        pass\n",
        (
            UNIT + "test_byol.py::test_the_optimizer_sees_the_online_network_and_nothing_of_the_target",
            UNIT + "test_optimizer.py::test_weight_decay_is_meant_for_kernels_only",
        ),
    ),
    Fault(
        "a gradient goes into the target",
        "trainer/byol/byol.py",
        "ops.stop_gradient(self.target_projector(representation, training=training))",
        "self.target_projector(representation, training=training)",
        (UNIT + "test_byol.py::test_no_gradient_goes_through_the_target",),
    ),
    Fault(
        "the average is the wrong way round",
        "trainer/byol/byol.py",
        "tau * target + (1.0 - tau) * online",
        "tau * online + (1.0 - tau) * target",
        (
            UNIT + "test_byol.py::test_the_ema_is_exact",
            UNIT + "test_byol.py::test_tau_follows_the_steps_of_the_whole_training",
        ),
    ),
    Fault(
        "the schedules' horizon is one epoch",
        "trainer/byol/pretraining.py",
        "    steps = config.total_steps(len(data))\n",
        "    steps = len(data) // config.batch_size\n",
        (
            UNIT + "test_byol.py::test_tau_follows_the_steps_of_the_whole_training",
            UNIT + "test_pretraining.py::test_the_history_has_the_schedules_of_each_epochs_last_step",
        ),
    ),
    Fault(
        "a resume starts the schedules anew",
        "trainer/byol/checkpoint.py",
        "    return [*model.variables, *model.optimizer.variables]\n",
        "    return [*model.variables, *model.optimizer.variables[1:]]\n",
        (
            UNIT + "test_pretraining.py::test_a_resumed_training_ends_in_the_same_bits",
            UNIT
            + "test_pretraining.py::test_everything_is_in_a_checkpoint_random_state_and_optimizer_included",
        ),
    ),
    Fault(
        "the mean of both terms for their sum",
        "trainer/byol/losses.py",
        "    return regression_loss(prediction_1, target_2) + regression_loss(prediction_2, target_1)",
        "    return (regression_loss(prediction_1, target_2) + regression_loss(prediction_2, target_1)) / 2",
        (
            UNIT + "test_losses.py::test_the_loss_is_the_sum_of_both_terms_by_the_reference",
            UNIT + "test_byol.py::test_the_loss_of_a_step_is_the_sum_of_both_terms_over_two_different_views",
        ),
    ),
    Fault(
        "weight decay does nothing",
        "trainer/byol/optimizer.py",
        "momentum=MOMENTUM, weight_decay=settings.weight_decay)",
        "momentum=MOMENTUM)",
        (
            UNIT + "test_optimizer.py::test_weight_decay_reaches_just_those_variables",
            UNIT + "test_optimizer.py::test_decoupled_decay_shrinks_by_rate_times_decay",
        ),
    ),
    Fault(
        "weight decay reaches biases and norms",
        "trainer/byol/optimizer.py",
        "if len(v.shape) > 1]",
        "if len(v.shape) > 0]",
        (
            UNIT + "test_optimizer.py::test_weight_decay_is_meant_for_kernels_only",
            UNIT + "test_optimizer.py::test_weight_decay_reaches_just_those_variables",
        ),
    ),
    Fault(
        "representations depend on the batch",
        "trainer/representations.py",
        "forward.predict_on_batch(images[i : i + batch_size].astype(np.float32) / 255.0)",
        "encoder(images[i : i + batch_size].astype(np.float32) / 255.0, training=True)",
        (
            UNIT + "test_byol.py::test_the_product_treats_a_batch_of_one_like_a_batch_of_many",
            UNIT + "test_networks.py::test_embed_is_the_encoder_in_inference_mode_whatever_the_batch",
        ),
    ),
    Fault(
        "test images reach the Trainers",
        "pipeline/pipeline.py",
        "train_args=tfx.proto.TrainArgs(splits=[features.TRAIN_SPLIT])",
        "train_args=tfx.proto.TrainArgs(splits=[features.TRAIN_SPLIT, features.TEST_SPLIT])",
        (
            "tests/component/data/test_splits.py::test_transform_and_every_trainer_are_given_the_training_split_alone",
        ),
    ),
    Fault(
        "test images lie in the training split",
        "components/data/data_checks.py",
        "shared = count_shared(splits[features.TRAIN_SPLIT].hashes, splits[features.TEST_SPLIT].hashes)",
        "shared = count_shared(splits[features.TRAIN_SPLIT].hashes, splits[features.TRAIN_SPLIT].hashes[:0])",
        ("tests/unit/components/data/test_data_checks.py::test_test_images_in_train_stop_the_run",),
    ),
    Fault(
        "a step is counted twice",
        "trainer/byol/byol.py",
        "        logs = super().train_step(*args)\n",
        "        logs = super().train_step(*args)\n        self.optimizer.iterations.assign_add(1)\n",
        (
            UNIT + "test_byol.py::test_the_optimizer_counts_each_step_once",
            UNIT + "test_byol.py::test_tau_follows_the_steps_of_the_whole_training",
        ),
    ),
    Fault(
        "the flip fires at half its rate",
        "trainer/byol/augmentations.py",
        "draws[:, _FLIP, None, None] < config.flip",
        "draws[:, _FLIP, None, None] < config.flip / 2",
        (UNIT + "test_augmentations.py::test_the_flip_mirrors_left_and_right_at_its_rate",),
    ),
    Fault(
        "the target is frozen by the layer's flag",
        "trainer/byol/byol.py",
        "    for variable in copy.variables:\n        variable.trainable = False\n",
        "    copy.trainable = False\n",
        (
            UNIT + "test_byol.py::test_the_targets_forward_uses_the_batchs_statistics",
            UNIT + "test_byol.py::test_the_moments_of_both_networks_move_each_by_its_own_batches",
        ),
    ),
)


def plant(fault: Fault, folder: pathlib.Path) -> None:
    """Copies the source into `folder`, with the fault in it."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / fault.file
    source = path.read_text()
    if source.count(fault.right) != 1:
        raise ValueError(
            f"{fault.name}: expected once in {fault.file}, received {source.count(fault.right)} times: "
            f"{fault.right!r}. Give the code as it is now."
        )
    path.write_text(source.replace(fault.right, fault.wrong))


def unnoticed(fault: Fault, folder: pathlib.Path) -> list[str]:
    """The tests of the fault that pass, or do not run, all the same."""
    report = folder / "report.xml"
    child = os.fork()
    if not child:
        with (folder / "output.txt").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(folder)
            sys.path[:] = [str(folder), *(entry for entry in sys.path if entry not in {"", str(ROOT)})]
            for name in [n for n in sys.modules if n.partition(".")[0] in FOLDERS]:
                del sys.modules[name]
            pytest.main(["-q", "-p", "no:cacheprovider", "--junitxml", str(report), *fault.tests])
            os._exit(0)
    os.waitpid(child, 0)
    failed = set()
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314, written by our own child
        if case.find("failure") is not None:
            failed.add(str(case.get("name")).partition("[")[0])
    return [test for test in fault.tests if test.partition("::")[2] not in failed]


def main() -> int:
    """Plants all faults, or those with the word given in their name."""
    word, missed = (sys.argv[1] if len(sys.argv) > 1 else ""), 0
    for fault in [fault for fault in FAULTS if word in fault.name]:
        with tempfile.TemporaryDirectory() as folder:
            plant(fault, pathlib.Path(folder))
            passed = unnoticed(fault, pathlib.Path(folder))
        missed += bool(passed)
        said = f"NOT noticed by {', '.join(passed)}" if passed else f"noticed by {len(fault.tests)}"
        print(f"{fault.name:<45} {said}", flush=True)  # noqa: T201, what it is for
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
