"""Which kernels may round x in a compiled model, and how its plan and its report say so."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from zeroskip._errors import InvalidArgument
from zeroskip.formats import Bitmask
from zeroskip.runtime import packing
from zeroskip.runtime.layerplan import Choice, LayerPlan, precision
from zeroskip.runtime.values import Values, check_values

TILES = SimpleNamespace(name="spmm_bitmask_bf16_amx", format="bitmask", dtype="bfloat16", x_dtype="bfloat16")
PLAIN = SimpleNamespace(name="spmm_bitmask_bf16_avx512", format="bitmask", dtype="bfloat16", x_dtype="float32")
FIXED = SimpleNamespace(name="spmm_csr_f32_i16acc_avx2", format="csr", dtype="float32", x_dtype="int16")
CODES = SimpleNamespace(name="spmm_dense_i8_i32acc_avx2", format="dense", dtype="int8", x_dtype="int8")


@pytest.mark.parametrize(
    ("dtype", "activations", "allowed"),
    [
        ("bfloat16", None, {PLAIN.name}),
        ("bfloat16", "float32", {PLAIN.name}),
        ("bfloat16", "bfloat16", {PLAIN.name, FIXED.name, TILES.name}),
        ("float32", None, {PLAIN.name}),
        ("float32", "int16", {PLAIN.name, FIXED.name}),
        ("int8", "int8", {PLAIN.name, FIXED.name, TILES.name, CODES.name}),
        ("int8", "float32", {PLAIN.name}),
    ],
)
def test_kernels_round_x_no_coarser_than_they_may(dtype, activations, allowed):
    values = Values.of(dtype, None, activations, kind="encoder")
    matrix = Bitmask.from_dense(np.eye(4, dtype=np.float32))
    assert {k.name for k in (TILES, PLAIN, FIXED, CODES) if values.allow(k, matrix, None)} == allowed


def test_a_tied_head_may_do_what_the_layers_may():
    assert Values.of("bfloat16", None, "bfloat16", kind="decoder").head.x_dtype == "bfloat16"
    assert Values.of("bfloat16", None, None, kind="decoder").head.x_dtype == "float32"
    assert Values.of("int4", None, None, kind="decoder").head == Values("int8", "float16", 0, "int8")


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "int8"])
def test_bfloat16_is_for_weights_in_bfloat16(dtype):
    check_values("bfloat16", None, "bfloat16")
    with pytest.raises(InvalidArgument, match="activations is 'bfloat16', which takes weights in bfloat16"):
        check_values(dtype, None, "bfloat16")


def test_the_plan_and_the_report_say_it():
    choices = tuple(
        Choice(n, kernel, 1e-3, None, None, "fast")
        for n, kernel in ((1, PLAIN.name), (16, FIXED.name), (64, TILES.name), (256, CODES.name))
    )
    layer = LayerPlan("x", (4, 4), 0.5, "bitmask", "bfloat16", 10, choices)
    assert [choice["activations"] for choice in layer.as_json()["choices"]] == ["float32", "int16", "bfloat16", "int8"]
    assert [note.split(";")[0] for note in precision([layer])] == [
        "1 of 1 linear layers round their input to 8 bits, with a scale a token",
        "1 of 1 linear layers round their input to 16 bits, with a scale a token",
        "1 of 1 linear layers round their input to bfloat16",
    ]
    assert precision([LayerPlan("x", (4, 4), 0.5, "bitmask", "bfloat16", 10, choices[:1])]) == []


@pytest.mark.parametrize("name", ["spmm_bitmask_bf16_amx", "spmm_dense_bf16_amx"])
def test_without_amx_a_kernel_of_the_same_weights_stands_in(name, monkeypatch):
    here = [kernel for kernel in packing.native_kernels() if kernel.isa != "amx"]
    monkeypatch.setattr(packing, "native_kernels", lambda: here)
    monkeypatch.setattr(packing, "registry", {})
    found, why = packing.stand_in(name, "bitmask", "bfloat16")
    assert found.rpartition("_")[0] == name.rpartition("_")[0]
    assert why is not None
    assert name in why
