"""Write a table in a process whose interpreter needs seconds to end.

Arguments: the location of the table, the exit code.
"""

import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor


class Slow:
    """Deleted while the interpreter ends, later than the engine gives up its request."""

    def __del__(self):
        """Release the interpreter's lock for longer than the timeout of the storage."""
        time.sleep(6)


sys.slow = Slow()
if not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
    DeltaLakeInstrumentor().instrument()
write_deltalake(sys.argv[1], pa.table({"id": [1]}))
print("end", flush=True)
sys.exit(int(sys.argv[2]))
