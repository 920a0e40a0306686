"""How often the paired gate refuses a model, and calls it better, by its true change in accuracy.

    .venv/bin/python -m benchmarks.gate

Each row of the first table draws test splits anew: the true change and the share of images on which the models disagree
are fixed, which of them fall into the split is chance. The second table draws another seed of the same recipe as well:
its true change is as wide as the measured seeds lie apart.
"""

import statistics

import numpy as np

from components.gate import gate_statistics

DRAWS = 4000
CASES = [
    # images, share disputed, margin of the preset
    ("demo", 2_000, 0.07, 0.005),
    ("cpu", 10_000, 0.20, 0.01),
    ("gpu", 10_000, 0.10, 0.005),
]
TRUE_CHANGES = (-0.03, -0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.03)

# Accuracies of the demo preset's seeds, docs/results/demo.md.
SEEDS = (0.9350, 0.9775, 0.9525)


def rates(images: int, change: float, disputed: float, margin: float) -> tuple[float, float]:
    """Shares of draws in which the model is refused, and in which it is called better."""
    shares = [(disputed + change) / 2, (disputed - change) / 2, 1 - disputed]
    draws = np.random.default_rng(0).multinomial(images, shares, size=DRAWS)
    bounds = np.array([gate_statistics.change_interval(g, lost, images) for g, lost, _ in draws.tolist()])
    return float((bounds[:, 1] < -margin).mean()), float((bounds[:, 0] > 0).mean())


def seed_rates(spread: float) -> tuple[float, float]:
    """Shares of other seeds of the demo's recipe that are refused, and that are called better.

    Args:
        spread: `gate.seed_spread`.
    """
    _, images, disputed, margin = CASES[0]
    rng = np.random.default_rng(0)
    changes = rng.normal(0.0, statistics.stdev(SEEDS) * np.sqrt(2), DRAWS)
    refused = better = 0
    for change in changes.tolist():
        share = max(disputed, abs(change))
        gained, lost, _ = rng.multinomial(
            images, [(share + change) / 2, (share - change) / 2, 1 - share]
        ).tolist()
        lower, upper = gate_statistics.change_interval(gained, lost, images)
        refused += upper < -margin
        better += lower > spread
    return refused / DRAWS, better / DRAWS


def main() -> None:
    """Prints the tables of docs/decisions/0040-the-gate.md."""
    print("| preset | test images | disputed | margin | true change | refused | called better |")
    print("|---|---|---|---|---|---|---|")
    for name, images, disputed, margin in CASES:
        for change in TRUE_CHANGES:
            refused, better = rates(images, change, disputed, margin)
            print(
                f"| {name} | {images:,} | {disputed:.0%} | {margin} | {change:+.3f} | {refused:.1%} | {better:.1%} |"
            )
    print()
    print("| seed_spread | refused | called better |")
    print("|---|---|---|")
    for spread in (0.0, round(max(SEEDS) - min(SEEDS) + 0.0005, 3)):
        refused, better = seed_rates(spread)
        print(f"| {spread} | {refused:.1%} | {better:.1%} |")


if __name__ == "__main__":
    main()
