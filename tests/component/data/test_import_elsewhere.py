"""Pictures of a file system that is not the local one become a data set on it."""

import io

import numpy as np
import pytest
from PIL import Image

from components.data import cifar10, dataset, example_gen
from components.data.beam_path import BeamPath, place
from components.data.dataset import DataSet
from components.data.picture_import import ImportSettings, import_pictures
from tests.component import memory_filesystem

SETTINGS = ImportSettings(height=12, width=16, test_share=0.3, workers=1)


@pytest.fixture
def files(monkeypatch):
    """Two classes of 12 pictures, one of them with a bracket in its name, and a table in another folder."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(memory_filesystem, "FILES", found)
    for number in range(24):
        data = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(data, "PNG")
        name = f"{('wool', 'été')[number % 2]}/deep/{number}[1].png"
        found[f"mem://photos/{name}"] = found[f"mem://table/{number}.png"] = data.getvalue()
    found["mem://photos/wool/.hidden"] = b"x"
    rows = "".join(f"{number}.png,{('wool', 'été')[number % 2]}\n" for number in range(24))
    found["mem://table/metadata.csv"] = f"file_name,label\n{rows}".encode()
    return found


def _records(files, folder, split):
    (path,) = [path for path in files if path.startswith(f"{folder}/{split}_batch")]
    described = dataset.from_json(files[f"{folder}/{dataset.FILE}"])
    images, labels = cifar10.decode_records(files[path], data_set=described)
    return {
        image.tobytes(): described.label_names[label] for image, label in zip(images, labels, strict=True)
    }


@pytest.mark.parametrize("source", ["mem://photos", "mem://photos/", "mem://table"])
def test_every_picture_is_read_and_written_there(files, source):
    expected = {
        np.random.default_rng(n).integers(0, 256, (12, 16, 3), dtype=np.uint8).tobytes(): ("wool", "été")[
            n % 2
        ]
        for n in range(24)
    }
    imported = import_pictures(place(source), place("mem://made/data"), SETTINGS)
    assert str(imported.folder) == "mem://made/data"
    found = _records(files, "mem://made/data", "data") | _records(files, "mem://made/data", "test")
    assert found == expected
    made = {path.removeprefix("mem://made/") for path in files if path.startswith("mem://made/")}
    assert made == {
        f"data/{name}" for name in ("data_batch_1.bin", "test_batch_1.bin", "dataset.json", "import.json")
    }


def test_what_is_not_whole_says_so_until_the_same_import_ends(files, monkeypatch):
    write = BeamPath.write_bytes

    def fails(path, data):
        if path.name == "test_batch_1.bin":
            raise OSError("the network is gone")
        write(path, data)

    monkeypatch.setattr(BeamPath, "write_bytes", fails)
    with pytest.raises(OSError, match="the network is gone"):
        import_pictures(place("mem://photos"), place("mem://made"), SETTINGS, span=1)
    assert "mem://made/span-1/data_batch_1.bin" in files
    expected = DataSet("own pictures", "", ("wool", "été"), 12, 16)
    with pytest.raises(ValueError, match="mem://made/span-1 is a data set that is not whole"):
        example_gen._described("mem://made/span-1", expected)
    monkeypatch.setattr(BeamPath, "write_bytes", write)
    import_pictures(place("mem://photos"), place("mem://made"), SETTINGS, span=1)
    assert example_gen._described("mem://made/span-1", expected) == expected
    assert {path for path in files if "span-1" in path} >= {"mem://made/span-1/_SUCCESS"}
    assert not [path for path in files if ".import/" in path or dataset.UNFINISHED_FILE in path]
    with pytest.raises(ValueError, match="it exists and is not an empty folder"):
        import_pictures(place("mem://photos"), place("mem://made"), SETTINGS, span=1)
    with pytest.raises(ValueError, match="at 12x16 pixels; received 32x32"):
        import_pictures(place("mem://photos"), place("mem://made"), ImportSettings(workers=1), span=2)


def test_an_address_that_cannot_be_read_is_told(files):
    with pytest.raises(ValueError, match="There is no folder mem://nothing"):
        import_pictures(place("mem://nothing"), place("mem://made"), SETTINGS)
    with pytest.raises(ValueError, match="which are wildcards; received mem://pho"):
        place("mem://pho*")
    with pytest.raises(ValueError, match="Unable to get filesystem from specified path"):
        place("nobody://knows/this")
