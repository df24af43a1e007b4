"""Makes TVM's script parser fast enough for kernels that are made of many ``T.inline`` parts.

Whenever a part is inlined, the parser looks for itself among the callers, by ``inspect.getouterframes``, which also
reads the source lines of each of them: of the kernels of a model, that is five sixths of the time to make them (TVM
0.27). The frames alone say the same.
"""

from __future__ import annotations

import sys
from types import FrameType

from tvm.script.parser.core.parser import ScriptMacro


def _find_parser_def(macro: ScriptMacro) -> object:
    """The parser at work: the nearest caller's whose globals hold one, as TVM's method of this name finds it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parser = frame.f_globals.get(macro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError(f"{macro.parser_object_name} not available")


def speed_up_inlining() -> None:
    """Replaces the search of this process's TVM; a TVM without such a method stays as it is."""
    if hasattr(ScriptMacro, "_find_parser_def"):
        ScriptMacro._find_parser_def = _find_parser_def
