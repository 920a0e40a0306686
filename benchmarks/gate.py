"""How often the paired gate refuses a model, and calls it better, by its true change in accuracy.

    python -m benchmarks.gate

Each row draws test splits anew: the true change and the share of images on which the models disagree are fixed, which
of them fall into the split is chance.
"""

import numpy as np

from components import gate_statistics

DRAWS = 4000
CASES = [
    # images, share disputed, margin of the preset
    ("demo", 2_000, 0.07, 0.005),
    ("cpu", 10_000, 0.20, 0.01),
    ("gpu", 10_000, 0.10, 0.005),
]
TRUE_CHANGES = (-0.03, -0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.03)


def rates(images: int, change: float, disputed: float, margin: float) -> tuple[float, float]:
    """Shares of draws in which the model is refused, and in which it is called better."""
    shares = [(disputed + change) / 2, (disputed - change) / 2, 1 - disputed]
    draws = np.random.default_rng(0).multinomial(images, shares, size=DRAWS)
    bounds = np.array([gate_statistics.change_interval(g, lost, images) for g, lost, _ in draws.tolist()])
    return float((bounds[:, 1] < -margin).mean()), float((bounds[:, 0] > 0).mean())


def main() -> None:
    """Prints the table of docs/decisions/0040-the-gate.md."""
    print("| preset | test images | disputed | margin | true change | refused | called better |")
    print("|---|---|---|---|---|---|---|")
    for name, images, disputed, margin in CASES:
        for change in TRUE_CHANGES:
            refused, better = rates(images, change, disputed, margin)
            print(
                f"| {name} | {images:,} | {disputed:.0%} | {margin} | {change:+.3f} | {refused:.1%} | {better:.1%} |"
            )


if __name__ == "__main__":
    main()
