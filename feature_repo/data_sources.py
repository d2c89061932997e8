"""
Where the offline feature tables lie: one Parquet file a view under `$TUTTI_DATA/features`, `.tutti/shop` beside this
folder when TUTTI_DATA is not set.

Whoever opens this repository with Feast also needs the registry's folder, so it is made here, before Feast looks for
it.
"""

import os
from pathlib import Path

from feast import FileSource

_HERE = Path(__file__).resolve().parent
_DEFAULT = Path("..") / ".tutti" / "shop"

DATA = Path(os.environ.get("TUTTI_DATA") or _HERE / _DEFAULT).resolve()
(DATA / "feature_store").mkdir(parents=True, exist_ok=True)

# feature_store.yaml can name an environment variable but no default for it: Feast leaves the name of an unset variable
# as it is. So a link of just that name leads to the default.
_LINK = _HERE / "${TUTTI_DATA}"
if "TUTTI_DATA" not in os.environ and not _LINK.is_symlink():
    _LINK.symlink_to(_DEFAULT)


def snapshots(view: str) -> FileSource:
    """
    The table of *view*: its entity's id, its features, and two moments in microseconds UTC.

    `event_timestamp` is the moment of the snapshot: features know only what happened before it. `created_timestamp` is
    when the row became known, which decides between two rows of one moment.
    """
    return FileSource(
        name=f"{view}_snapshots",
        path=str(DATA / "features" / f"{view}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
