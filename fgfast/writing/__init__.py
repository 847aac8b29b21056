"""Writing: the only place where files and folders are created, written, renamed or deleted.

Every place is a `Target`: a name below a folder that the user chose, or fgfast for its cache. Links in the path of that
folder are the user's own. Below it no link is followed: each folder is opened from the one above it, and new files
are new. What is replaced is replaced by a rename, so that a link or another name of a file elsewhere harms nothing.
"""

from fgfast.writing.files import Folders
from fgfast.writing.held import append, check_in_place, check_same, held, locked
from fgfast.writing.removal import (
    delete_files,
    is_temp,
    make_folder,
    refuse_links,
    remove,
    remove_folder,
    remove_tree,
    rename,
    scratch_file,
    scratch_folder,
    sweep_temp_files,
    walk,
)
from fgfast.writing.target import NAME_ERRORS, Target
from fgfast.writing.temp_files import TempFiles, commit, sync_folders
from fgfast.writing.whole import create, replacing, replacing_path, write_file

__all__ = [
    "NAME_ERRORS",
    "Folders",
    "Target",
    "TempFiles",
    "append",
    "check_in_place",
    "check_same",
    "commit",
    "create",
    "delete_files",
    "held",
    "is_temp",
    "locked",
    "make_folder",
    "refuse_links",
    "remove",
    "remove_folder",
    "remove_tree",
    "rename",
    "replacing",
    "replacing_path",
    "scratch_file",
    "scratch_folder",
    "sweep_temp_files",
    "sync_folders",
    "walk",
    "write_file",
]
