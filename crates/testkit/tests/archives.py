#!/usr/bin/env python3
"""Makes image archives as the world has them, odd ones and hostile ones. usage: archives.py DIRECTORY

good-NAME.tar is to be loaded by every engine, bad-NAME.tar by none. own-NAME.tar is loaded by Gantry and not by every
Docker: OCI layouts without a manifest.json, more than 125 layers, one name twice in a layer.
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

out = sys.argv[1]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def entry(name, kind=tarfile.REGTYPE, mode=0o644, **more):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1_000_000
    for key, value in more.items():
        setattr(info, key, value)
    return info


def archive(entries, form=tarfile.PAX_FORMAT, encoding="utf-8"):
    """Entries are (TarInfo, content or None)."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=form, encoding=encoding, errors="surrogateescape") as tar:
        for info, content in entries:
            if content is not None:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return memory.getvalue()


def configuration(layers, architecture="amd64", **more):
    return json.dumps({
        "architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer) for layer in layers]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"step {n}"} for n in range(len(layers))], **more,
    }).encode()


def docker_archive(images, pack=lambda layer: layer, more=()):
    """`images` is a list of (tags, layers, configuration)."""
    entries, manifest = list(more), []
    for number, (tags, layers, config) in enumerate(images):
        names = []
        for level, layer in enumerate(layers):
            names.append(f"{number}-{level}/layer.tar")
            entries.append((entry(names[-1]), pack(layer)))
        entries.append((entry(digest(config) + ".json"), config))
        manifest.append({"Config": digest(config) + ".json", "RepoTags": tags, "Layers": names})
    entries.append((entry("manifest.json"), json.dumps(manifest).encode()))
    return archive(entries)


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def oci_archive(name, manifests, index_first=True):
    """`manifests` is a list of (architecture, layers, pack, media type's ending)."""
    blobs, descriptors = {}, []

    def blob(data):
        blobs[digest(data)] = data
        return {"digest": "sha256:" + digest(data), "size": len(data)}

    for architecture, layers, pack, ending in manifests:
        config = configuration(layers, architecture)
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar" + ending, **blob(pack(layer))}
                       for layer in layers],
        }).encode()
        descriptors.append({"mediaType": "application/vnd.oci.image.manifest.v1+json", **blob(manifest),
                            "platform": {"os": "linux", "architecture": architecture}})
    inner = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                        "manifests": descriptors}).encode()
    index = {"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", **blob(inner),
         "annotations": {"io.containerd.image.name": f"docker.io/library/{name}",
                         "org.opencontainers.image.ref.name": name.split(":")[1]}}]}
    entries = [(entry("oci-layout"), b'{"imageLayoutVersion":"1.0.0"}'), (entry("index.json"), json.dumps(index).encode())]
    entries += [(entry("blobs/sha256/" + key), data) for key, data in blobs.items()]
    return archive(entries)


def put(name, data):
    with open(os.path.join(out, name + ".tar"), "wb") as file:
        file.write(data)


def one(name, *layers, start="good-", **more):
    put(start + name, docker_archive([([f"odd-{name}:1"], layers, configuration(layers))], **more))


def bad(name, *layers):
    put("bad-" + name, docker_archive([([f"bad-{name}:1"], layers, configuration(layers))]))


