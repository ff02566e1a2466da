"""Searches a process's memory for keys, from outside: it works them out by itself from what is stored.

The standard input is a document:
  pid        the process
  root_keys  the digits of each root key
  versions   [key, version, wrapped in hexadecimal] of each master key's versions, as the catalog has them
  blobs      the directory of the blobs

What is printed is a document:
  keys       the digits of every key, by its name
  found      [name, form, region, flags] of each place where one was found; the flags are those of /proc/PID/smaps
  refused    true where this process may not read that one's memory
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PIECE = 4 << 20


def hkdf(salt, key, info, length=32):
    extracted = hmac.new(salt, key, hashlib.sha256).digest()
    out, block = b"", b""
    while len(out) < length:
        block = hmac.new(extracted, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256).digest()
        out += block
    return out[:length]


def opened(key, sealed, aad):
    assert sealed[0] == 1, "the form of what is sealed under a key that seals often"
    return AESGCM(key).decrypt(sealed[1:13], sealed[13:], aad)


def opened_salted(material, purpose, sealed, aad):
    assert sealed[0] == 2, "the form of what is sealed under a salt"
    both = hkdf(sealed[1:33], material, purpose, 44)
    return AESGCM(both[:32]).decrypt(both[32:], sealed[33:], aad)


def data_key(manifest, masters):
    """The data key of a blob: the layout is that of manifest.rs."""
    assert manifest[:8] == b"CALOBLOB", "a manifest"
    blob, at = manifest[10:26], 26
    name = manifest[at + 1 : at + 1 + manifest[at]].decode()
    at += 1 + manifest[at]
    version, length = struct.unpack_from(">IH", manifest, at)
    wrapped = manifest[at + 6 : at + 6 + length]
    number = struct.pack(">I", version)
    if name == "service":
        return opened(masters["service", version], wrapped, b"calotype data key\0" + number + blob)
    kind, _, key = name.partition(":")
    assert kind == "key", "a key of the embedded key service's"
    aad = b"calotype data key of a customer's\0" + uuid.UUID(key).bytes + number + blob
    return opened_salted(masters[key, version], b"blob data keys", wrapped, aad)


def all_keys(given):
    keys, masters = {}, {}
    roots = [bytes.fromhex(digits) for digits in given["root_keys"]]
    for number, root in enumerate(roots):
        keys[f"root key {number}"] = root
        keys[f"root key {number}, for master keys"] = hkdf(b"calotype service key 1", root, b"master keys")
    for name, version, wrapped in given["versions"]:
        aad = b"calotype master key\0" + struct.pack(">I", version) + name.encode()
        for root in roots:
            try:
                wraps = hkdf(b"calotype service key 1", root, b"master keys")
                masters[name, version] = opened(wraps, bytes.fromhex(wrapped), aad)
            except InvalidTag:
                continue
        keys[f"master key {name} {version}"] = masters[name, version]
    for path in sorted(pathlib.Path(given["blobs"]).glob("blobs/*/*/manifest")):
        key = data_key(path.read_bytes(), masters)
        name = f"of blob {path.parent.name}"
        keys[f"data key {name}"] = key
        for purpose in (b"pages", b"manifest"):
            keys[f"key for {purpose.decode()} {name}"] = hkdf(b"calotype blob 1", key, purpose)
    return keys


def regions(pid):
    """What is mapped: [from, to, name, whether it can be read, flags]."""
    region = None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            fields = line.split(None, 5)
            begin, end = (int(address, 16) for address in head.split("-"))
            region = [begin, end, fields[5] if len(fields) > 5 else "", fields[1][0] == "r", []]
        elif head == "VmFlags:":
            region[4] = line.split()[1:]
            yield region


def search(pid, needles):
    longest = max(len(needle) for _, _, needle in needles)
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end, name, readable, flags in regions(pid):
            if not readable or name.startswith("[v"):
                continue
            at, rest = begin, b""
            while at < end:
                try:
                    memory.seek(at)
                    piece = memory.read(min(PIECE, end - at))
                except OSError:
                    # It was unmapped meanwhile.
                    break
                if not piece:
                    break
                at += len(piece)
                if piece.count(0) == len(piece):
                    rest = b""
                    continue
                both = rest + piece
                for what, form, needle in needles:
                    if needle in both:
                        found.append([what, form, f"{begin:x}-{end:x} {name}", flags])
                rest = both[-longest:]
    return found


def main():
    given = json.load(sys.stdin)
    keys = all_keys(given)
    needles = []
    for name, key in keys.items():
        digits = key.hex()
        needles.append((name, "bytes", key))
        needles += [(name, "digits", text.encode()) for text in (digits, digits.upper())]
    answer = {"keys": {name: key.hex() for name, key in keys.items()}, "found": [], "refused": False}
    try:
        answer["found"] = search(given["pid"], needles)
    except PermissionError:
        answer["refused"] = True
    json.dump(answer, sys.stdout)


main()
