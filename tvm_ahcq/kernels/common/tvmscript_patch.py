"""Patch of TVM's script parser that makes it fast enough for kernels of many ``T.inline`` parts (TVM 0.27).

Whenever a part is inlined, the parser looks for itself among the callers by ``inspect.getouterframes``, which also
reads the source lines of each caller: five sixths of the time to make the kernels of a model. The frames alone hold the
same information. It also parses the source of the part anew; the syntax tree of a part never changes.
"""

from __future__ import annotations

import sys
from types import FrameType

from tvm.script.parser.core import doc
from tvm.script.parser.core.parser import ScriptMacro

_parse_macro_def = ScriptMacro.get_macro_def


def _find_parser_def(macro: ScriptMacro) -> object:
    """Return the active parser: the nearest caller's whose globals hold one, as TVM's method of this name does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parser = frame.f_globals.get(macro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError(f"{macro.parser_object_name} not available")


def _cached_macro_def(macro: ScriptMacro) -> doc.FunctionDef:
    """Return the syntax tree of a part, parsed once."""
    if not hasattr(macro, "_ahcq_macro_def"):
        macro._ahcq_macro_def = _parse_macro_def(macro)
    return macro._ahcq_macro_def


def speed_up_inlining() -> None:
    """Patch the parser of this process's TVM; a TVM that finds its parser in another way keeps it."""
    if hasattr(ScriptMacro, "_find_parser_def"):
        ScriptMacro._find_parser_def = _find_parser_def
    ScriptMacro.get_macro_def = _cached_macro_def
