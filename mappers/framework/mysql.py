"""Rows into MySQL or MariaDB.  PyMySQL stays in here.  Blocking: call it from a thread.

A property has a table of KubeEdge's shape, made when it is missing.   Source: protocol notes on DMI, section 11."""

from collections.abc import Iterable

import pymysql
from pymysql import err

from mappers.framework.errors import DeviceError, DriverError

TIMEOUT_S = 10
_NO_TABLE = 1146
# What is wrong with a row, though PyMySQL files it under faults of the server: out of range, no such text, no date, too long.
_OF_THE_ROW = (1264, 1292, 1366, 1406)


def insert(to: str, password: str, rows: Iterable[tuple[str, str, str]]) -> None:
    """Add rows of (table, time, text) in one transaction: all of them or none.   to: `user@host:port/database`.

    A server that goes while it confirms may have them all the same.   Raises: DeviceError when the server is away or is to be
    set right, DriverError when it refuses a row."""
    where, _, database = to.rpartition("/")
    user, _, address = where.rpartition("@")
    host, _, port = address.rpartition(":")
    tables: dict[str, list[tuple[str, str]]] = {}
    for table, when, text in rows:
        tables.setdefault(table, []).append((when, text))
    try:
        with pymysql.connect(
            host=host.strip("[]"),
            port=int(port),
            user=user,
            password=password,
            database=database,
            charset="utf8mb4",
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            write_timeout=TIMEOUT_S,
        ) as connection:
            _insert(connection, tables)
    except (err.DataError, err.IntegrityError, err.ProgrammingError, err.NotSupportedError) as error:
        raise DriverError(f"mysql at {address}: {_text(error)}") from error
    except (
        err.Error,
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: a way to log in that needs another library
        if isinstance(error, err.Error) and error.args and error.args[0] in _OF_THE_ROW:
            raise DriverError(f"mysql at {address}: {_text(error)}") from error
        raise DeviceError(f"mysql at {address}: {_text(error)}") from error
    except (ValueError, IndexError, AssertionError, KeyError) as error:  # PyMySQL reads what is no MySQL
        raise DeviceError(f"{address} does not speak MySQL's protocol") from error


def _insert(
    connection: "pymysql.Connection[pymysql.cursors.Cursor]", tables: dict[str, list[tuple[str, str]]]
) -> None:
    for again in (False, True):
        try:
            with connection.cursor() as cursor:
                for table, values in tables.items():
                    places = ", ".join(["(%s, %s)"] * len(values))
                    name = _name(table).replace("%", "%%")  # PyMySQL fills in values by `%`
                    flat = [text for row in values for text in row]
                    cursor.execute(f"INSERT INTO {name} (ts, field) VALUES {places}", flat)
            connection.commit()
            return
        except err.ProgrammingError as error:
            if again or not error.args or error.args[0] != _NO_TABLE:
                raise
        connection.rollback()
        with connection.cursor() as cursor:
            for table in tables:  # making a table ends a transaction, so they are made before it
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {_name(table)} "
                    "(id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME NOT NULL, field TEXT)"
                )


def _name(table: str) -> str:
    return "`" + table.replace("`", "``") + "`"


def _text(error: BaseException) -> str:
    said = error.args[-1] if error.args else ""
    return str(said or type(error).__name__)[:200]
