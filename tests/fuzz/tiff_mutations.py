"""Mutations of a TIFF's bytes that know what stands where: tags, directories, tables of tiles, JPEG streams."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from base_slides import MPP
from mutant import Change, Lost, Work
from tiff_file import (
    BITS,
    COMPRESSION,
    COUNTS,
    DESCRIPTION,
    HEIGHT,
    OFFSETS,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    SAMPLES,
    SUBFILE,
    SUBIFDS,
    SUBSAMPLING,
    TABLES,
    TILE_HEIGHT,
    TILE_WIDTH,
    UNIT,
    WHOLE,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    Entry,
    TiffBytes,
)

NAMES = {
    WIDTH: "width", HEIGHT: "height", BITS: "bits", COMPRESSION: "compression", PHOTOMETRIC: "photometric",
    DESCRIPTION: "description", SAMPLES: "samples", X_RESOLUTION: "x resolution", Y_RESOLUTION: "y resolution",
    PLANAR: "planar configuration", UNIT: "resolution unit", PREDICTOR: "predictor", TILE_WIDTH: "tile width",
    TILE_HEIGHT: "tile height", OFFSETS: "tile offsets", COUNTS: "tile byte counts", SUBIFDS: "sub-directories",
    TABLES: "JPEG tables", SUBSAMPLING: "subsampling", SUBFILE: "subfile type",
}  # fmt: skip
ODD = (0, 1, 2, 3, 5, 7, 15, 16, 17, 255, 256, 257, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
COMPRESSIONS = (0, 1, 2, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 34887, 34925, 50000, 50001, 50002, 65000)
PHOTOMETRICS = (0, 1, 2, 3, 4, 5, 6, 8, 32803, 34892, 65535)

Mutation = Callable[[Work], Change]


def in_bytes(change: Callable[[TiffBytes, Random], str]) -> Mutation:
    """A mutation of a slide from one that changes a TIFF's bytes."""

    def mutate(work: Work) -> Change:
        tiff = TiffBytes(work.path.read_bytes())
        what = change(tiff, work.chance)
        work.path.write_bytes(tiff.data)
        return Change(what)

    return mutate


def _name(tag: int) -> str:
    return NAMES.get(tag, f"tag {tag}")


def _any_directory(tiff: TiffBytes, chance: Random) -> Directory:
    return chance.choice([*tiff.pyramid()[:1] * 3, *tiff.directories])


def _of(tiff: TiffBytes, directory: Directory) -> str:
    return f"directory {tiff.directories.index(directory)}"


def _put(tiff: TiffBytes, chance: Random, tag: int, values: tuple[int, ...]) -> str:
    directory = chance.choice([one for one in tiff.directories if one.entry(tag)] or list(tiff.directories))
    entry = directory.entry(tag) or chance.choice(directory.entries)
    if entry.type not in WHOLE:
        return _count(tiff, chance)
    value, index = chance.choice(values), chance.randrange(entry.count) if entry.count else 0
    tiff.put_value(entry, value, index)
    return f"{_of(tiff, directory)}: {_name(entry.tag)}[{index}] = {value}"


