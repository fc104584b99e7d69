"""Checks a store of images without the engine's code: hashes its content, and what a save gives.

usage: store.py DATA_ROOT SAVED.tar
Prints one line for each fault; ends with 1 if there is one.
"""

import hashlib
import json
import pathlib
import sys
import tarfile


def digest(file):
    hasher = hashlib.sha256()
    while piece := file.read(1 << 20):
        hasher.update(piece)
    return hasher.hexdigest()


def content(root):
    for path in sorted((root / "content/sha256").iterdir()):
        with path.open("rb") as file:
            got = digest(file)
        if got != path.name:
            yield f"content {path.name} has digest {got}"
    for place in ["content/quarantine", "snapshots/quarantine"]:
        for path in (root / place).iterdir():
            yield f"{place}/{path.name} was set aside"


def saved(path):
    """Every layer of a save is rebuilt from its files: its digest must be the diffID of its image."""
    digests, documents = {}, {}
    with tarfile.open(path) as archive:
        for entry in archive:
            if not entry.isfile():
                continue
            file = archive.extractfile(entry)
            if entry.size < 1 << 16:
                raw = file.read()
                documents[entry.name] = raw
                digests[entry.name] = hashlib.sha256(raw).hexdigest()
            else:
                digests[entry.name] = digest(file)
    for name, got in digests.items():
        if name.startswith("blobs/sha256/") and name.rsplit("/", 1)[1] != got:
            yield f"{name} of the save has digest {got}"
    for image in json.loads(documents["manifest.json"]):
        config = json.loads(documents[image["Config"]])
        diff_ids = config["rootfs"]["diff_ids"]
        layers = [f"sha256:{digests[layer]}" for layer in image["Layers"]]
        if layers != diff_ids:
            yield f"{image['RepoTags']} has layers {layers}, its configuration {diff_ids}"


def main():
    root, archive = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    faults = list(content(root))
    if archive.stat().st_size:
        faults += saved(archive)
    print("\n".join(faults))
    sys.exit(bool(faults))


main()
