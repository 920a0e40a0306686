"""How many pictures a minute `byol data import` takes, and how much memory.

    python -m benchmarks.import_pictures

draws JPEGs of 12 megapixels (4000x3000, as a telephone writes) and small ones (320x240), imports each set at 96x96
pixels by the command, in processes on every core, and prints pictures a minute and the largest resident memory of them
all, sampled ten times a second. The second row of each kind has several times as many files: memory must not grow with
their pixels. A few pictures are drawn; the others are these with another quantisation table, which needs no encoder
and makes other pixels, since importing takes equal pictures once. On a busy machine the CPU seconds say what two idle
cores would do.
"""

import argparse
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

_PROJECT = pathlib.Path(__file__).resolve().parents[1]
BIG, SMALL = (3000, 4000), (240, 320)
CLASSES = 2


def picture(height: int, width: int, rng: np.random.Generator) -> bytes:
    """A JPEG with large forms, fine structure and noise, whose size is that of a photograph's: bytes."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 100 + 2, width // 100 + 2, 3), dtype=np.uint8))
    forms = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    data = io.BytesIO()
    Image.fromarray(np.clip(forms + grain, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=88)
    return data.getvalue()


def write(folder: pathlib.Path, size: tuple[int, int], count: int, drawn: int) -> int:
    """Writes `count` files in class folders, made of `drawn` pictures; returns the bytes of one, on average."""
    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        if number < drawn:
            base = picture(*size, rng)
            (folder / f"base-{number}").write_bytes(base)
        path = folder / "pictures" / f"class-{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (folder / f"base-{number % drawn}").read_bytes()
        path.write_bytes(_tinted(data, number))
        total += len(data)
    return total // count


def _tinted(jpeg: bytes, number: int) -> bytes:
    """The same JPEG with other factors for its lowest frequencies, so that its pixels are other ones."""
    place = jpeg.index(b"\xff\xdb") + 5  # the first table: marker, length, number, then 64 factors
    table = bytearray(jpeg[place : place + 64])
    for position in range(6):
        table[position] = max(1, (table[position] + (number >> (2 * position)) % 4) % 256)
    return jpeg[:place] + bytes(table) + jpeg[place + 64 :]


def resident(pid: int) -> int:
    """Bytes of a process and its children; 0 when it is gone."""
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def measure(source: pathlib.Path, out: pathlib.Path) -> tuple[float, float, int]:
    """Seconds, CPU seconds and peak bytes of one import.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "pipeline.cli", "data", "import", str(source), str(out)]
    command += ["--size", "96", "--test-share", "0.3"]
    before, started = os.times(), time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=_PROJECT, stdout=said, stderr=said)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
        seconds, after = time.monotonic() - started, os.times()
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu, peak


def main() -> None:
    """Draws, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--big", type=int, nargs="*", default=[100, 300], help="numbers of large files")
    parser.add_argument("--small", type=int, nargs="*", default=[5000, 20000], help="numbers of small files")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(
        "| pictures | of | bytes each | seconds | a minute | CPU seconds | a minute and 2 idle cores | peak MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size, counts, drawn in ((BIG, options.big, 4), (SMALL, options.small, 50)):
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                work = pathlib.Path(name)
                each = write(work, size, count, drawn)
                seconds, cpu, peak = measure(work / "pictures", work / "data")
            print(
                f"| {count:,} | {size[1]}x{size[0]} | {each:,} | {seconds:.1f} | {count / seconds * 60:,.0f} | "
                f"{cpu:.1f} | {count / cpu * 120:,.0f} | {peak / 2**20:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
