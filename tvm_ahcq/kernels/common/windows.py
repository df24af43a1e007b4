"""Order of tokens in windowed attention: square windows of an image, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr


@dataclass(frozen=True)
class Windows:
    """Images cut into square windows, padded at the right and lower edges.

    Attributes
    ----------
    height, width : int
        Of an image, in tokens.
    size : int
        Side of a window.
    """

    height: int
    width: int
    size: int

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.size * self.size

    @property
    def across(self) -> int:
        """Windows in a row."""
        return -(-self.width // self.size)

    @property
    def per_image(self) -> int:
        """Windows of an image."""
        return -(-self.height // self.size) * self.across

    def position(self, row: Expr) -> tuple[Expr, Expr]:
        """Vertical and horizontal position in the image of the token `row` in window order; may lie past the edges."""
        window, token = row // self.tokens % self.per_image, row % self.tokens
        return (
            window // self.across * self.size + token // self.size,
            window % self.across * self.size + token % self.size,
        )

    def inside(self, row: Expr) -> Expr:
        """True if the token `row` in window order lies inside the image."""
        y, x = self.position(row)
        return (y < self.height) & (x < self.width)

    def image_row(self, row: Expr) -> Expr:
        """Number, in image order, of the token `row` in window order, which lies inside."""
        y, x = self.position(row)
        return (row // (self.tokens * self.per_image) * self.height + y) * self.width + x
