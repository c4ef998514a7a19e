"""Mutations of OME-Zarr stores, folders and zip files: metadata, chunks, and the archive around them."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from base_slides import MPP, Pixels, Scene
from mutant import Change, Lost, Work
from pictures import macro, thumbnail, wrong_levels

from wsi_attention.testing.slide_writers import write_ome_zarr

Files = dict[str, bytes]
Mutation = Callable[[Work], Change]

ODD: tuple[Any, ...] = (
    0, -1, 1, 3, 255, 2**31, 2**63, 1e308, 0.5, "", "x", "0", None, True, [], [0], {}, [[]], "<f4", "|u1", "uint16",
)  # fmt: skip


def read_store(path: Path) -> Files:
    """Every file of a folder or zip file: name -> bytes."""
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def write_store(path: Path, files: Files) -> None:
    """Write a store anew."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in files.items():
                archive.writestr(name, body)
        return
    shutil.rmtree(path)
    for name, body in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)


def in_files(change: Callable[[Files, Random, Scene], Change | str]) -> Mutation:
    """A mutation of a slide from one that changes a store's files."""

    def mutate(work: Work) -> Change:
        files = read_store(work.path)
        done = change(files, work.chance, work.scene)
        write_store(work.path, files)
        return done if isinstance(done, Change) else Change(done)

    return mutate


def _metadata(files: Files) -> list[str]:
    return [name for name in files if Path(name).name in ("zarr.json", ".zarray", ".zattrs", ".zgroup")]


def _chunks(files: Files, level: int) -> list[str]:
    return [name for name in files if name.startswith(f"{level}/") and name not in _metadata(files)]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    found = [path] if path else []
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += _places(value[key], (*path, key))
    return found


