"""What SQLite's planner is told of every index, so that it reads by the narrow one.

Each statement of a tenant also names the tenant, and each table has an index on that. SQLite knows no better
than that an index finds ten rows, and so took the tenant's for others: all passages of a tenant were read to
find eight. These rows in ``sqlite_stat1`` are for it what ``ANALYZE`` would write in a large installation;
they do not depend on what is in the tables, so a plan that a test has seen is the plan everywhere.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

ROWS = 1_000_000
SHARES = {
    "tenant_id": 20,
    "stack_id": 50,
    "status": 50,
    "actor_id": 200,
    "actor_kind": 5,
    "action": 5,
    "object_type": 5,
}
"""Into how many parts a column divides the rows, where that is few."""
ELSEWHERE = 100_000
"""The same for every other column."""


def tell(connection: Connection) -> None:
    """Write them for each index that there is; connections that are made later go by them."""
    if connection.dialect.name != "sqlite":
        return
    connection.execute(text("ANALYZE sqlite_schema"))  # makes the table, which nothing else may
    connection.execute(text("DELETE FROM sqlite_stat1"))
    rows = [
        {"table": table, "index": index, "stat": _stat(columns, unique)}
        for table in inspect(connection).get_table_names()
        for index, columns, unique in _indices(connection, table)
    ]
    connection.execute(text("INSERT INTO sqlite_stat1 VALUES (:table, :index, :stat)"), rows)


def _indices(connection: Connection, table: str) -> list[tuple[str, list[str], bool]]:
    listed = connection.execute(
        text('SELECT name, "unique" FROM pragma_index_list(:table)'), {"table": table}
    )
    named = text("SELECT name FROM pragma_index_info(:index) ORDER BY seqno")
    return [
        (index, list(connection.execute(named, {"index": index}).scalars()), bool(unique))
        for index, unique in listed.all()
    ]


def _stat(columns: list[str], unique: bool) -> str:
    """All rows, then how many of them agree in the first column, in the first two, and so on."""
    found = [ROWS]
    for column in columns:
        found.append(max(1, found[-1] // SHARES.get(column, ELSEWHERE)))
    if unique:
        found[-1] = 1
    return " ".join(map(str, found))
