"""What unlabelled pictures are worth: six fabrics, 600 labelled pictures, and 5,000 of which nobody says what they are.

    python -m benchmarks.fabrics WORK --seeds 0 1 2 --table docs/results/fabrics.md

draws the set (six kinds that differ in how their threads cross and in nothing else: colours, scale, direction,
light and noise are drawn anew for each picture; seven file formats; class folders, a flat folder and a test folder),
imports it with `byol data import` at 96x96 pixels, and runs the pipeline with `byol run` twice for each seed: on
everything, and on the labelled pictures alone, with as many updates. Probe, test images and gate are the same. The
table has the accuracy of the linear probe on the 120 test images, pretrained and untrained. What is in WORK already is
not done again.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

KINDS = ("basket", "herringbone", "plain", "rib", "satin", "twill")
LABELLED, UNLABELLED, TEST = 600, 5000, 120
SIDE = 96
UPDATES, BATCH = 600, 64
# Name's end, Pillow's format and mode, options of saving.
FORMATS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("jpg", "JPEG", "RGB", {"quality": 92}),
    ("JPEG", "JPEG", "L", {"quality": 92}),
    ("png", "PNG", "RGB", {}),
    ("png", "PNG", "RGBA", {}),
    ("webp", "WEBP", "RGB", {"quality": 90}),
    ("bmp", "BMP", "RGB", {}),
    ("gif", "GIF", "P", {}),
    ("tif", "TIFF", "RGB", {}),
)
WITH, ALONE = "with the unlabelled", "the labelled alone"
_PROJECT = pathlib.Path(__file__).resolve().parents[1]


def crossings(kind: str, warp: np.ndarray, weft: np.ndarray) -> np.ndarray:
    """Where the warp lies on top, of the numbers of the threads that cross: bool, of the arguments' shape.

    Raises:
        ValueError: there is no such kind.
    """
    rules: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: (warp + weft) % 2 == 0,
        "basket": lambda: (warp // 2 + weft // 2) % 2 == 0,
        "rib": lambda: (warp // 2 + weft) % 2 == 0,
        "twill": lambda: (warp + weft) % 4 < 2,
        "herringbone": lambda: (weft + np.abs(warp % 12 - 6)) % 4 < 2,
        "satin": lambda: (2 * warp + weft) % 5 != 0,
    }
    if kind not in rules:
        raise ValueError(f"Expected one of {', '.join(KINDS)}; received {kind!r}.")
    return rules[kind]()


def draw(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A picture of a fabric, 96 to 128 pixels a side: uint8 [height, width, 3]."""
    height, width = rng.integers(SIDE, 129, 2)
    row, column = np.mgrid[:height, :width].astype(np.float64)
    turn, period = rng.uniform(-0.4, 0.4), rng.uniform(4.0, 6.0)  # radians; pixels a thread
    bend = rng.uniform(0, 2) * np.sin(row / rng.uniform(15, 40) + rng.uniform(0, 6))
    across = (np.cos(turn) * (column + bend) + np.sin(turn) * row) / period + 1000
    along = (np.cos(turn) * row - np.sin(turn) * (column + bend)) / period + 1000
    on_top = crossings(kind, across.astype(int), along.astype(int))
    thread = np.where(on_top, across, along) % 1.0 - 0.5  # of the thread that is seen, from its middle
    colours = (
        rng.uniform(70, 190) + rng.normal(0, 20, 3) + rng.normal(0, 25, (2, 3))
    )  # of warp and weft: alike
    light = (
        1 + rng.uniform(-0.3, 0.3) * (row / height - 0.5) + rng.uniform(-0.3, 0.3) * (column / width - 0.5)
    )
    shaded = (1 - rng.uniform(0.3, 0.7) * np.abs(thread) * 2) * light
    pixels = np.where(on_top[..., None], colours[0], colours[1]) * shaded[..., None]
    pixels += rng.normal(0, rng.uniform(5, 15), (height, width, 1)) + rng.normal(0, 5, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write(folder: pathlib.Path, seed: int = 0) -> None:
    """Writes `all` and `labelled`: train/ and test/ with a folder a kind; in `all` loose pictures in train/ as well."""
    rng = np.random.default_rng(seed)
    for number in range(LABELLED + TEST + UNLABELLED):
        kind = KINDS[number % len(KINDS)]
        pixels = draw(kind, rng)
        end, encoding, mode, options = FORMATS[rng.integers(len(FORMATS))]
        picture = Image.fromarray(pixels).convert(mode)
        labelled = number < LABELLED + TEST
        place = pathlib.Path("test" if number < TEST else "train") / (kind if labelled else ".")
        for name in ("all", "labelled") if labelled else ("all",):
            path = folder / name / place / f"{number:05d}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, encoding, **options)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one run: accuracies of the probe on the test images, and whether the encoder was pushed."""

    pretrained: float
    untrained: float
    pushed: bool
    seconds: float


def settings(pictures: int, seed: int) -> list[str]:
    """What differs from the preset `demo`: as many updates for either number of pictures; a gate for 120 test images.

    120 images tell differences of ten points and more; the gate asks for little, since here it is not what is measured.
    """
    return [
        f"pretraining.epochs={round(UPDATES / (pictures // BATCH))}",
        f"pretraining.batch_size={BATCH}",
        f"pretraining.seed={seed}",
        "pretraining.precision=auto",
        "pretraining.monitor_images=60",
        "pretraining.monitor_epochs=1000",
        f"gate.minimum_test_images={TEST}",
        f"gate.robustness_images={TEST}",
        "gate.minimum_accuracy=0.4",
        "gate.class_floors=0.1",
        "gate.minimum_gain=0.0",
        "gate.minimum_corrupted_accuracy=0.2",
        "gate.minimum_worst_corrupted_accuracy=0.1",
    ]


def commands(work: pathlib.Path, name: str, pictures: int, seed: int) -> tuple[list[str], list[str]]:
    """`byol data import` and `byol run`, of one of the two sets."""
    data, root = work / f"data-{name}", work / f"{name}-{seed}"
    chosen = [part for setting in settings(pictures, seed) for part in ("--set", setting)]
    return (
        ["data", "import", str(work / "pictures" / name), str(data), "--size", str(SIDE)],
        ["run", "--preset", "demo", "--data", str(data), "--root", str(root), *chosen],
    )


def outcome(work: pathlib.Path, name: str, pictures: int, seed: int) -> Outcome:
    """Imports and runs what is not there yet.

    Raises:
        RuntimeError: a command failed; its last lines are in the message.
    """
    importing, running = commands(work, name, pictures, seed)
    if not (work / f"data-{name}").exists():
        byol(importing)
    summary = work / f"{name}-{seed}" / "latest" / "summary.json"
    if not summary.exists():
        started = time.monotonic()
        byol(running, accepted=(0, 3))
        (work / f"{name}-{seed}" / "seconds").write_text(str(time.monotonic() - started))
    found = json.loads(summary.read_text())
    return Outcome(
        found["linear_accuracy"],
        found["random_encoder_linear_accuracy"],
        found["pushed_version"] is not None,
        float((work / f"{name}-{seed}" / "seconds").read_text()),
    )


def byol(arguments: list[str], accepted: tuple[int, ...] = (0,)) -> None:
    """Runs the command line in a process of its own.

    Raises:
        RuntimeError: its exit status is none that is accepted.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in accepted:
        raise RuntimeError(
            f"byol {' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def table(found: dict[int, tuple[Outcome, Outcome]]) -> str:
    """Markdown: a row a seed, and the means."""
    lines = [
        f"| seed | pretrained on {LABELLED + UNLABELLED:,} | on the {LABELLED} alone | untrained | pushed | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for seed, (whole, alone) in found.items():
        pushed = (
            "both"
            if whole.pushed and alone.pushed
            else "first"
            if whole.pushed
            else "second"
            if alone.pushed
            else "none"
        )
        lines.append(
            f"| {seed} | {whole.pretrained:.1%} | {alone.pretrained:.1%} | {whole.untrained:.1%} | {pushed} | "
            f"{whole.seconds:.0f} and {alone.seconds:.0f} |"
        )
    if len(found) > 1:
        means = [
            statistics.mean(values)
            for values in zip(
                *((a.pretrained, b.pretrained, a.untrained) for a, b in found.values()), strict=True
            )
        ]
        lines.append(f"| mean | {means[0]:.1%} | {means[1]:.1%} | {means[2]:.1%} | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draws, imports, runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=pathlib.Path, help="folder of pictures, data sets and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", type=pathlib.Path, help="file whose table is replaced, or to be made")
    options = parser.parse_args()
    if not (options.work / "pictures").exists():
        (options.work / "drawing").mkdir(parents=True)
        write(options.work / "drawing")
        (options.work / "drawing").rename(options.work / "pictures")
    found = {}
    for seed in options.seeds:
        found[seed] = (
            outcome(options.work, "all", LABELLED + UNLABELLED, seed),
            outcome(options.work, "labelled", LABELLED, seed),
        )
        print(table(found), flush=True)
        if options.table:
            options.table.write_text(table(found))


if __name__ == "__main__":
    main()
