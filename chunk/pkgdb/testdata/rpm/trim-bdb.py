#!/usr/bin/python3
"""trim-bdb.py SOURCE DEST KEEP: keeps every KEEP-th package of a hash of Berkeley DB, and blanks the others' overflow pages."""
import struct
import sys

data = bytearray(open(sys.argv[1], "rb").read())
keep = int(sys.argv[3])
order = "<" if struct.unpack_from("<I", data, 12)[0] == 0x61561 else ">"


def number(format, off):
    return struct.unpack_from(order + format, data, off)[0]


size, last = number("I", 20), number("I", 32)
kept, packages = set(), 0


def trim(page):
    global packages
    at = [number("H", page + 26 + 2 * i) for i in range(number("H", page + 20))]
    items = [bytes(data[page + a : page + b]) for a, b in zip(at, [size] + at)]
    left = []
    for key, value in zip(items[::2], items[1::2]):
        if value[0] == 3:
            packages += 1
            if packages % keep:
                continue
            n = struct.unpack_from(order + "I", value, 4)[0]
            while n:
                kept.add(n)
                n = number("I", n * size + 16)
        left += [key, value]
    data[page + 26 : page + size] = bytes(size - 26)
    end = size
    for i, item in enumerate(left):
        end -= len(item)
        data[page + end : page + end + len(item)] = item
        struct.pack_into(order + "H", data, page + 26 + 2 * i, end)
    struct.pack_into(order + "HH", data, page + 20, len(left), end)


for n in range(1, last + 1):
    if data[n * size + 25] in (2, 13):
        trim(n * size)
for n in range(1, last + 1):
    if data[n * size + 25] == 7 and n not in kept:
        data[n * size : (n + 1) * size] = bytes(size)
open(sys.argv[2], "wb").write(data)
