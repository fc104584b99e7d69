#!/usr/bin/python3
"""Makes archives of images that share layers. usage: images.py DIRECTORY HOST COUNT

DIRECTORY/N.tar is HOST/crash/N:1: two layers that all have, three of its own. Half of the content compresses.
"""
import hashlib, io, json, os, random, sys, tarfile

out, host, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = random.Random(1)


def layer(name, files):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for number in range(files):
            content = source.randbytes(20_000) + b"line of text\n" * 1500
            info = tarfile.TarInfo(f"{name}/{number}")
            info.size, info.mtime = len(content), 1_000_000
            archive.addfile(info, io.BytesIO(content))
    return memory.getvalue()


shared = [layer(f"shared{number}", 25) for number in range(2)]
for image in range(count):
    layers = shared + [layer(f"own{image}-{number}", 40) for number in range(3)]
    ids = [hashlib.sha256(content).hexdigest() for content in layers]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for digest in ids]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [f"{host}/crash/{image}:1"], "Layers": [f"{digest}/layer.tar" for digest in ids]}])
    with tarfile.open(os.path.join(out, f"{image}.tar"), "w") as archive:
        for path, content in [(f"{digest}/layer.tar", content) for digest, content in zip(ids, layers)] + [
                (name, config), ("manifest.json", manifest.encode())]:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