def _sizes(tiff: TiffBytes, chance: Random) -> str:
    directory, tag = _any_directory(tiff, chance), chance.choice((WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT))
    entry = directory.entry(tag)
    if entry is None:
        return _put(tiff, chance, WIDTH, ODD)
    now = tiff.values(entry)[0]
    value = chance.choice((*ODD, now // 2, now * 2, now - 1, now + 1, now + 16, now - 16, now * 3 // 4))
    tiff.put_value(entry, value)
    return f"{_of(tiff, directory)}: {_name(tag)} {now} = {value}"


def _compression(tiff: TiffBytes, chance: Random) -> str:
    return _put(tiff, chance, COMPRESSION, COMPRESSIONS)


def _photometric(tiff: TiffBytes, chance: Random) -> str:
    return _put(tiff, chance, PHOTOMETRIC, PHOTOMETRICS)


def _layout(tiff: TiffBytes, chance: Random) -> str:
    tag = chance.choice((PLANAR, SAMPLES, BITS, PREDICTOR, SUBSAMPLING, SUBFILE, UNIT))
    return _put(tiff, chance, tag, (0, 1, 2, 3, 4, 5, 8, 9, 16, 32, 255, 65535))


def _resolution(tiff: TiffBytes, chance: Random) -> str:
    directory = tiff.pyramid()[0]
    found = [entry for tag in (X_RESOLUTION, Y_RESOLUTION) if (entry := directory.entry(tag))]
    if not found:
        return _count(tiff, chance)
    done = []
    for entry in chance.sample(found, chance.randint(1, len(found))):
        over, under = chance.choice(((0, 0), (0, 1), (1, 0), (2**32 - 1, 1), (1, 2**32 - 1), (72, 1), (20000, 3)))
        tiff.put(entry.values_at, "I", over)
        tiff.put(entry.values_at + 4, "I", under)
        done.append(f"{_name(entry.tag)} {over}/{under}")
    return ", ".join(done)


def _tables_of_tiles(tiff: TiffBytes, chance: Random) -> str:
    directory = chance.choice(tiff.pyramid())
    tag = chance.choice((OFFSETS, COUNTS))
    entry = directory.entry(tag)
    assert entry is not None
    now = tiff.values(entry)
    some = chance.sample(range(len(now)), chance.randint(1, len(now)))
    how = chance.choice(("zero", "end", "huge", "one", "other", "less", "more"))
    end = len(tiff.data)
    for index in some:
        value = {
            "zero": 0, "end": end - 1, "huge": 2**32 - 1, "one": 1, "other": chance.choice(now),
            "less": now[index] // 2, "more": now[index] * 2,
        }[how]  # fmt: skip
        tiff.put_value(entry, value, index)
    return f"{_of(tiff, directory)}: {_name(tag)} {how} at {sorted(some)}"


def _any_entry(tiff: TiffBytes, chance: Random) -> tuple[Directory, Entry]:
    directory = _any_directory(tiff, chance)
    return directory, chance.choice(directory.entries)


def _count(tiff: TiffBytes, chance: Random) -> str:
    directory, entry = _any_entry(tiff, chance)
    value = chance.choice((0, entry.count - 1, entry.count + 1, entry.count * 2, *ODD))
    tiff.put_count(entry, value)
    return f"{_of(tiff, directory)}: count of {_name(entry.tag)} {entry.count} = {value}"


def _type(tiff: TiffBytes, chance: Random) -> str:
    directory, entry = _any_entry(tiff, chance)
    value = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 99, 65535))
    tiff.put_type(entry, value)
    return f"{_of(tiff, directory)}: type of {_name(entry.tag)} {entry.type} = {value}"


def _pointer(tiff: TiffBytes, chance: Random) -> str:
    directory, entry = _any_entry(tiff, chance)
    value = chance.choice((0, 4, directory.at, len(tiff.data) - 1, len(tiff.data) + 9, 2**31, 2**32 - 1))
    tiff.put_pointer(entry, value)
    return f"{_of(tiff, directory)}: values of {_name(entry.tag)} at {value}"


def _tag(tiff: TiffBytes, chance: Random) -> str:
    directory, entry = _any_entry(tiff, chance)
    value = chance.choice((0, 60000, *NAMES, entry.tag + 1))
    tiff.put_tag(entry, value)
    return f"{_of(tiff, directory)}: {_name(entry.tag)} is now {_name(value)}"


def _chain(tiff: TiffBytes, chance: Random) -> str:
    places = [(f"next of {_of(tiff, one)}", one.next_at) for one in tiff.directories]
    places.append(("the first directory", 8 if tiff.big else 4))
    places += [
        (f"sub-directory {i} of {_of(tiff, one)}", entry.values_at + i * (8 if entry.type in (16, 18) else 4))
        for one in tiff.directories
        if (entry := one.entry(SUBIFDS))
        for i in range(entry.count)
    ]
    name, at = chance.choice(places)
    others = [one.at for one in tiff.directories]
    value = chance.choice((0, 1, 8, *others, others[0], len(tiff.data) - 2, len(tiff.data) + 100, 2**32 - 1))
    tiff.put(at, tiff.word, value)
    return f"{name} = {value}"


def _truncated(tiff: TiffBytes, chance: Random) -> str:
    keep = chance.choice((0, 2, 8, 16, 100, *(round(len(tiff.data) * chance.random()) for _ in range(6))))
    if chance.random() < 0.3:
        tiff.data[keep:] = bytes(len(tiff.data) - keep)
        return f"zeros from byte {keep} of {len(tiff.data)}"
    whole = len(tiff.data)
    del tiff.data[keep:]
    return f"{keep} of {whole} bytes"


