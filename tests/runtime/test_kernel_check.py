"""Kernels of compiled bundles agree with numpy on this machine, and the check notices whatever is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.errors import BundleError
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.kernel_call import EXACT, KernelCall, compare_call
from tvm_ahcq.runtime.kernel_check import check_kernels, observe_calls, verify_kernels
from tvm_ahcq.runtime.kernel_references import REFERENCES
from tvm_ahcq.runtime.session import Session

BUNDLES = {"native": ("quantized.ahcq", 0), "generic": ("quantized.ahcq", -1), "float32": ("float.ahcq", 0)}
"""File, and place of the target in its manifest."""


@pytest.fixture(params=BUNDLES)
def session(request: pytest.FixtureRequest, described: Path) -> Session:
    file, place = BUNDLES[request.param]
    targets = read_bundle(described / file).manifest.targets
    return Session(read_bundle(described / file, target=targets[place].name), num_threads=2)


def kind_of(session: Session, call: KernelCall) -> str:
    return str(session.manifest.kernels[session.target.name][call.symbol]["kind"])


def test_every_kernel_of_every_kind_agrees(session: Session) -> None:
    told: list[tuple[int, int]] = []
    report = verify_kernels(session, lambda _what, done, total: told.append((done, total)))
    table = session.manifest.kernels[session.target.name]
    assert {kind.kind for kind in report.kinds} == {described["kind"] for described in table.values()}
    assert {symbol for kind in report.kinds for symbol in kind.symbols} == set(table) and report.not_run == ()
    assert told[-1] == (len(table), len(table))
    assert all(0 < kind.compared <= kind.elements and kind.calls >= len(kind.symbols) for kind in report.kinds)
    assert report.others and not set(report.others) & set(table)
    kinds = {kind.kind for kind in report.kinds}
    if session.manifest.bits == 32:
        assert {"matmul", "layer_norm", "gelu", "hypernet_matmul"} <= kinds
    elif session.target.layout == "vnni16":
        assert {"linear_add", "linear_heads", "linear_intervals", "log_attention", "norm_encode", "im2col"} <= kinds
    else:
        assert {"grouped_linear", "encode_affine", "encode_intervals", "log_attention", "im2col"} <= kinds
    assert all(check.passed for check in session.verify())  # the session works as before


def changed(value: np.generic, exact: bool) -> np.generic:
    """Another value: the next one where all bits count, else one that no tolerance covers."""
    if value.dtype.kind == "u":
        return value ^ value.dtype.type(1 if exact else 8)
    return np.nextafter(value, np.float32(np.inf)) if exact else value + 1 + abs(value)


def calls_of_each_kind(session: Session) -> Iterator[tuple[str, KernelCall]]:
    """The first call of each kind that a sample makes."""
    found: dict[str, KernelCall] = {}
    observe_calls(session, lambda call: found.setdefault(kind_of(session, call), call))
    yield from found.items()


def test_one_changed_element_is_found_in_every_kind(session: Session) -> None:
    table = session.manifest.kernels[session.target.name]
    for kind, call in calls_of_each_kind(session):
        expected = REFERENCES[kind].compute(call, table[call.symbol])
        assert compare_call(call, expected)[1] is None
        middle = expected.least.size // 2
        place = tuple(int(np.broadcast_to(axis, expected.least.shape).ravel()[middle]) for axis in expected.at)
        call.output[place] = changed(call.output[place], REFERENCES[kind].rule == EXACT)
        _, difference = compare_call(call, expected)
        assert difference is not None, kind
        assert (difference.symbol, difference.count, difference.place) == (call.symbol, 1, place)


def test_a_changed_weight_is_found(session: Session) -> None:
    table = session.manifest.kernels[session.target.name]
    found = 0
    for kind, call in calls_of_each_kind(session):
        if kind in ("grouped_linear", "linear_add", "linear_heads", "matmul"):
            weight, operands = call.inputs[1], call.inputs[0]
            column = int(operands.astype(np.float64).sum(0).argmax())  # of an input that is not 0
            if weight.ndim == 4:
                weight[:, column // 4, :, column % 4] ^= 15
            else:
                weight[:, column] = weight[:, column] ^ 15 if weight.dtype == np.int8 else weight[:, column] + 1
            difference = compare_call(call, REFERENCES[kind].compute(call, table[call.symbol]))[1]
            assert difference is not None and difference.count > 0, kind
            found += 1
    assert found


def with_options(session: Session, **options: object) -> dict[str, dict[str, dict[str, object]]]:
    """The table of a session's target with other options wherever there are some of that name."""
    name = session.target.name
    table = session.manifest.kernels[name]
    return {name: {symbol: each | {k: v for k, v in options.items() if k in each} for symbol, each in table.items()}}


def test_a_wrong_description_is_found(session: Session) -> None:
    wrong = {"bits": 1, "eps": 10.0}
    session.manifest = replace(session.manifest, kernels=with_options(session, **wrong))
    report = check_kernels(session)
    assert report.differences
    with pytest.raises(BundleError, match=f"for target {session.target.name} do not compute here .* elements differ"):
        verify_kernels(session)


def test_a_description_that_does_not_fit_names_the_kernel(session: Session) -> None:
    name = session.target.name
    table = {symbol: {"kind": "pool_queries", "h": 2, "w": 2} for symbol in session.manifest.kernels[name]}
    session.manifest = replace(session.manifest, kernels={name: table})
    with pytest.raises(BundleError, match=r"describes kernel \w+_\d+ as .*'pool_queries'.* does not fit its arguments"):
        check_kernels(session)


def test_kinds_of_later_versions_are_counted_and_not_compared(session: Session) -> None:
    name = session.target.name
    table = session.manifest.kernels[name]
    later = {symbol: {"kind": "quantum_linear"} for symbol in table}
    session.manifest = replace(session.manifest, kernels={name: later})
    report = check_kernels(session)
    assert report.kinds == () and report.not_run == () and set(table) <= set(report.others)


def test_a_bundle_without_descriptions_says_what_to_do(session: Session) -> None:
    session.manifest = replace(session.manifest, kernels={})
    with pytest.raises(BundleError, match=r"does not describe its kernels.* compile the model again"):
        check_kernels(session)


def test_a_bundle_without_a_golden_image_says_what_to_do(session: Session) -> None:
    session.golden = {}
    with pytest.raises(BundleError, match="no golden image"):
        check_kernels(session)


def test_neither_torch_nor_the_compiler_is_needed(described: Path, run_alone) -> None:
    printed = run_alone(
        """
        from tvm_ahcq.runtime.bundle import read_bundle
        from tvm_ahcq.runtime.kernel_check import verify_kernels
        from tvm_ahcq.runtime.session import Session

        report = verify_kernels(Session(read_bundle(sys.argv[1]), num_threads=1))
        print(len(report.kinds))
        """,
        str(described / "quantized.ahcq"),
    )
    assert int(printed) > 5
