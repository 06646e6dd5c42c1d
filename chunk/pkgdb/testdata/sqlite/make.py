#!/usr/bin/python3
"""make.py DIR: databases of rpm with pages of several sizes, written by SQLite, with rows of 40 to 100,000 bytes.

One is small, and has a write-ahead log.
"""
import os
import shutil
import sqlite3
import struct
import sys

COUNT = 400


def header(n):
    size = n * n * n % 997 if n % 50 else n * n
    strings = [(1000, f"p{n:03}".encode()), (9999, b"x" * size), (1022, str(size).encode())]
    index = data = b""
    for tag, text in strings:
        index += struct.pack(">IIII", tag, 6, len(data), 1)
        data += text + b"\0"
    return struct.pack(">II", len(strings), len(data)) + index + data


def make(path, size, reserved):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {size}")
    db.execute("CREATE TABLE 'Other' (a, b, c)")
    if reserved:
        db.close()
        with open(path, "r+b") as f:
            f.seek(20)
            f.write(bytes([reserved]))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("VACUUM")
    db.execute("BEGIN")
    for i in range(40):  # enough that the names of tables need more than a page
        db.execute(f"CREATE TABLE 'Index{i}' (key TEXT NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)")
    db.execute("CREATE TABLE IF NOT EXISTS 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)")
    for n in range(1, COUNT + 1):
        db.execute("INSERT INTO Packages VALUES (?, ?)", (n * 1000003 if n % 7 == 0 else n, header(n)))
    for n in range(1, COUNT + 1, 5):
        db.execute("DELETE FROM Packages WHERE hnum = ?", (n,))
    db.execute("COMMIT")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


for size, reserved in [(512, 0), (1024, 0), (4096, 0), (4096, 32), (65536, 0)]:
    make(os.path.join(sys.argv[1], f"{size}-{reserved}"), size, reserved)


def small(path):
    work = path + ".work"
    db = sqlite3.connect(work, isolation_level=None)
    db.execute("PRAGMA page_size = 512")
    db.execute("PRAGMA journal_mode = wal")
    db.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)")
    for n in range(1, 9):
        db.execute("INSERT INTO Packages VALUES (?, ?)", (n, header(n)))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("INSERT INTO Packages VALUES (?, ?)", (9, header(9)))
    shutil.copyfile(work, path)
    shutil.copyfile(work + "-wal", path + "-wal")


small(os.path.join(sys.argv[1], "small"))
