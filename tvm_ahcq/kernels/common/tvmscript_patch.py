"""Patch of TVM's script parser that makes it fast enough for kernels of many ``T.inline`` parts (TVM 0.27).

Whenever a part is inlined, the parser looks for itself among the callers by ``inspect.getouterframes``, which also
reads the source lines of each caller, as does ``inspect.stack`` for each kernel. The frames alone hold the same
information. It parses the source of the part anew; the syntax tree of a part never changes. And it compiles each name,
constant, attribute and call of an expression to Python code to run it once.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tvm.script.parser.core import doc, evaluator
from tvm.script.parser.core.parser import ScriptMacro
from tvm.tirx.script.parser import entry

_parse_macro_def = ScriptMacro.get_macro_def
_compile_and_run: Callable[[Any, dict[str, Any] | None], Any] = evaluator._eval_expr

_WITH_LINES = 3
"""Frames of a stack whose source lines TVM reads: it looks whether a kernel stands in a class."""


def _find_parser_def(macro: ScriptMacro) -> object:
    """Return the active parser: the nearest caller's whose globals hold one, as TVM's method of this name does.

    Expressions that :func:`_evaluate` runs have their globals as `names`.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = (frame.f_locals["names"] or {}) if frame.f_code is _evaluate.__code__ else frame.f_globals
        parser = names.get(macro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError(f"{macro.parser_object_name} not available")


def _cached_macro_def(macro: ScriptMacro) -> doc.FunctionDef:
    """Return the syntax tree of a part, parsed once."""
    if not hasattr(macro, "_ahcq_macro_def"):
        macro._ahcq_macro_def = _parse_macro_def(macro)
    return macro._ahcq_macro_def


def _evaluate(node: Any, names: dict[str, Any] | None) -> Any:
    """Return the value of an expression; the kinds that kernels are full of need no compilation."""
    kind = type(node)
    if kind is doc.Name and names is not None:
        return names[node.id] if node.id in names else _builtin(node.id)
    if kind is doc.Constant:
        return node.value
    if kind is doc.Attribute:
        return getattr(_evaluate(node.value, names), node.attr)
    if kind is doc.Subscript:
        return _evaluate(node.value, names)[_evaluate(node.slice, names)]
    if kind is doc.Call and not _unpacks(node):
        function, args = _evaluate(node.func, names), [_evaluate(arg, names) for arg in node.args]
        return function(*args, **{keyword.arg: _evaluate(keyword.value, names) for keyword in node.keywords})
    return _compile_and_run(node, names)


def _builtin(name: str) -> Any:
    """Return a built-in function by name."""
    try:
        return getattr(builtins, name)
    except AttributeError:
        raise NameError(f"name {name!r} is not defined") from None


def _unpacks(call: doc.Call) -> bool:
    """Whether a call has ``*args`` or ``**kwargs``."""
    return any(type(arg) is doc.Starred for arg in call.args) or any(keyword.arg is None for keyword in call.keywords)


class _Inspect:
    """The module ``inspect`` with a quick ``stack``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    @staticmethod
    def stack() -> list[inspect.FrameInfo]:
        """Return the callers, as ``inspect.stack`` does; only the innermost with their source lines."""
        found: list[inspect.FrameInfo] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            lines, index = None, None
            if len(found) < _WITH_LINES:
                place = inspect.getframeinfo(frame)
                lines, index = place.code_context, place.index
            code = frame.f_code
            found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, lines, index))
            frame = frame.f_back
        return found


def speed_up_parser() -> None:
    """Patch the parser of this process's TVM; a TVM that finds its parser in another way keeps it."""
    if hasattr(ScriptMacro, "_find_parser_def"):
        ScriptMacro._find_parser_def = _find_parser_def
    ScriptMacro.get_macro_def = _cached_macro_def
    evaluator._eval_expr = _evaluate
    entry.inspect = _Inspect()
