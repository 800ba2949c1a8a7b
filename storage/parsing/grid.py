"""What sheets and CSV files have in common."""

_TOP = 8  # a header stands near the top


def column_name(number: int) -> str:
    """1 -> A, 27 -> AA."""
    name = ""
    while number > 0:
        number, digit = divmod(number - 1, 26)
        name = chr(65 + digit) + name
    return name


def header_rows(counts: list[int]) -> int:
    """How many of the first rows are header, given each row's filled cells.

    All down to the first row with several cells: what stands above it is the sheet's title.
    """
    for index, count in enumerate(counts[:_TOP]):
        if count > 1:
            return index + 1
    return 0
