"""Each statement about the RTL is proved, and its proof fails with a fault in the RTL."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.hardware.formal.proofs import PROOFS, holds


@pytest.mark.parametrize("name", PROOFS)
def test_the_statement_holds(name: str) -> None:
    assert holds(PROOFS[name])


@pytest.mark.parametrize("name", PROOFS)
def test_the_proof_finds_a_fault(name: str) -> None:
    assert not holds(PROOFS[name], faulty=True)
