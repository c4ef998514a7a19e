"""Build the extension for QuPath as a jar, from its sources here and the scripts beside: no network, no Gradle.

python plugins/qupath/extension/build.py --qupath /opt/QuPath/lib/app -o wsi-attention-qupath.jar
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SCRIPTS = ("WsiAttention.groovy", "WsiAttentionFiles.groovy", "WsiAttentionFrame.groovy")
JAVA = "17"
"""Of QuPath 0.4 and 0.5; later versions run it too."""
TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in the jar, so that the same sources give the same jar."""


def build(qupath: str, jar: Path) -> None:
    """Compile the sources and write the jar whole.

    Args:
        qupath: folders of jars or of classes, and jars, with `:` (on Windows `;`) between them; QuPath's are in
            `lib/app` of an installation.
        jar: where to.

    Raises:
        SystemExit: javac is missing, or does not compile the sources.
    """
    with TemporaryDirectory() as folder:
        classes = Path(folder)
        compile_sources(class_path(qupath), classes)
        part = jar.with_name(f".tmp-{jar.name}")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents(classes):
                archive.writestr(zipfile.ZipInfo(name, TIME), content, zipfile.ZIP_DEFLATED)
        part.replace(jar)


def class_path(given: str) -> str:
    """Return the class path for javac: a folder that holds jars stands for all of them."""
    separator = ";" if sys.platform == "win32" else ":"
    parts = [Path(part) for part in given.split(separator) if part]
    found = [str(part / "*") if any(part.glob("*.jar")) else str(part) for part in parts]
    return separator.join(found)


def compile_sources(path: str, classes: Path) -> None:
    """Compile all sources into a folder; warnings are errors."""
    sources = sorted(map(str, (HERE / "src").rglob("*.java")))
    options = ["--release", JAVA, "-encoding", "UTF-8", "-Xlint:all,-processing,-path,-classfile", "-Werror"]
    try:
        done = subprocess.run(["javac", *options, "-proc:none", "-cp", path, "-d", str(classes), *sources], check=False)
    except FileNotFoundError:
        raise SystemExit("no javac here: install a Java development kit, version 17 or later") from None
    if done.returncode:
        raise SystemExit(f"javac ended with status {done.returncode}; is --qupath the folder lib/app of a QuPath?")


def contents(classes: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of all that is in the jar, the manifest first."""
    yield "META-INF/MANIFEST.MF", manifest().encode()
    for folder in (classes, HERE / "resources"):
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            yield path.relative_to(folder).as_posix(), path.read_bytes()
    for name in SCRIPTS:
        yield name, (HERE.parent / name).read_bytes()


def manifest() -> str:
    """Return the manifest; QuPath shows the version in it."""
    told = re.search(r'^__version__ = "(.+)"$', (ROOT / "wsi_attention/__init__.py").read_text(encoding="utf-8"), re.M)
    if told is None:
        raise SystemExit("wsi_attention/__init__.py names no version: build in a whole checkout")
    facts = {
        "Manifest-Version": "1.0",
        "Implementation-Title": "wsi-attention",
        "Implementation-Version": told[1],
    }
    return "".join(f"{name}: {value}\r\n" for name, value in facts.items()) + "\r\n"


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qupath", required=True, help="the folder lib/app of a QuPath installation")
    parser.add_argument("-o", "--output", type=Path, default=Path("wsi-attention-qupath.jar"))
    given = parser.parse_args()
    build(given.qupath, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
