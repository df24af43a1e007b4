"""Old names of modules: each leads to the module under its new name, with a warning that says so."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import tvm_ahcq
from tvm_ahcq._deprecated import MOVED


def imported(old: str) -> tuple[ModuleType, str]:
    """A module imported by its old name as if for the first time, and the warning."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"tvm_ahcq.{old}.")]:
        del sys.modules[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = import_module(f"tvm_ahcq.{old}")
    (message,) = (str(w.message) for w in caught if w.category is DeprecationWarning and "old name" in str(w.message))
    return module, message


@pytest.mark.parametrize("new", sorted(set(MOVED.values())))
def test_new_name_exists(new: str) -> None:
    assert find_spec(f"tvm_ahcq.{new}") is not None


def test_no_old_name_is_a_module_again() -> None:
    paths = {old: Path(tvm_ahcq.__file__).parent / old.replace(".", "/") for old in MOVED}
    assert not [old for old, path in paths.items() if path.with_suffix(".py").exists() or path.is_dir()]


def test_old_name_of_a_module_is_the_new_module() -> None:
    module, message = imported("quantizers.codebook")
    new = import_module("tvm_ahcq.quantizers.core.codebook")
    assert module is new
    assert new.__spec__ is not None and new.__spec__.name == new.__name__ == "tvm_ahcq.quantizers.core.codebook"
    assert message == (
        "tvm_ahcq.quantizers.codebook is now tvm_ahcq.quantizers.core.codebook; version 0.3 removes the old name"
    )


def test_warning_points_to_the_line_that_imports() -> None:
    code = "import warnings; warnings.simplefilter('always')\nimport tvm_ahcq.quantizers.codebook"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("<string>:2: DeprecationWarning")


def test_old_package_has_the_attributes_of_the_new_one_and_leaves_its_submodules_alone() -> None:
    code = """
import tvm_ahcq.frontend.sam, tvm_ahcq.models.sam.load, tvm_ahcq.topi
from tvm_ahcq.frontend import sam
import tvm_ahcq.kernels
assert sam is tvm_ahcq.frontend.sam is tvm_ahcq.models.sam.load
assert tvm_ahcq.models.sam.__name__ == "tvm_ahcq.models.sam"
assert tvm_ahcq.topi.layer_norm is tvm_ahcq.kernels.layer_norm
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_in_an_old_package_is_not_found() -> None:
    imported("codegen.hardware.generated")
    with pytest.raises(ModuleNotFoundError):
        import_module("tvm_ahcq.codegen.hardware.generated.nothing")


def test_package_with_the_name_of_a_former_module_has_its_names() -> None:
    package = import_module("tvm_ahcq.evaluate.report")
    with pytest.warns(DeprecationWarning, match=r"tvm_ahcq\.evaluate\.report\.report\.write_report"):
        write_report = package.write_report
    assert write_report is import_module("tvm_ahcq.evaluate.report.report").write_report
    with pytest.raises(AttributeError):
        _ = package.nothing


def test_importing_the_package_puts_nothing_in_front_of_other_finders() -> None:
    code = "import sys; before = sys.meta_path[:]; import tvm_ahcq; assert sys.meta_path[: len(before)] == before"
    subprocess.run([sys.executable, "-c", code], check=True)
