"""A database on a network's file system is told of; what a system's table of mounts says, and what lies over what."""

import pytest

from pipeline import mounts

# As proc(5) describes it: the fields before " - ", of a number that may differ, then the file system.
TABLE = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:50 / /mnt/byol rw,relatime - nfs4 server:/byol rw,vers=4.2
31 30 8:17 / /mnt/byol/fast rw - xfs /dev/sdb1 rw
32 21 0:51 / /mnt/with\\040space rw - cifs //server/share rw
33 21 0:52 / /mnt/bucket rw - fuse.gcsfuse bucket rw
34 21 0:53 / /mnt/over rw - nfs server:/over rw
35 21 8:33 / /mnt/over rw - ext4 /dev/sdc1 rw
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "mountinfo").write_text(TABLE)
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/root", ""),
        ("/mnt/byol", "nfs4"),
        ("/mnt/byol/root/deeper", "nfs4"),
        ("/mnt/byol-other", ""),
        ("/mnt/byol/fast/root", ""),
        ("/mnt/with space/root", "cifs"),
        ("/mnt/bucket/root", "fuse.gcsfuse"),
        ("/mnt/over/root", ""),
    ],
)
def test_the_deepest_mount_over_a_folder_is_its_own(folder, kind, table, tmp_path):
    assert mounts.network_kind(tmp_path.__class__(folder), table) == kind


def test_a_system_without_the_table_is_not_asked(tmp_path):
    assert mounts.network_kind(tmp_path, tmp_path / "none") == ""


def test_the_warning_names_the_file_and_the_way_out(table, tmp_path, monkeypatch):
    assert mounts.warning(tmp_path / "metadata.sqlite") == ""
    monkeypatch.setattr(mounts, "network_kind", lambda folder: "nfs4")
    said = mounts.warning(tmp_path / "metadata.sqlite")
    assert f"{tmp_path / 'metadata.sqlite'} lies on a network's file system (nfs4)" in said
    assert "--root on a local disk" in said
