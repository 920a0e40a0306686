"""Which file system a folder lies on, for what only a local disk can do."""

import pathlib
import re

# Of proc(5)'s table of mounts. SQLite needs locks that hold, and over a network they often do not
# (https://sqlite.org/faq.html, question 5).
_NETWORK = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
}
_MOUNTS = pathlib.Path("/proc/self/mountinfo")
_POINT = 4


def network_kind(folder: pathlib.Path, mounts: pathlib.Path = _MOUNTS) -> str:
    """The kind of network file system that a folder lies on, such as "nfs4"; "" on a local disk or where none says so.

    Args:
        folder: which there is, or its nearest parent.
        mounts: the system's table of mounts; a system without it is not asked.
    """
    if not mounts.exists():
        return ""
    place, kind, longest = folder.resolve(), "", -1
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, system = line.partition(" - ")
        point = pathlib.Path(
            re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split()[_POINT])
        )
        # The last of the same depth lies over those before it.
        if (point == place or point in place.parents) and len(point.parts) >= longest:
            longest, kind = len(point.parts), system.split()[0]
    return kind if kind in _NETWORK or kind.startswith("fuse.") else ""


def warning(database: pathlib.Path) -> str:
    """What to tell of a database's place; "" if there is nothing to tell."""
    kind = network_kind(database.parent)
    if not kind:
        return ""
    return (
        f"{database} lies on a network's file system ({kind}), where SQLite's locks may not hold: let one machine at a "
        "time work in this root, or give --root on a local disk."
    )
