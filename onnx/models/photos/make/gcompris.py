"""Photographs of GCompris, an educational program, from Debian's package of its data.

`credits.tsv` names photograph, author, licence and source: what the program's own repository says of each (`README` in the folders
of its activities, in the commits that brought the photographs). The package's `copyright` still tells of older photographs under
the same names. Listed are only those in the public domain or under CC0.
"""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

PACKAGE = "gcompris-qt-data 3.1-2"
CREDITS = Path(__file__).resolve().parent / "credits.tsv"
LEAST = 200  # pixels of the shorter side


def photographs(folder):
    """Name → picture, of those that are credited and large enough, by name; `folder` is what `dpkg-deb -x` made of the package."""
    names = sorted(line.split("\t")[0] for line in CREDITS.read_text().splitlines())
    activities = {name.split("/")[0] for name in names}
    files = {a: resource(folder / "usr/share/gcompris-qt/rcc" / f"{a}.rcc") for a in activities}
    for name in names:
        activity, rest = name.split("/", 1)
        picture = Image.open(io.BytesIO(files[activity][f"/gcompris/src/activities/{activity}/resource/{rest}.webp"]))
        if min(picture.size) >= LEAST:
            yield name, on_white(picture)


def on_white(picture):
    picture = picture.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    return ground.convert("RGB")


def resource(path):
    """Path → content of a Qt resource file: a tree of nodes, their names, and data that may be compressed."""
    data = path.read_bytes()
    if data[:4] != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    version, tree, content, names = struct.unpack(">4I", data[4:20])
    size = 14 if version < 2 else 22
    found = {}

    def walk(index, folder):
        node = data[tree + index * size :]
        at, flags = struct.unpack(">IH", node[:6])
        count = struct.unpack(">H", data[names + at :][:2])[0]
        own = folder + "/" + data[names + at + 6 :][: 2 * count].decode("utf-16-be") if index else ""
        if flags & 2:
            children, first = struct.unpack(">II", node[6:14])
            for child in range(first, first + children):
                walk(child, own)
            return
        start = content + struct.unpack(">I", node[10:14])[0]
        packed = data[start + 4 :][: struct.unpack(">I", data[start:][:4])[0]]
        found[own] = zlib.decompress(packed[4:]) if flags & 1 else packed

    walk(0, "")
    return found
