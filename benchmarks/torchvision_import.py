"""Imports torchvision beside a CPU-only torch, whose operators its binaries lack.

Its compiled operators do not load there, and importing it fails; the networks need none
of them, so declaring the names it registers is enough.
"""

import torch

_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "ps_roi_align",
    "roi_pool",
    "ps_roi_pool",
    "qroi_align",
    "deform_conv2d",
    "_roi_align_backward",
    "_ps_roi_align_backward",
    "_roi_pool_backward",
    "_ps_roi_pool_backward",
    "_deform_conv2d_backward",
)
if torch.version.cuda is None:
    _library = torch.library.Library("torchvision", "DEF")  # lives as long as this
    for _name in _OPERATORS:
        _library.define(f"{_name}(Tensor x) -> Tensor")

import torchvision  # noqa: E402, F401
