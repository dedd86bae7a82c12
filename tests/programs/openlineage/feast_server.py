"""Serve the lineage endpoint of Feast on loopback, with a database in a folder, until the process is ended.

    python feast_server.py FOLDER

It prints the port. Feast's command `feast serve_lineage` serves the same router.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from fastapi import FastAPI
from feast.openlineage.config import OpenLineageConfig, OpenLineageConsumerConfig
from feast.openlineage.consumer import get_consumer_router
from feast.openlineage.processor import OpenLineageProcessor
from feast.openlineage.store import OpenLineageStore


def lineage_app(folder: str) -> FastAPI:
    consumer = OpenLineageConsumerConfig(enabled=True)
    config = OpenLineageConfig(enabled=True, consumer=consumer)
    store = OpenLineageStore(connection_string=f"sqlite:///{folder}/lineage.db")
    store.initialize()
    processor = OpenLineageProcessor(store=store, namespace_mapping={})
    app = FastAPI()
    app.include_router(get_consumer_router(config, store, processor), prefix="/api/v1")
    return app


def main(folder: str) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = lineage_app(folder)
    listener.listen(64)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
