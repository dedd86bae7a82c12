"""Write deletion vectors to a Delta table, because no Python writer does."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

FEATURE = "deletionVectors"


def delete_rows(folder, rows_by_file):
    """Commit deletion vectors to a table as its next version.

    Args:
        folder: the table, on a local disk.
        rows_by_file: for each data file, in the order of `get_add_actions`, the positions of the rows
            that are deleted; each below 65,536.
    """
    table = DeltaTable(folder)
    log = Path(folder) / "_delta_log"
    adds = [
        action["add"]
        for commit in sorted(log.glob("*.json"))
        for line in commit.read_text().splitlines()
        if "add" in (action := json.loads(line))
    ]
    by_path = {add["path"]: add for add in adds}
    actions = [
        {"commitInfo": {"timestamp": 0, "operation": "DELETE"}},
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": [FEATURE],
                "writerFeatures": [FEATURE],
            }
        },
    ]
    paths = pa.table(table.get_add_actions())["path"].to_pylist()
    for path, rows in zip(paths, rows_by_file, strict=True):
        add = by_path[path]
        removed = {"path": path, "dataChange": True, "deletionTimestamp": 0}
        actions += [{"remove": removed}, {"add": {**add, "deletionVector": _descriptor(rows)}}]
    commit = log / f"{table.version() + 1:020d}.json"
    commit.write_text("\n".join(map(json.dumps, actions)))


def _descriptor(rows):
    content = _bitmap_array(sorted(rows))
    return {
        "storageType": "i",
        "pathOrInlineDv": _z85(content),
        "sizeInBytes": len(content),
        "cardinality": len(rows),
    }


def _bitmap_array(rows):
    """Return a `RoaringBitmapArray` of one bitmap with one array container."""
    container = struct.pack(f"<{len(rows)}H", *rows)
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + container
    return struct.pack("<iqi", 1681511377, 1, 0) + bitmap


def _z85(content):
    content += bytes(-len(content) % 4)
    text = ""
    for at in range(0, len(content), 4):
        (value,) = struct.unpack(">I", content[at : at + 4])
        text += "".join(_Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text