directory = tarfile.DIRTYPE
plain = archive([(entry("d/", directory, 0o755), None), (entry("d/f"), b"content"), (entry("e"), b"")])
capability = bytes([1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).decode("latin-1")

one("plain", plain)
one("gzip-layer", plain, pack=gzip.compress)
one("zstd-layer", plain, pack=zstd)
put("good-gzip-archive", gzip.compress(docker_archive([(["odd-gzip-archive:1"], [plain], configuration([plain]))])))
put("good-zstd-archive", zstd(docker_archive([(["odd-zstd-archive:1"], [plain], configuration([plain]))])))
put("good-tags", docker_archive([
    (["odd-tags:1", "odd-tags:2", "localhost:5000/odd/tags:3"], [plain], configuration([plain])),
    (["odd-tags:other"], [plain, plain], configuration([plain, plain])),
]))
one("empty-layers", plain, archive([]), b"\0" * 1024)
put("good-no-layer", docker_archive([(["odd-no-layer:1"], [], configuration([]))]))
one("hard-links", archive([
    (entry("a"), b"linked"), (entry("b", tarfile.LNKTYPE, linkname="a"), None),
    (entry("s", directory, 0o755), None),
    (entry("s/c", tarfile.LNKTYPE, linkname="./a"), None), (entry("s/d", tarfile.LNKTYPE, linkname="/a"), None),
    (entry("l", tarfile.SYMTYPE, linkname="/nowhere"), None), (entry("m", tarfile.LNKTYPE, linkname="l"), None),
]))
one("whiteouts", plain, archive([(entry("d/.wh.f"), b""), (entry(".wh.e"), b"")]),
    archive([(entry("d/.wh..wh..opq"), b""), (entry("d/new"), b"n"), (entry(".wh.never"), b"")]))
one("devices", archive([
    (entry("null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3), None),
    (entry("disk", tarfile.BLKTYPE, 0o660, devmajor=259, devminor=300), None),
    (entry("fifo", tarfile.FIFOTYPE, 0o600), None),
]))
one("attributes", archive([
    (entry("cap", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}), b"#!"),
    (entry("note", pax_headers={"SCHILY.xattr.user.note": "a=b\nc"}), b"x"),
    (entry("suid", mode=0o6755, uid=1000, gid=70000), b"s"), (entry("old", pax_headers={"mtime": "-5.5"}), b"o"),
    (entry("uid", uid=3_000_000), b"u"),
]))
long = "/".join(["n" * 90] * 4)
one("long-pax", archive([(entry(long), b"l"), (entry("link", tarfile.SYMTYPE, linkname=long), None)]))
one("long-gnu", archive([(entry(long), b"l"), (entry("link", tarfile.SYMTYPE, linkname=long), None)], tarfile.GNU_FORMAT))
latin = "caf\udce9\udcff"
one("not-utf8", archive([(entry(latin), b"x"), (entry("d/" + latin, directory, 0o755), None)], tarfile.GNU_FORMAT))
one("127-layers", *[archive([(entry(f"f{number}"), b"%d" % number)]) for number in range(127)], start="own-")
one("replaced", archive([
    (entry("a"), b"first"), (entry("b", tarfile.LNKTYPE, linkname="a"), None), (entry("a"), b"second"),
    (entry("d/x/y"), b"deep"), (entry("d", directory, 0o700), None), (entry("d/x/y"), b"again"),
]), start="own-")
one("dotted", archive([(entry("./"  , directory, 0o711), None), (entry("./a"), b"a"), (entry(".//b/./c"), b"c")]))
one("rooted", archive([(entry("/etc/x"), b"x"), (entry("up", tarfile.SYMTYPE, linkname="../../.."), None)]))
one("garbage-at-the-end", plain + b"trailing garbage" * 64)
put("own-oci-platforms", oci_archive("odd-oci-platforms:1", [
    ("s390x", [archive([(entry("other"), b"o")])], gzip.compress, "+gzip"), ("amd64", [plain, archive([])], gzip.compress, "+gzip"),
]))
put("own-oci-zstd", oci_archive("odd-oci-zstd:1", [("amd64", [plain], zstd, "+zstd")]))
put("own-oci-plain", oci_archive("odd-oci-plain:1", [("amd64", [plain], lambda layer: layer, "")]))


def header(name, size_field, kind=b"0"):
    """A header by hand, for sizes that no tool writes."""
    block = bytearray(512)
    block[:len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = size_field
    block[136:148] = b"00003641100\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


big = b"\x80" + (1 << 62).to_bytes(11, "big")
end = b"\0" * 1024
bad("huge-file", header(b"huge", big) + b"x" * 512 + end)
bad("negative-size", header(b"negative", b"\xff" * 12) + b"x" * 512 + end)
bad("huge-long-name", header(b"././@LongLink", big, b"L") + b"x" * 512 + end)
bad("huge-pax", header(b"pax", b"77777777777\0", b"x") + b"x" * 512 + end)
bad("octal-nonsense", header(b"octal", b"00000zzzzzz\0") + b"x" * 512 + end)
bad("truncated-layer", plain[:700])
bad("escape-by-dots", archive([(entry("../../../../../../tmp/escaped"), b"evil")]))
bad("escape-by-hard-link", archive([(entry("h", tarfile.LNKTYPE, linkname="../../../../../../etc/passwd"), None)]))
bad("missing-hard-link-target", archive([(entry("h", tarfile.LNKTYPE, linkname="no/such"), None)]))
bad("whiteout-of-the-parent", archive([(entry("a/.wh..."), b"")]))
whole = docker_archive([(["bad-truncated:1"], [plain], configuration([plain]))])
put("bad-truncated", whole[:len(whole) // 3])
put("bad-huge-manifest", header(b"manifest.json", big) + b"[" * 512 + end)
put("bad-nested-manifest", archive([(entry("manifest.json"), b"[" * 200_000)]))
put("bad-manifest-escapes", archive([(entry("manifest.json"), json.dumps(
    [{"Config": "../../../../etc/passwd", "RepoTags": ["bad-x:1"], "Layers": []}]).encode())]))
put("bad-layer-link-escapes", archive([
    (entry("0/layer.tar", tarfile.SYMTYPE, linkname="../../../../../../etc/passwd"), None),
    (entry("c.json"), configuration([archive([(entry("of-no-other-archive"), b"")])])),
    (entry("manifest.json"), json.dumps([{"Config": "c.json", "RepoTags": ["bad-x:1"], "Layers": ["0/layer.tar"]}]).encode()),
]))
