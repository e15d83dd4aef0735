"""The rival libraries, each with what it takes to have it: the table of `zeroskip list rivals`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Library:
    """A library that kernels come from.

    Attributes:
        origin: As its kernels have it, and `zeroskip bench spmm --peers` takes it.
        title: Its own name.
        package: Of PyPI, where its version is asked for.
        install: How to have it.
    """

    origin: str
    title: str
    package: str
    install: str


LIBRARIES = (
    Library("numpy", "NumPy (OpenBLAS)", "numpy", "comes with zeroskip"),
    Library("torch", "PyTorch on the CPU: dense, CSR, BSR, FlexAttention", "torch", "pip install torch"),
    Library("scipy", "SciPy", "scipy", "pip install scipy"),
    Library("mkl", "oneMKL, inspector-executor", "mkl", "pip install mkl"),
    Library("aocl", "AMD AOCL-Sparse", "aoclda", "pip install aoclda"),
    Library("onnxruntime", "ONNX Runtime", "onnxruntime", "pip install onnx onnxruntime"),
    Library("openvino", "OpenVINO", "openvino", "pip install openvino"),
    Library("graphblas", "SuiteSparse:GraphBLAS", "suitesparse-graphblas", "pip install suitesparse-graphblas"),
    Library("pydata", "pydata/sparse", "sparse", "pip install sparse"),
    Library("deepsparse", "DeepSparse", "deepsparse", "pip install deepsparse==1.8.0 (Python 3.11, NumPy 1)"),
    Library("litert", "XNNPACK through LiteRT", "ai-edge-litert", "pip install ai-edge-litert"),
    Library("libxsmm", "LIBXSMM", "libxsmm", "no wheel: build it from its source"),
    Library("cublas", "cuBLAS through PyTorch", "torch", "pip install torch, with CUDA"),
    Library("cusparse", "cuSPARSE through CuPy, its fastest algorithm", "cupy-cuda12x", "pip install cupy-cuda12x"),
    Library("cusparselt", "cuSPARSELt through PyTorch, 2:4", "torch", "pip install torch, with CUDA"),
    Library("pyg", "PyTorch Geometric's torch-sparse on CUDA", "torch-sparse", "pip install torch-sparse (compiles)"),
)


def version(package: str) -> str | None:
    """The version that is installed; None if none is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
