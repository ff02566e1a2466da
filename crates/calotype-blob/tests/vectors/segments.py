"""FLOE anew, from its specification (c2sp.org/FLOE; ePrint 2025/2275), and vectors of our segments made with it.

    python3 segments.py > segments.json                                  (pip install cryptography)
    python3 segments.py open KEY-HEX AAD-HEX ROTATION CIPHERTEXT-HEX-FILE   prints the plaintext's digits

The second form opens any whole message, for known answers of others; ROTATION is 20 but where they say otherwise.

A page has 64 KiB. So that the vectors stay small, it is their ciphertext that is simple: byte i of a page is
(step * i + start) mod 256, and the plaintext, of which they have a digest, is whatever seals to that.
"""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PAGE = 65_536
OVERHEAD = 4 + 12 + 16
SEALED_PAGE = PAGE + OVERHEAD
IV, HEADER_TAG, KDF_KEY = 32, 32, 48
INTERNAL = 0xFFFFFFFF


def hkdf_expand(digest, key, info, length):
    out, block, number = b"", b"", 0
    while len(out) < length:
        number += 1
        block = hmac.new(key, block + info + bytes([number]), digest).digest()
        out += block
    return out[:length]


class Message:
    """The state that a key, an IV and associated data give: what startEncryption and startDecryption share."""

    def __init__(self, key, iv, aad, segment_length, rotation=20):
        self.parameters = struct.pack(">BBII", 0, 0, segment_length, IV)
        self.iv, self.aad, self.rotation, self.segment_length = iv, aad, rotation, segment_length
        self.header = self.parameters + iv + self.derive(key, b"HEADER_TAG:", HEADER_TAG)
        self.key = self.derive(key, b"MESSAGE_KEY:", KDF_KEY)

    def derive(self, key, purpose, length):
        return hkdf_expand("sha384", key, self.parameters + self.iv + purpose + self.aad, length)

    def cipher(self, position):
        masked = position >> self.rotation << self.rotation
        return AESGCM(self.derive(self.key, b"DEK:" + struct.pack(">Q", masked), 32))

    def seal(self, plaintext, position, final, nonce):
        length = len(plaintext) + OVERHEAD
        assert length <= self.segment_length if final else length == self.segment_length
        aad = struct.pack(">QB", position, final)
        sealed = self.cipher(position).encrypt(nonce, plaintext, aad)
        return struct.pack(">I", length if final else INTERNAL) + nonce + sealed

    def open(self, segment, position):
        (length,) = struct.unpack_from(">I", segment)
        final = length != INTERNAL
        assert length == len(segment) if final else len(segment) == self.segment_length
        aad = struct.pack(">QB", position, final)
        return self.cipher(position).decrypt(segment[4:16], segment[16:], aad), final


def open_whole(key, aad, rotation, text):
    parameters = 10
    (segment_length,) = struct.unpack_from(">I", text, 2)
    message = Message(key, text[parameters : parameters + IV], aad, segment_length, rotation)
    header = len(message.header)
    assert hmac.compare_digest(text[:header], message.header), "the header tag"
    at, position, out, final = header, 0, b"", False
    while not final:
        assert at < len(text), "it ends before its last segment"
        plaintext, final = message.open(text[at : at + segment_length], position)
        out, at, position = out + plaintext, at + segment_length, position + 1
    assert at >= len(text), "something follows its last segment"
    return out


def pattern(length, start, step):
    return bytes((step * i + start) & 255 for i in range(length))


def bits(name, length):
    return hashlib.shake_256(b"calotype test vector " + name.encode()).digest(length)


def vector(name, index, segment_pages, lengths, left_out=()):
    """A segment of a blob: the page at each position has so many bytes, and some are not stored."""
    data_key, blob, iv = bits(f"{name} data key", 32), bits(f"{name} blob", 16), bits(f"{name} iv", IV)
    extracted = hmac.new(b"calotype blob 1", data_key, hashlib.sha256).digest()
    key = hkdf_expand("sha256", extracted, b"pages", 32)
    size = segment_pages * PAGE
    aad = b"calotype segment 1\0" + blob + struct.pack(">IQ", index, size)
    message = Message(key, iv, aad, SEALED_PAGE)
    pages = []
    for position, length in enumerate(lengths):
        if position in left_out:
            continue
        last = position == len(lengths) - 1
        start, step, nonce = 11 * position + index & 255, 2 * position + 3, bits(f"{name} {position}", 12)
        wanted = pattern(length, start, step)
        # Sealing is XOR with a stream: what seals to the wanted text is what the wanted text seals to.
        plaintext = message.seal(wanted, position, last, nonce)[16:-16]
        sealed = message.seal(plaintext, position, last, nonce)
        assert sealed[16:-16] == wanted
        pages.append({
            "position": position, "last": last, "length": length,
            "head": sealed[:16].hex(), "start": start, "step": step, "tag": sealed[-16:].hex(),
            "plaintext_begins": plaintext[:16].hex(), "plaintext_sha256": hashlib.sha256(plaintext).hexdigest(),
        })
    return {
        "name": name, "data_key": data_key.hex(), "blob": blob.hex(), "index": index, "segment_pages": segment_pages,
        "associated_data": aad.hex(), "header": message.header.hex(), "pages": pages,
    }


def main():
    if sys.argv[1:2] == ["open"]:
        key, aad, rotation, file = sys.argv[2:]
        with open(file, encoding="ascii") as text:
            text = bytes.fromhex(text.read().strip())
        print(open_whole(bytes.fromhex(key), bytes.fromhex(aad), int(rotation), text).hex())
        return
    vectors = [
        vector("a segment of one byte", 0, 1024, [1]),
        vector("a short page alone", 0, 1024, [1000]),
        vector("pages, and a short one at the end", 7, 1024, [PAGE, PAGE, 12_345]),
        vector("full to its end", 2, 3, [PAGE, PAGE, PAGE]),
        vector("pages left out in the middle", 262_143, 16_384, [PAGE, PAGE, PAGE, 1], left_out=(0, 2)),
        vector("the last page left out", 1, 2, [PAGE, PAGE], left_out=(1,)),
    ]
    json.dump(vectors, sys.stdout, indent=1)
    print()


main()
