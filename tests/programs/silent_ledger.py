"""Write a table with a ledger whose server never answers; the interpreter needs seconds to end.

Arguments: the location of the table, the exit code.
"""

import socket
import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor
from deltawitness.settings import Settings

server = socket.create_server(("127.0.0.1", 0))
options = {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "max_retries": "0",
    "timeout": "4s",
}


class Slow:
    """Deleted while the interpreter ends, later than the engine gives up its request."""

    def __del__(self):
        """Release the interpreter's lock for longer than the timeout of the storage."""
        time.sleep(6)


sys.slow = Slow()
settings = Settings(cache_root="s3://lake/ledger", storage_options=options, sink_timeout=0.5)
DeltaLakeInstrumentor().instrument(settings=settings)
write_deltalake(sys.argv[1], pa.table({"id": [1]}))
print("end", flush=True)
sys.exit(int(sys.argv[2]))
