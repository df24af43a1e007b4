"""Every kernel of a bundle against numpy, on the machine that it runs on. Imports neither torch nor the compiler.

One sample passes through every function of the model while the virtual machine is observed; of each kernel, the first
call with arguments of each shape is computed again by :mod:`.kernel_references`. A kernel is judged by its own
arguments, so that one that is wrong does not spoil the verdict on those that follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_ahcq.errors import BundleError
from tvm_ahcq.models.execution import run_driver
from tvm_ahcq.progress import Progress, silent

from .instrument import observed
from .kernel_call import Difference, KernelCall, compare_call
from .kernel_references import REFERENCES
from .session import Session

_SEED = 0
"""Of the prompts."""

_SHOWN = 5
"""Most differences that an error names."""


@dataclass
class KindReport:
    """Kernels of one kind.

    Attributes
    ----------
    kind : str
        Name of the factory in :mod:`tvm_ahcq.kernels`.
    rule : str
        What was asked of the elements: ``"every bit"``, or a tolerance.
    symbols : set of str
        Kernels that were compared.
    calls : int
        Calls that were compared: one for each kernel and shape.
    elements, compared : int
        Elements of their outputs, and those that were compared.
    differences : list of Difference
        One for each call that differs.
    """

    kind: str
    rule: str
    symbols: set[str] = field(default_factory=set)
    calls: int = 0
    elements: int = 0
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class KernelReport:
    """What came of the comparison.

    Attributes
    ----------
    target : str
        Target whose library ran.
    kinds : tuple of KindReport
        By name.
    not_run : tuple of str
        Kernels that no function called.
    others : dict of str to int
        Calls of what has no reference: operators that TVM fused, and the accelerator's part; by symbol.
    """

    target: str
    kinds: tuple[KindReport, ...]
    not_run: tuple[str, ...]
    others: dict[str, int]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of all kinds."""
        return tuple(difference for kind in self.kinds for difference in kind.differences)


def check_kernels(session: Session, progress: Progress = silent) -> KernelReport:
    """Compare every kernel that a sample reaches with its reference.

    Parameters
    ----------
    session : Session
        A loaded bundle with a golden image.
    progress : Progress
        Told of the kernels that have been compared, and of all there are.

    Raises
    ------
    BundleError
        The bundle was written without descriptions of its kernels or without a golden image, or a description does not
        fit the kernel.
    """
    table = session.manifest.kernels.get(session.target.name)
    if table is None:
        raise BundleError(
            f"{session.path}: does not describe its kernels, as bundles do that this version compiles; compile the "
            "model again to check them"
        )
    kinds: dict[str, KindReport] = {}
    seen: set[str] = set()

    def compare(call: KernelCall) -> None:
        seen.add(call.symbol)
        _add(session, kinds, call, table[call.symbol])
        progress("kernels", len(seen), len(table))

    others = observe_calls(session, compare)
    unknown = {symbol for symbol, described in table.items() if described["kind"] not in REFERENCES}
    not_run = tuple(symbol for symbol in table if symbol not in seen | unknown)
    return KernelReport(session.target.name, tuple(kinds[kind] for kind in sorted(kinds)), not_run, others)


def verify_kernels(session: Session, progress: Progress = silent) -> KernelReport:
    """Compare every kernel that a sample reaches with its reference; see :func:`check_kernels`.

    Raises
    ------
    BundleError
        A kernel differs from its reference, or the bundle cannot be checked.
    """
    report = check_kernels(session, progress)
    require_equal(session, report)
    return report


def require_equal(session: Session, report: KernelReport) -> None:
    """Refuse a bundle with kernels that differ.

    Raises
    ------
    BundleError
        It has.
    """
    found = report.differences
    if found:
        more = f"; and {len(found) - _SHOWN} more calls" if len(found) > _SHOWN else ""
        raise BundleError(
            f"{session.path}: kernels for target {report.target} do not compute here what their reference does: "
            f"{'; '.join(map(str, found[:_SHOWN]))}{more}; compile for another target, such as generic, and report "
            "this with the output of `tvm-ahcq info`"
        )


def observe_calls(session: Session, consume: Callable[[KernelCall], None]) -> dict[str, int]:
    """Take a sample through every function, and hand over the first call of each described kernel with each shape.

    Parameters
    ----------
    session : Session
        A loaded bundle with a golden image.
    consume : callable
        Called on the machine's thread, between two kernels; what it raises is raised here in the end.

    Returns
    -------
    dict of str to int
        Calls of what has no reference, by symbol.
    """
    if "image" not in session.golden:
        raise BundleError(f"{session.path}: has no golden image to run its kernels on; recompile the model")
    observer = _Observer(session.manifest.kernels.get(session.target.name, {}), consume)
    with observed(session.machine, observer):
        _run_functions(session)
    if observer.errors:
        raise observer.errors[0]
    return dict(observer.others)


class _Observer:
    """Copies arguments before, and the output after a call that was not seen before."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]], consume: Callable[[KernelCall], None]) -> None:
        self.errors: list[Exception] = []
        self.others: Counter[str] = Counter()
        self._table, self._consume = table, consume
        self._seen: set[tuple[str, tuple[tuple[int, ...], ...]]] = set()
        self._inputs: tuple[np.ndarray, ...] | None = None

    def __call__(self, symbol: str, before: bool, tensors: list[Any]) -> None:
        if before:
            self._before(symbol, tensors)
        elif self._inputs is not None:
            call, self._inputs = KernelCall(symbol, self._inputs, _copy(tensors[-1])), None
            try:
                self._consume(call)
            except Exception as error:  # it would pass through the machine, which knows nothing of it
                self.errors.append(error)

    def _before(self, symbol: str, tensors: list[Any]) -> None:
        key = symbol, tuple(tuple(map(int, tensor.shape)) for tensor in tensors)
        if symbol not in self._table or self._table[symbol]["kind"] not in REFERENCES:
            self.others[symbol] += 1
        elif key not in self._seen and not self.errors:
            self._seen.add(key)
            self._inputs = tuple(map(_copy, tensors[:-1]))


def _copy(tensor: Any) -> np.ndarray:
    return np.array(np.from_dlpack(tensor))


def _run_functions(session: Session) -> None:
    """Drive the golden image through the model; functions that no picture reaches get example inputs."""
    called: set[str] = set()

    def execute(function: str, *inputs: np.ndarray) -> Any:
        called.add(function)
        outputs = session.run(function, *inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    family, model = session.family, session.model
    run_driver(family.drive(model, family.prepare(model, session.golden["image"]), _SEED), execute)
    for function in session.manifest.functions:
        if function not in called and family.timing is not None:
            execute(function, *family.timing.example_inputs(model, function, 1))


def _add(session: Session, kinds: dict[str, KindReport], call: KernelCall, described: Mapping[str, Any]) -> None:
    """Compare a call, and add the result to that of its kind."""
    kind, reference = described["kind"], REFERENCES[described["kind"]]
    try:
        compared, difference = compare_call(call, reference.compute(call, described))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise BundleError(
            f"{session.path}: its manifest describes kernel {call.symbol} as {dict(described)}, which does not fit its "
            f"arguments: {error}; recompile the model"
        ) from error
    report = kinds.setdefault(kind, KindReport(kind, reference.rule))
    report.symbols.add(call.symbol)
    report.calls += 1
    report.elements += call.output.size
    report.compared += compared
    if difference is not None:
        report.differences.append(difference)