def _flipped(tiff: TiffBytes, chance: Random) -> str:
    directory = _any_directory(tiff, chance)
    places = [chance.randrange(directory.at, min(directory.next_at + 8, len(tiff.data))) for _ in range(3)]
    for at in places:
        tiff.data[at] = chance.randrange(256)
    return f"{_of(tiff, directory)}: other bytes at {sorted(places)}"


def _tiles(tiff: TiffBytes, directory: Directory) -> list[tuple[int, int]]:
    offsets, counts = directory.entry(OFFSETS), directory.entry(COUNTS)
    assert offsets is not None and counts is not None
    return list(zip(tiff.values(offsets), tiff.values(counts), strict=True))


def _noise(tiff: TiffBytes, chance: Random) -> str:
    level = chance.randrange(len(tiff.pyramid()))
    tiles = [tile for tile in _tiles(tiff, tiff.pyramid()[level]) if tile[1] > 8]
    some = chance.sample(tiles, chance.randint(1, len(tiles)))
    share = chance.choice((0.001, 0.01, 0.2, 1.0))
    for at, size in some:
        for _ in range(max(1, round(size * share))):
            tiff.data[at + chance.randrange(size)] = chance.randrange(256)
    return f"level {level}: {share:.1%} of the bytes of {len(some)} of {len(tiles)} tiles are others"


def _jpeg(tiff: TiffBytes, chance: Random) -> str:
    level = chance.randrange(len(tiff.pyramid()))
    directory = tiff.pyramid()[level]
    table = directory.entry(TABLES)
    streams = _tiles(tiff, directory) + ([(table.values_at, table.count)] if table else [])
    streams = [stream for stream in streams if tiff.data[stream[0] : stream[0] + 2] == b"\xff\xd8"]
    if not streams:
        return _noise(tiff, chance)
    some, done = chance.sample(streams, chance.randint(1, len(streams))), set()
    marker = chance.choice((0xC0, 0xC4, 0xDB, 0xDA, 0xD9, 0xD8))
    for at, size in some:
        if found := _segment(tiff.data, at, size, marker):
            done.add(_spoil(tiff, chance, marker, *found))
    return f"level {level}: {len(some)} JPEG streams: {', '.join(sorted(done)) or f'no marker {marker:x} to spoil'}"


def _segment(data: bytearray, at: int, size: int, marker: int) -> tuple[int, int] | None:
    """Where a marker's segment begins and ends."""
    if marker in (0xD8, 0xD9):
        return (at, at + 2) if marker == 0xD8 else (at + size - 2, at + size)
    place, end = at + 2, at + size
    while place + 4 <= end and data[place] == 0xFF:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == marker:
            return place, min(place + 2 + length, end)
        place += 2 + length
    return None


def _spoil(tiff: TiffBytes, chance: Random, marker: int, start: int, end: int) -> str:
    how = chance.choice(("gone", "length", "content"))
    if how == "gone":
        tiff.data[start + 1] = 0xFE
        return f"{marker:x} is a comment"
    if how == "length" and end - start > 4:
        tiff.data[start + 2 : start + 4] = chance.choice((0, 1, 2, 8, 65535)).to_bytes(2, "big")
        return f"length of {marker:x}"
    tiff.data[chance.randrange(start + 2, end) if end - start > 4 else start] = chance.randrange(256)
    return f"content of {marker:x}"


_OF_TEXT: tuple[tuple[bytes, bytes], ...] = (
    (b"MPP = ", b"MPP = -"),
    (b"MPP = ", b"MPP = 1e"),
    (b"|", b"\xff"),
    (b"AppMag = 20", b"AppMag = 0"),
    (b"Aperio", b"\0perio"),
    (b"<?xml", b"<?xm\0"),
    (b"<Pixels", b"<Pixel"),
    (b"SizeX=", b"SizeX=1"),
    (b'SizeC="3"', b'SizeC="4"'),
    (b'Type="uint8"', b'Type="int16"'),
    (b"<TiffData", b"<TiffDate"),
    (b'IFD="0"', b'IFD="9"'),
    (b"</OME>", b""),
    (b"<Image ", b'<!DOCTYPE a [<!ENTITY b "c">]><Image '),
)


