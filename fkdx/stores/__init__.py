"""Where encoded images lie, whatever keeps them: one interface, one file for each kind of store."""

from fkdx.stores.classes import (
    are_placeholders,
    are_sorted,
    check_all_classed,
    check_same_order,
    check_unique,
    class_folders,
    class_numbers,
    follows_folders,
    in_order,
    numbers_among,
    read_classes,
    read_lines,
)
from fkdx.stores.entry_points import entry_table, make_entry_points
from fkdx.stores.folder import FileList, ImageFolder
from fkdx.stores.index import DataIndex
from fkdx.stores.indexed import IndexedImages, index_path, own_index_path, write_store_index
from fkdx.stores.keys import Keys, keys_of_labels
from fkdx.stores.match import (
    LabelledImages,
    composed_otherwise,
    find_images,
    images_of_labels,
    match_labels,
    under_labelled_names,
)
from fkdx.stores.names import NamedImages
from fkdx.stores.opening import FORMS, open_store
from fkdx.stores.store import Place, Store, check_random_access, folder_of, hidden
from fkdx.stores.tar import TarShards
from fkdx.stores.unpacking import unpack

__all__ = [
    "FORMS",
    "DataIndex",
    "FileList",
    "ImageFolder",
    "IndexedImages",
    "Keys",
    "LabelledImages",
    "NamedImages",
    "Place",
    "Store",
    "TarShards",
    "are_placeholders",
    "are_sorted",
    "check_all_classed",
    "check_random_access",
    "check_same_order",
    "check_unique",
    "class_folders",
    "class_numbers",
    "composed_otherwise",
    "entry_table",
    "find_images",
    "folder_of",
    "follows_folders",
    "hidden",
    "images_of_labels",
    "in_order",
    "index_path",
    "keys_of_labels",
    "make_entry_points",
    "match_labels",
    "numbers_among",
    "open_store",
    "own_index_path",
    "read_classes",
    "read_lines",
    "under_labelled_names",
    "unpack",
    "write_store_index",
]
