#!/usr/bin/python3
"""Prints what a line of golden.txt says of an rpm database, with rpm itself, or with a text like the one that rpm prints.

    rpm --dbpath DIR --define '_db_backend sqlite' -qa --qf "$(./golden.py format)" | ./golden.py NAME >>golden.txt

The backend is sqlite, or bdb_ro for files called Packages.
"""
import hashlib
import posixpath
import sys

FORMAT = r"%{NAME}|%{EPOCH}:%{VERSION}-%{RELEASE}|%{ARCH}|%{SOURCERPM}|%{BUILDTIME}|[%{CHANGELOGTIME} ]|[%{FILENAMES}\t]\n"


def source(file, name):
    if file == "(none)":
        return name
    return file.removesuffix(".rpm").removesuffix(".src").rsplit("-", 2)[0]


def package(line):
    name, version, arch, file, built, changes, paths = line.rstrip("\n").split("|")
    changes = sorted({int(c) for c in changes.split() if c != "(none)"}, reverse=True)[:1000]
    paths = sorted({posixpath.normpath(p).encode() for p in paths.split("\t") if p not in ("", "(none)")})
    fields = [name, version.removeprefix("(none):"), arch, source(file, name), built, " ".join(map(str, changes))]
    return b"|".join([f.encode() for f in fields] + [b"\t".join(paths)]) + b"\n", len(changes), len(paths)


def main():
    if sys.argv[1] == "format":
        print(FORMAT, end="")
        return
    list = sorted(package(l) for l in sys.stdin if not l.startswith("gpg-pubkey|"))
    digest = hashlib.sha256(b"".join(l for l, _, _ in list)).hexdigest()
    print(sys.argv[1], len(list), sum(c for _, c, _ in list), sum(p for _, _, p in list), digest)


main()
