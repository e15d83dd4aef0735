"""Layers of graph networks, with the arguments and the parameters of PyTorch Geometric's, on our kernels.

They train in plain torch, and run on the kernels where no gradient is asked for.
"""

from .gat import GATConv
from .gcn import GCNConv
from .gin import GINConv
from .rgcn import RGCNConv
from .sage import SAGEConv
from .swap import Swapped, swap

__all__ = ["GATConv", "GCNConv", "GINConv", "RGCNConv", "SAGEConv", "Swapped", "swap"]
