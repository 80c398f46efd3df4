"""Reads a live database's catalogue and says how it deviates from the documented schema."""

from typing import Any

import psycopg

COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), a.attgenerated
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relkind = 'r'
"""
CONSTRAINTS = """
    SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
ENUMS = """
    SELECT t.typname, e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
     ORDER BY t.typname, e.enumsortorder
"""


def read_catalogue(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return tables, columns, constraints, indexes and enums in the shape of the documentation."""
    tables: dict[str, Any] = {}
    for table, column, kind, not_null, default, generated in connection.execute(COLUMNS):
        tables.setdefault(table, {"columns": {}, "constraints": {}, "indexes": {}})["columns"][
            column
        ] = {
            "type": kind,
            "not_null": not_null,
            "default": None if generated else default,
            "generated": default if generated else None,
        }
    for table, name, definition in connection.execute(CONSTRAINTS):
        tables[table]["constraints"][name] = definition
    for table, name, definition in connection.execute(INDEXES):
        tables[table]["indexes"][name] = definition.replace(" ON public.", " ON ")
    enums: dict[str, list[str]] = {}
    for name, label in connection.execute(ENUMS):
        enums.setdefault(name, []).append(label)
    return {"tables": tables, "enums": enums}


def deviations(documented: dict[str, Any], live: dict[str, Any]) -> list[str]:
    """Return what is documented and not so in the database; what was only added is fine."""
    found = [
        f"enum {name}: {live['enums'].get(name)} instead of {labels}"
        for name, labels in documented["enums"].items()
        if live["enums"].get(name) != labels
    ]
    for table, wanted in documented["tables"].items():
        there = live["tables"].get(table)
        if there is None:
            found.append(f"table {table} is missing")
            continue
        for part in ("columns", "constraints", "indexes"):
            found += [
                f"{table}.{name}: {there[part].get(name)} instead of {definition}"
                for name, definition in wanted[part].items()
                if there[part].get(name) != definition
            ]
    return found