def _field(files: Files, chance: Random, scene: Scene) -> str:
    name = chance.choice(_metadata(files))
    content = json.loads(files[name])
    places = _places(content)
    if not places:
        files[name] = b"[]"
        return f"{name} is a list"
    place = chance.choice(places)
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    if chance.random() < 0.3:
        del holder[place[-1]]
        done = "gone"
    else:
        now = holder[place[-1]]
        near = (now * 2, now + 1, now - 1, now // 2) if isinstance(now, int) and not isinstance(now, bool) else ()
        holder[place[-1]] = value = chance.choice((*ODD, *near))
        done = f"= {value!r}"
    files[name] = json.dumps(content).encode()
    return f"{name}: {'.'.join(map(str, place))} {done}"


def _two_fields(files: Files, chance: Random, scene: Scene) -> str:
    return f"{_field(files, chance, scene)}; {_field(files, chance, scene)}"


def _text(files: Files, chance: Random, scene: Scene) -> str:
    name = chance.choice(_metadata(files))
    body = files[name]
    cut = chance.randrange(len(body))
    how = chance.choice(("cut", "empty", "deep", "large", "bytes", "gone"))
    if how == "gone":
        del files[name]
        return f"{name} is not there"
    files[name] = {
        "cut": body[:cut],
        "empty": b"",
        "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "large": b'{"a":"' + b"a" * 20_000_000 + b'",' + body[1:],
        "bytes": body[:cut] + bytes(chance.randrange(256) for _ in range(3)) + body[cut:],
    }[how]
    return f"{name}: {how}"


def _chunk_bytes(files: Files, chance: Random, scene: Scene) -> str:
    level = chance.choice((0, 0, 1, 2))
    names = _chunks(files, level)
    some = chance.sample(names, chance.randint(1, len(names)))
    how = chance.choice(("cut", "empty", "noise", "few", "long", "other", "header"))
    for name in some:
        body = bytearray(files[name])
        if how == "cut":
            del body[chance.randrange(len(body)) :]
        elif how == "empty":
            body.clear()
        elif how == "noise":
            body = bytearray(chance.randbytes(len(body)))
        elif how == "few":
            for _ in range(3):
                body[chance.randrange(len(body))] = chance.randrange(256)
        elif how == "long":
            body += bytes(100)
        elif how == "other":
            body = bytearray(files[chance.choice(names)])
        else:
            body[: min(16, len(body))] = chance.randbytes(min(16, len(body)))
        files[name] = bytes(body)
    return f"level {level}: {len(some)} of {len(names)} chunks: {how}"


def _missing(files: Files, chance: Random, scene: Scene) -> Change:
    inside, share = chance.random() < 0.7, chance.choice((0.1, 0.3, 0.5, 0.9))
    levels = (0, 1, 2) if chance.random() < 0.5 else (0,)
    gone = 0
    for level in levels:
        if _sharded(files, level):
            gone += _without_inner(files, level, chance, scene, inside, share)
            continue
        found = [name for name in _chunks(files, level) if _is_inside(name, level, scene, inside)]
        for name in chance.sample(found, min(len(found), max(1, round(share * len(found))))):
            del files[name]
            gone += 1
    fill = chance.choice((0, 255))
    for name in [name for name in files if name.endswith(".zarray") or (name.endswith("zarr.json") and "/" in name)]:
        files[name] = json.dumps({**json.loads(files[name]), "fill_value": fill}).encode()
    where = "in the tissue" if inside else "of glass"
    lost: Lost = "pixels" if inside and gone and len(levels) > 1 else ""  # the model does not read level 0
    return Change(f"{gone} chunks {where} are not there, levels {levels}, fill {fill}", lost)


def _is_inside(name: str, level: int, scene: Scene, inside: bool) -> bool:
    row, col = (int(part) for part in name.split("/")[-2:])
    side = 256 * 2**level
    share = scene.tissue((col * side, row * side, side, side))
    return share > 0.3 if inside else share == 0


def _sharded(files: Files, level: int) -> bool:
    return f"{level}/zarr.json" in files


def _without_inner(files: Files, level: int, chance: Random, scene: Scene, inside: bool, share: float) -> int:
    """Remove chunks from a level's one shard: the index, at its end, says that they are not there."""
    name = _chunks(files, level)[0]
    body = bytearray(files[name])
    height, width = scene.levels[level].shape[:2]
    rows, cols = -(-height // min(256, height)), -(-width // min(256, width))
    found = [
        index for index in range(rows * cols) if _is_inside(f"{index // cols}/{index % cols}", level, scene, inside)
    ]
    some = chance.sample(found, min(len(found), max(1, round(share * len(found)))))
    start = len(body) - 4 - 16 * rows * cols
    for index in some:
        body[start + 16 * index : start + 16 * index + 16] = b"\xff" * 16
    body[-4:] = struct.pack("<I", _crc32c(bytes(body[start:-4])))
    files[name] = bytes(body)
    return len(some)


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _ome(files: Files) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The file of the metadata, its content, and the part that is OME's."""
    if ".zattrs" in files:
        content = json.loads(files[".zattrs"])
        return ".zattrs", content, content
    content = json.loads(files["zarr.json"])
    return "zarr.json", content, content["attributes"]["ome"]


_SCALES: tuple[tuple[str, float, float, str | None, Lost, float | None], ...] = (
    ("72 dpi", 352.7778, 352.7778, "micrometer", "scale", None),
    ("mm for µm", MPP, MPP, "millimeter", "scale", None),
    ("nm for µm", MPP, MPP, "nanometer", "scale", None),
    ("no unit", MPP, MPP, None, "scale", None),
    ("no unit and a scale of 1", 1.0, 1.0, None, "scale", None),
    ("zero", 0.0, 0.0, "micrometer", "scale", None),
    ("negative", -MPP, -MPP, "micrometer", "scale", None),
    ("not square", MPP, 3 * MPP, "micrometer", "scale", None),
    ("the same in nm", MPP * 1e3, MPP * 1e3, "nanometer", "", MPP),
    ("twice, at every level", 2 * MPP, 2 * MPP, "micrometer", "", 2 * MPP),
)


def _scale(files: Files, chance: Random, scene: Scene) -> Change:
    name, content, ome = _ome(files)
    what, x, y, unit, lost, mpp = chance.choice(_SCALES)
    for index, dataset in enumerate(ome["multiscales"][0]["datasets"]):
        dataset["coordinateTransformations"][0]["scale"] = [1.0, y * 2**index, x * 2**index]
    for axis in ome["multiscales"][0]["axes"][1:]:
        axis.pop("unit")
        axis |= {"unit": unit} if unit else {}
    files[name] = json.dumps(content).encode()
    return Change(f"scale: {what}", lost, mpp)


def _scale_of_one(files: Files, chance: Random, scene: Scene) -> Change:
    name, content, ome = _ome(files)
    index, factor = chance.randrange(3), chance.choice((0.25, 0.5, 2.0, 4.0))
    scale = ome["multiscales"][0]["datasets"][index]["coordinateTransformations"][0]["scale"]
    scale[1:] = [value * factor for value in scale[1:]]
    files[name] = json.dumps(content).encode()
    return Change(f"the scale of level {index} times {factor}", "" if index else "scale")


def _order(files: Files, chance: Random, scene: Scene) -> Change:
    name, content, ome = _ome(files)
    datasets = ome["multiscales"][0]["datasets"]
    if chance.random() < 0.5:
        chance.shuffle(datasets)
        done = Change(f"datasets in the order {[dataset['path'] for dataset in datasets]}")
    else:
        paths = chance.choice((("1", "0", "2"), ("0", "2", "1"), ("0", "0", "2"), ("0", "1", "../0"), ("0", "1", "9")))
        for dataset, path in zip(datasets, paths, strict=True):
            dataset["path"] = path
        done = Change(f"paths of the datasets {paths}")
    files[name] = json.dumps(content).encode()
    return done


_CHANNELS: tuple[tuple[tuple[str, ...], tuple[str, ...], Lost], ...] = (
    (("DAPI", "FITC", "TRITC"), ("0000FF", "00FF00", "FF0000"), "channels"),
    (("Cy3", "Cy5", "DAPI"), ("FFFF00", "FF00FF", "00FFFF"), "channels"),
    (("Hematoxylin", "Eosin", "DAB"), ("FFFFFF", "FFFFFF", "FFFFFF"), "channels"),
)


def _channels(files: Files, chance: Random, scene: Scene) -> Change:
    name, content, ome = _ome(files)
    labels, colours, lost = chance.choice(_CHANNELS)
    for channel, label, colour in zip(ome["omero"]["channels"], labels, colours, strict=True):
        channel |= {"label": label, "color": colour}
    files[name] = json.dumps(content).encode()
    return Change(f"channels {labels}", lost)


BYTES: dict[str, Mutation] = {
    change.__name__.strip("_"): in_files(change)
    for change in (
        _field, _two_fields, _text, _chunk_bytes, _missing, _scale, _scale_of_one, _order, _channels,
    )
}  # fmt: skip
"""Name -> mutation, for every store."""


def _rewritten(work: Work, levels: list[Pixels], change: Callable[[dict[str, Any]], None] | None = None) -> None:
    version = "0.5" if "zarr.json" in read_store(work.path) else "0.4"
    if work.path.is_dir():
        shutil.rmtree(work.path)
    else:
        work.path.unlink()
    write_ome_zarr(work.path, levels, MPP, version)  # type: ignore[arg-type]
    if change is not None:
        files = read_store(work.path)
        name, content, ome = _ome(files)
        change(ome)
        files[name] = json.dumps(content).encode()
        write_store(work.path, files)


def levels_that_lie(work: Work) -> Change:
    """A coarser level that does not belong to the others."""
    levels, what = wrong_levels(work.scene, work.chance)
    _rewritten(work, levels)
    return Change(what, "pixels")


def colours(work: Work) -> Change:
    """Pixels in another order that the channels' names or colours tell, or inverted pixels."""
    if work.chance.random() < 0.3:
        _rewritten(work, [255 - level for level in work.scene.levels])
        return Change("inverted pixels", "channels")
    order = work.chance.choice(((2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0)))
    named = work.chance.choice(("names", "colours", "both"))

    def tell(ome: dict[str, Any]) -> None:
        channels = ome["omero"]["channels"]
        ome["omero"]["channels"] = [dict(channels[index]) for index in order]
        for channel in ome["omero"]["channels"]:
            if named == "names":
                channel.pop("color")
            elif named == "colours":
                channel.pop("label")

    _rewritten(work, [np.ascontiguousarray(level[..., order]) for level in work.scene.levels], tell)
    return Change(f"channels in the order {order}, told by {named}")


def series(work: Work) -> Change:
    """A store of several images, a small picture before or after the slide."""
    ours = read_store(work.path)
    first = work.chance.choice((macro, thumbnail))
    version = "0.5" if "zarr.json" in ours else "0.4"
    aside = work.path.with_name("aside.ome.zarr")
    write_ome_zarr(aside, [first(work.scene.levels)], MPP * 8, version)  # type: ignore[arg-type]
    theirs = read_store(aside)
    shutil.rmtree(aside)
    places = ("0", "1") if work.chance.random() < 0.7 else ("1", "0")
    files = {f"{places[0]}/{name}": body for name, body in theirs.items()}
    files |= {f"{places[1]}/{name}": body for name, body in ours.items()}
    layout = {"bioformats2raw.layout": 3}
    if version == "0.4":
        files |= {".zgroup": b'{"zarr_format": 2}', ".zattrs": json.dumps(layout).encode()}
    else:
        top = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **layout}}}
        files["zarr.json"] = json.dumps(top).encode()
    write_store(work.path, files)
    return Change(f"image {places[0]} is a {first.__name__}, {places[1]} the slide")


