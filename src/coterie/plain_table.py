"""Tables in plain text, for values that people print."""

from collections.abc import Sequence


def plain_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    """Aligns cells in columns two spaces apart.

    Args:
        header: One name a column.
        rows: Cells, as many a row as the header has.
        right: Which columns to align to the right, as numbers are; none by default.

    Example:
        >>> print(
        ...     plain_table(
        ...         ["item", "score"], [["blue", "12.5"], ["red", "3.0"]], right=[False, True]
        ...     )
        ... )
        item  score
        blue   12.5
        red     3.0
    """
    right = right or [False] * len(header)
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