def _description(tiff: TiffBytes, chance: Random) -> str:
    entry = tiff.directories[0].entry(DESCRIPTION)
    if entry is None:
        return _tag(tiff, chance)
    text = tiff.text(entry).rstrip(b"\0")
    found = [pair for pair in _OF_TEXT if pair[0] in text] or [(text[:1], b"<")]
    old, new = chance.choice([*found, (text, b""), (text, text * 50), (text[len(text) // 2 :], b"")])
    tiff.replace_text(entry, text.replace(old, new, 1))
    return f"description: {old[:20]!r} = {new[:20]!r}"


def _several(tiff: TiffBytes, chance: Random) -> str:
    return "; ".join(chance.choice((_sizes, _layout, _count, _tables_of_tiles, _tag))(tiff, chance) for _ in range(3))


BYTES: dict[str, Mutation] = {
    change.__name__.strip("_"): in_bytes(change)
    for change in (
        _sizes, _compression, _photometric, _layout, _resolution, _tables_of_tiles, _count, _type, _pointer, _tag,
        _chain, _truncated, _flipped, _noise, _jpeg, _description, _several,
    )
}  # fmt: skip
"""Name -> mutation, for every TIFF."""


def _scaled(tiff: TiffBytes, tags: tuple[int, ...], over: int, under: int, unit: int | None) -> None:
    for directory in tiff.directories:
        for tag in tags:
            if entry := directory.entry(tag):
                tiff.put(entry.values_at, "I", over)
                tiff.put(entry.values_at + 4, "I", under)
        if unit is not None and (found := directory.entry(UNIT)):
            tiff.put_value(found, unit)


def placeholder(work: Work) -> Change:
    """A resolution that programs write when they know none, and no other scale in the file."""
    tiff = TiffBytes(work.path.read_bytes())
    over, under, unit = work.chance.choice(
        ((72, 1, 2), (96, 1, 2), (300, 1, 2), (10, 1, 3), (1, 1, 1), (1, 1, 2), (1, 1, 3), (28346, 1000, 3), (0, 1, 3))
    )
    _scaled(tiff, (X_RESOLUTION, Y_RESOLUTION), over, under, unit)
    work.path.write_bytes(tiff.data)
    return Change(f"resolution {over}/{under}, unit {unit}, in every directory", "scale", None)


def not_square(work: Work) -> Change:
    """Pixels twice as high as wide, in every directory."""
    tiff = TiffBytes(work.path.read_bytes())
    pixels_a_cm = round(1e4 / MPP)
    _scaled(tiff, (Y_RESOLUTION,), pixels_a_cm // 2, 1, None)
    work.path.write_bytes(tiff.data)
    return Change("pixels are twice as high as wide", "scale", None)


def no_tiles(work: Work) -> Change:
    """Tiles with a byte count of 0: some of those with tissue, or some of the glass, at one level or at all."""
    tiff, chance = TiffBytes(work.path.read_bytes()), work.chance
    levels = tiff.pyramid()
    inside, share = chance.random() < 0.7, chance.choice((0.1, 0.3, 0.5, 0.9))
    chosen = levels if chance.random() < 0.6 else levels[:1]
    gone = 0
    for directory in chosen:
        gone += _without_tiles(tiff, directory, work, inside, share)
    work.path.write_bytes(tiff.data)
    where = "in the tissue" if inside else "of glass"
    lost: Lost = "pixels" if inside and gone and len(chosen) > 1 else ""  # the model does not read level 0
    return Change(f"{gone} tiles {where} have no bytes, at {len(chosen)} levels", lost)


def _without_tiles(tiff: TiffBytes, directory: Directory, work: Work, inside: bool, share: float) -> int:
    offsets, counts = directory.entry(OFFSETS), directory.entry(COUNTS)
    assert offsets is not None and counts is not None
    found = [
        index
        for index, box in enumerate(_boxes(tiff, directory))
        if (work.scene.tissue(box) > 0.3 if inside else work.scene.tissue(box) == 0)
    ]
    for index in work.chance.sample(found, min(len(found), max(1, round(share * len(found))))):
        tiff.put_value(counts, 0, index)
        tiff.put_value(offsets, 0, index)
    return min(len(found), max(1, round(share * len(found))))


def _boxes(tiff: TiffBytes, directory: Directory) -> list[tuple[int, int, int, int]]:
    """(x, y, w, h) in level-0 pixels of each tile."""
    width, height, tile = (tiff.value(directory, tag) for tag in (WIDTH, HEIGHT, TILE_WIDTH))
    step = round(tiff.value(tiff.pyramid()[0], WIDTH) / width)
    side = tile * step
    across, down = -(-width // tile), -(-height // tile)
    return [(col * side, row * side, side, side) for row in range(down) for col in range(across)]
