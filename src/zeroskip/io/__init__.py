"""The saved model on disk: read with suspicion, written whole or not at all."""

from ..formats import DenseMatrix
from .folder import MANIFEST, is_saved_model, write_folder
from .matrices import DENSE, Matrix, StoredMatrix, encode, smallest_format
from .saved import MIXED, TOKENIZER, VERSION, WEIGHTS, Manifest, SavedModel, open_saved, save
from .tensors import TensorFile, write_tensors

__all__ = [
    "DENSE",
    "MANIFEST",
    "MIXED",
    "TOKENIZER",
    "VERSION",
    "WEIGHTS",
    "DenseMatrix",
    "Manifest",
    "Matrix",
    "SavedModel",
    "StoredMatrix",
    "TensorFile",
    "encode",
    "is_saved_model",
    "open_saved",
    "save",
    "smallest_format",
    "write_folder",
    "write_tensors",
]
