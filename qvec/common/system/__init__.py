"""What differs between operating systems, as a list of functions. ``posix`` is for Linux and macOS, ``windows`` for
Windows; a port to another system is one more such module. Nothing else in qvec calls the system for these.

- locks of bytes of a file (:func:`share`, :func:`exclude`, :func:`unlock`, :func:`find`), of a whole file
  (:func:`lock_file`, :func:`unlock_file`) and those of LMDB (:func:`keep_lmdb_locks`, :func:`release_lmdb_locks`);
- growth of maps (:func:`has_address_space`) and of files (:func:`reserve_space`);
- durable flushes (:func:`flush_file`, :func:`flush_directory`);
- replacement of files (:func:`replace`, :func:`rename_new`, :func:`move_aside`);
- descriptors (:func:`open_file`, :func:`path_of`, :func:`read_at`, :func:`write_at`);
- processes (:func:`users_of`, :func:`after_fork`) and limits (:func:`free_bytes`, :func:`file_size_limit`).

The kernels have such a list, too: ``qvec/kernels/system/system.h``.
"""

import sys

if sys.platform == "win32":
    from qvec.common.system.windows import (
        after_fork,
        exclude,
        file_size_limit,
        find,
        flush_directory,
        flush_file,
        free_bytes,
        has_address_space,
        keep_lmdb_locks,
        lock_file,
        move_aside,
        open_file,
        path_of,
        read_at,
        release_lmdb_locks,
        rename_new,
        replace,
        reserve_space,
        share,
        unlock,
        unlock_file,
        users_of,
        write_at,
    )
else:
    from qvec.common.system.posix import (
        after_fork,
        exclude,
        file_size_limit,
        find,
        flush_directory,
        flush_file,
        free_bytes,
        has_address_space,
        keep_lmdb_locks,
        lock_file,
        move_aside,
        open_file,
        path_of,
        read_at,
        release_lmdb_locks,
        rename_new,
        replace,
        reserve_space,
        share,
        unlock,
        unlock_file,
        users_of,
        write_at,
    )

__all__ = [
    "after_fork",
    "exclude",
    "file_size_limit",
    "find",
    "flush_directory",
    "flush_file",
    "free_bytes",
    "has_address_space",
    "keep_lmdb_locks",
    "lock_file",
    "move_aside",
    "open_file",
    "path_of",
    "read_at",
    "release_lmdb_locks",
    "rename_new",
    "replace",
    "reserve_space",
    "share",
    "unlock",
    "unlock_file",
    "users_of",
    "write_at",
]
