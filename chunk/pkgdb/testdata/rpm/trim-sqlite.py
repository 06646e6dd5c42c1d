#!/usr/bin/python3
"""trim-sqlite.py SOURCE DEST: keeps a sixth of the packages of an rpmdb.sqlite, without indexes.

Beside DEST is DEST-wal, a write-ahead log that removes three of them in one transaction, adds three others in three, and has
pages of a fourth whose transaction isn't committed.
"""
import os
import shutil
import sqlite3
import sys
import tempfile

source, dest = sys.argv[1:]
work = os.path.join(tempfile.mkdtemp(), "rpmdb.sqlite")
shutil.copyfile(source, work)

db = sqlite3.connect(work, isolation_level=None)
tables = [t for (t,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'") if t not in ("Packages", "sqlite_sequence")]
for t in tables:
    db.execute(f"DELETE FROM '{t}'")
extra = db.execute("SELECT hnum, blob FROM Packages WHERE hnum % 6 = 1 ORDER BY hnum LIMIT 4").fetchall()
db.execute("DELETE FROM Packages WHERE hnum % 6 <> 0")
db.execute("PRAGMA journal_mode = delete")
db.execute("VACUUM")
db.execute("PRAGMA journal_mode = wal")
db.close()

db = sqlite3.connect(work, isolation_level=None)
db.execute("PRAGMA wal_autocheckpoint = 0")
db.execute("PRAGMA cache_size = 2")  # so that pages go to the log before they are committed
db.execute("DELETE FROM Packages WHERE hnum IN (SELECT hnum FROM Packages ORDER BY hnum LIMIT 3)")
for row in extra[:3]:
    db.execute("INSERT INTO Packages VALUES (?, ?)", row)
db.execute("BEGIN")
db.execute("INSERT INTO Packages VALUES (?, ?)", extra[3])
shutil.copyfile(work, dest)
shutil.copyfile(work + "-wal", dest + "-wal")