def two_pyramids(work: Work) -> Change:
    """Two multiscales in one image, the first of them the smallest level alone."""
    files = read_store(work.path)
    name, content, ome = _ome(files)
    whole = ome["multiscales"][0]
    ome["multiscales"] = [{**whole, "name": "thumbnail", "datasets": whole["datasets"][2:]}, whole]
    files[name] = json.dumps(content).encode()
    write_store(work.path, files)
    return Change("the first of two multiscales is the smallest level")


STORES: dict[str, Mutation] = {one.__name__: one for one in (levels_that_lie, colours, series, two_pyramids)}
"""Mutations that write the store anew."""


def zip_bytes(work: Work) -> Change:
    """Other bytes in the archive's directory or headers, or an archive cut off."""
    data, chance = bytearray(work.path.read_bytes()), work.chance
    central = data.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, central + 16)[0]
    how = chance.choice(("central", "sizes", "end", "cut", "local", "offset"))
    records = [at for at in range(start, central) if data[at : at + 4] == b"PK\x01\x02"]
    some = chance.sample(records, chance.randint(1, len(records)))
    for at in some:
        if how == "central":
            data[at + chance.randrange(46)] = chance.randrange(256)
        elif how == "sizes":
            place = at + chance.choice((20, 24))
            struct.pack_into("<I", data, place, chance.choice((0, 1, 2**31, 2**32 - 1, 2**32 - 2)))
        elif how == "offset":
            struct.pack_into("<I", data, at + 42, chance.choice((0, len(data) - 1, chance.choice(records))))
        elif how == "local":
            local = struct.unpack_from("<I", data, at + 42)[0]
            data[local + chance.randrange(30)] = chance.randrange(256)
    if how == "end":
        data[central + chance.randrange(4, 22)] = chance.randrange(256)
    if how == "cut":
        del data[chance.randrange(len(data)) :]
    work.path.write_bytes(data)
    return Change(f"zip: {how}, {len(some)} entries")


