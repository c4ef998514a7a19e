"""Run the steps of the Dockerfile in a fresh Debian root, where there is no Docker engine: as root, with `chroot`.

    apt-get install debootstrap
    python tests/packaging/fresh_root.py [--arg TORCH_INDEX=…] [--wheels FOLDER] [--keep]

What differs from Docker: the base is Debian's own Python in a root that debootstrap makes, not the image `python`; no
layers; the network is this machine's. COPY, RUN, ARG, ENV, WORKDIR, USER and ENTRYPOINT are carried out as they stand.
`--wheels` is a folder of wheels for pip where the index of PyTorch cannot be reached: `--index-url` is then taken out.
At the end the entry point classifies a sample slide as the image's user, and its rows are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = "python3-venv,ca-certificates"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


class Image:
    """A root folder and what the steps so far have set."""

    def __init__(self, root: Path, given: dict[str, str], wheels: Path | None) -> None:
        self.root, self.given, self.wheels = root, given, wheels
        self.values = {"PATH": "/venv/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root"}
        self.user, self.folder, self.entry = "root", "/", [""]

    def step(self, name: str, rest: str) -> None:
        """Carry out one instruction."""
        print(f"{name} {rest}", flush=True)
        if name == "ARG":
            key, _, default = rest.partition("=")
            self.values[key] = self.given.get(key, default.strip('"'))
        elif name == "ENV":
            self.values.update(one.split("=", 1) for one in shlex.split(rest))
        elif name == "COPY":
            self.copy(*shlex.split(rest))
        elif name == "RUN":
            self.run(["/bin/sh", "-c", self.reachable(rest)])
        elif name == "WORKDIR":
            self.folder = rest
        elif name == "USER":
            self.user = rest
        elif name == "ENTRYPOINT":
            self.entry = json.loads(rest)
        elif name not in ("FROM", "CMD"):
            sys.exit(f"{name} is not known here")

    def reachable(self, command: str) -> str:
        """Return the command with wheels from the folder where one is given."""
        offline = re.sub(r"--index-url \S+", "--find-links /wheels 'torch<=2.13.0'", command)
        return offline.replace("install torch ", "install ") if self.wheels and "--index-url" in command else command

    def copy(self, *paths: str) -> None:
        """Copy files, and what folders hold, as COPY does."""
        *sources, target = paths
        place = self.root / target.lstrip("/")
        for source in (ROOT / one for one in sources):
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place / source.name)

    def run(self, command: list[str]) -> None:
        """Run a command in the root, as the user of the image."""
        values = [f"{key}={value}" for key, value in self.values.items()]
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(command)}"
        who = ["chroot", f"--userspec={self.user}", str(self.root)]
        subprocess.run([*who, "/usr/bin/env", "-i", *values, "/bin/sh", "-c", inside], check=True)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (name, rest) of each instruction."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    split = (line.partition(" ") for line in lines if line.strip() and not line.startswith("#"))
    return [(name, rest.strip()) for name, _, rest in split]


def base(root: Path) -> None:
    """Make a small Debian with Python, and a `python` on the PATH as the image has it."""
    made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
    subprocess.run([*made, "http://deb.debian.org/debian"], check=True, stdout=subprocess.DEVNULL)
    shutil.copy("/" + CERTIFICATES, root / CERTIFICATES)  # also those of a proxy between here and the registry
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy("/" + name, root / name)
    subprocess.run(["chroot", str(root), "python3", "-m", "venv", "/venv"], check=True)


def mounted(source: str, root: Path) -> Path:
    """Bind a folder of this machine into the root; return where."""
    place = root / Path(source).name
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", source, str(place)], check=True)
    return place


def main() -> None:
    """Make the root, run all steps, classify, and remove the root again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arg", action="append", default=[], help="NAME=VALUE, as docker's --build-arg")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the root where it is")
    asked = parser.parse_args()
    root = Path(mkdtemp(prefix="fresh-root-"))
    root.chmod(0o755)
    bound: list[Path] = []
    try:
        base(root)
        bound.append(mounted("/proc", root))
        if asked.wheels:
            shutil.copytree(asked.wheels, root / "wheels", ignore=shutil.ignore_patterns("__pycache__"))
        image = Image(root, dict(one.split("=", 1) for one in asked.arg), asked.wheels)
        proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
        image.values.update(proxies | {"PIP_CERT": f"/{CERTIFICATES}"})
        for name, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
            image.step(name, rest)
        shutil.copytree(ROOT / "sample_slides", root / "work" / "slides")
        image.run([*image.entry, "classify", "-i", "slides/sample_01.svs", "-o", "results", "-m", "demo"])
        image.run(["/bin/sh", "-c", "id -un; du -sh /venv; ls -l results; cat results/predictions.csv"])
    finally:
        for place in bound:
            subprocess.run(["umount", "-l", str(place)], check=False)
        if asked.keep:
            print(root)
        else:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
