"""Schedules for the float operators that TVM legalises, so that none is a naive loop.

Element-wise chains become one parallel loop nest with the innermost axis left to the vectoriser; what turns rows into
columns does so in square tiles; in matrix products the reduction moves outside the contiguous axis. Kernels of
:mod:`tvm_ahcq.kernels` are scheduled already and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tvm
from tvm import tirx
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import ScheduleError

from tvm_ahcq.kernels.common.parallel import SERIAL_ELEMENTS

TILE = 16
"""Side of a tile of a transposition: one cache line of float32."""


def schedule(mod: IRModule) -> IRModule:
    """Schedule every PrimFunc of `mod` that is not marked ``tirx.is_scheduled``."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for gvar, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc) and not (func.attrs and "tirx.is_scheduled" in func.attrs):
            result[gvar] = _schedule_function(func)
    return result


def _schedule_function(func: tirx.PrimFunc) -> tirx.PrimFunc:
    sch = Schedule(IRModule({"main": func}))
    for name in _block_names(sch)[:-1]:
        if not _reductions(sch, sch.get_sblock(name)):
            sch = _attempt(sch, partial(_inline_block, name=name))
    for name in _block_names(sch):
        done = _attempt(sch, partial(_schedule_block, name=name, fuse=True))
        if done is sch:
            done = _attempt(sch, partial(_schedule_block, name=name, fuse=False))
        sch = done
    return sch.mod["main"].with_attr("tirx.is_scheduled", True)


def _block_names(sch: Schedule) -> list[str]:
    return [sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))]


def _attempt(sch: Schedule, step: Callable[[Schedule], None]) -> Schedule:
    """Return a schedule after `step`, or `sch` itself if the step is not legal.

    Fusing loops of symbolic extent can also fail inside TVM's simplifier, which says so by ``InternalError``.
    """
    trial = sch.copy()
    try:
        step(trial)
    except (ScheduleError, tvm.error.InternalError):
        return sch
    return trial


def _kinds(sch: Schedule, block) -> list[int]:
    return [int(v.iter_type) for v in sch.get(block).iter_vars]


def _reductions(sch: Schedule, block) -> bool:
    return any(kind != tirx.IterVar.DataPar for kind in _kinds(sch, block))


def _inline_block(sch: Schedule, name: str) -> None:
    sch.compute_inline(sch.get_sblock(name))


def _schedule_block(sch: Schedule, name: str, fuse: bool) -> None:
    block = sch.get_sblock(name)
    loops, kinds = sch.get_loops(block), _kinds(sch, block)
    spatial = [loop for loop, kind in zip(loops, kinds, strict=False) if kind == tirx.IterVar.DataPar]
    reduction = [loop for loop, kind in zip(loops, kinds, strict=False) if kind != tirx.IterVar.DataPar]
    if len(loops) != len(kinds) or not spatial:
        return
    parallel = _work(sch, loops) > SERIAL_ELEMENTS
    if not reduction and parallel and (across := _contiguous_source(sch, block)) is not None:
        _schedule_tiles(sch, loops, across)
        return
    outer = spatial[:-1]
    if reduction and len(spatial) > 1:
        # accumulate along the contiguous axis: init once, then one vector update for each reduction step
        sch.reorder(*outer, *reduction, spatial[-1])
    if not outer:
        outer = [sch.split(spatial[0], [None, 1024])[0]] if not reduction else spatial
    if fuse and len(outer) > 1:
        outer = [sch.fuse(*outer)]
    if parallel:
        extents = [sch.get(loop).extent for loop in outer]
        several = (loop for loop, extent in zip(outer, extents, strict=True) if not _is_one(extent))
        sch.parallel(next(several, outer[0]))
    if reduction and len(spatial) > 1:
        sch.decompose_reduction(block, reduction[0])  # after it, TVM would no longer see that the loops are parallel


def _work(sch: Schedule, loops: list) -> int:
    """Product of the extents of all loops; symbolic sizes count as 1."""
    total, analyzer = 1, tvm.sym.Analyzer()
    extents = [sch.get(loop).extent for loop in loops]
    for unknown in {var for extent in extents for var in tirx.analysis.undefined_vars(extent)}:
        analyzer.bind(unknown, tirx.IntImm(unknown.ty.dtype, 1))
    for extent in extents:
        total *= int(analyzer.simplify(extent))
    return total


def _contiguous_source(sch: Schedule, block) -> int | None:
    """Return the loop along which a transposing block reads its source in order, if its extents are whole tiles."""
    statement = sch.get(block)
    places = {var.var: place for place, var in enumerate(statement.iter_vars)}
    for region in statement.reads:
        last = region.region[-1].min if len(region.region) else None
        place = places.get(last) if isinstance(last, tirx.Var) else None
        if place is not None and place != len(places) - 1:
            extents = [sch.get(sch.get_loops(block)[p]).extent for p in (place, -1)]
            if all(isinstance(extent, tirx.IntImm) and int(extent) % TILE == 0 for extent in extents):
                return place
    return None


def _schedule_tiles(sch: Schedule, loops: list, across: int) -> None:
    """Tile the loops `across` and last, so that each cache line of the source is read once."""
    row, row_in = sch.split(loops[across], [None, TILE])
    column, column_in = sch.split(loops[-1], [None, TILE])
    others = [loop for place, loop in enumerate(loops[:-1]) if place != across]
    sch.reorder(*others, row, column, row_in, column_in)
    sch.parallel(sch.fuse(*others, row, column))


def _is_one(extent) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


@tvm.transform.module_pass(opt_level=0, name="ahcq.Schedule")
def schedule_pass(mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
    """:func:`schedule` as a TVM pass."""
    return schedule(mod)
