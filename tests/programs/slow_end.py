"""Write a table, or wait for a lease in the ledger, in a process whose interpreter needs seconds to end.

Arguments: the location of the table, or `lease`; the exit code.
"""

import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.ledger.drain.table_lease import TableLease
from deltawitness.ledger.tables.locations import root_of


class Slow:
    """Deleted while the interpreter ends, later than the engine gives up its request."""

    def __del__(self, sleep=time.sleep):
        """Release the interpreter's lock for longer than the timeout of the storage."""
        sleep(4)  # the globals of the module are gone


sys.slow = Slow()
if not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
    DeltaLakeInstrumentor().instrument()
if sys.argv[1] == "lease":
    assert not TableLease(root_of(Settings.from_env()), "t").acquire(1.0)
else:
    write_deltalake(sys.argv[1], pa.table({"id": [1]}))
print("end", flush=True)
sys.exit(int(sys.argv[2]))