def zip_entries(work: Work) -> Change:
    """Names that lead outside, names twice, links, another method of packing, a password."""
    files, chance = read_store(work.path), work.chance
    how = chance.choice(("traversal", "absolute", "twice", "link", "packed", "prefix", "secret", "drive"))
    with warnings.catch_warnings(), zipfile.ZipFile(work.path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)
        for name, body in files.items():
            method = chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            archive.writestr(f"slide/{name}" if how == "prefix" else name, body, method if how == "packed" else None)
        if how in ("traversal", "absolute", "drive"):
            place = {"traversal": "../../outside.txt", "absolute": "/tmp/outside.txt", "drive": "C:\\outside.txt"}[how]
            archive.writestr(place, b"outside")
        if how == "twice":
            name = chance.choice(sorted(files))
            archive.writestr(name, chance.choice((b"", files[chance.choice(sorted(files))])))
        if how == "link":
            link = zipfile.ZipInfo(chance.choice(sorted(files)) + ".link")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
    if how == "secret":
        data = bytearray(work.path.read_bytes())
        for at in range(len(data) - 4):
            if data[at : at + 4] == b"PK\x01\x02":
                data[at + 8] |= 1
        work.path.write_bytes(data)
    return Change(f"zip: {how}")


ZIPS: dict[str, Mutation] = {"zip_bytes": zip_bytes, "zip_entries": zip_entries}
"""Mutations of the archive."""
