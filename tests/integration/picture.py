#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pictures for the integration tests, without any library.

usage: picture.py make WHAT SIDE FILE      WHAT: plain, hole (left half transparent), left (left half white)
       picture.py bomb FILE                a PNG that says to have 30000 x 30000 pixels
       picture.py same A B FROM TO         fails unless columns FROM .. TO - 1 of two RGB PNGs are equal
"""
import struct
import sys
import zlib


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, colour, rows):
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixel(what, x, y, side):
    left = x < side // 2
    if what == "left":
        return (255, 255, 255, 255) if left else (0, 0, 0, 255)
    return (x * 255 // side, y * 255 // side, 90, 0 if what == "hole" and left else 255)


def make(what, side):
    rows = b"".join(b"\0" + bytes(v for x in range(side) for v in pixel(what, x, y, side)) for y in range(side))
    return png(side, side, 6, rows)


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def unfilter(kind, line, above):
    out = bytearray(len(line))
    for i, value in enumerate(line):
        a = out[i - 3] if i >= 3 else 0
        b = above[i]
        c = above[i - 3] if i >= 3 else 0
        out[i] = (value + (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) & 255
    return out


def read_rgb(path):
    """Rows of an 8-bit RGB PNG."""
    data, at, packed = open(path, "rb").read(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2), path
        if kind == b"IDAT":
            packed += body
        at += size + 12
    raw, stride, rows = zlib.decompress(packed), 3 * width, [bytearray(3 * width)]
    for y in range(height):
        start = y * (stride + 1)
        rows.append(unfilter(raw[start], raw[start + 1:start + 1 + stride], rows[-1]))
    return rows[1:]


def same(a, b, first, end):
    one, two = read_rgb(a), read_rgb(b)
    assert len(one) == len(two), "heights differ"
    for y, (left, right) in enumerate(zip(one, two)):
        if left[3 * first:3 * end] != right[3 * first:3 * end]:
            sys.exit(f"row {y} differs")


def main(verb, *words):
    if verb == "make":
        open(words[2], "wb").write(make(words[0], int(words[1])))
    elif verb == "bomb":
        open(words[0], "wb").write(png(30000, 30000, 2, b"\0" * 100000))
    elif verb == "same":
        same(words[0], words[1], int(words[2]), int(words[3]))
    else:
        sys.exit(__doc__)


main(*sys.argv[1:])
