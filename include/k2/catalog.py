"""The Iceberg catalog as pyiceberg opens it: the same SQL tables that the drivers commit to.

pyiceberg is imported inside the functions, because it takes most of a second and DAG files import this module's users.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from k2.registry.runtime import Role, Runtime

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import Table


@functools.cache
def _open(name: str, uri: str, warehouse: str) -> SqlCatalog:
    from pyiceberg.catalog.sql import SqlCatalog

    return SqlCatalog(name, uri=uri, warehouse=warehouse, init_catalog_tables="false", pool_pre_ping="true")


def open_catalog(runtime: Runtime, role: Role) -> SqlCatalog:
    """One catalog per process and role."""
    return _open(runtime.platform.catalog.name, runtime.sqlalchemy_uri(role), runtime.warehouse)


def open_table(runtime: Runtime, name: str, role: Role) -> Table | None:
    """The table as it is now; None when it does not exist yet."""
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return open_catalog(runtime, role).load_table((runtime.platform.catalog.namespace, name))
    except NoSuchTableError:
        return None
