"""Tasks of Celery that write, with a broker of files."""

import os

from celery import Celery
from jobs import load

HOME = os.environ["CELERY_FOLDER"]
app = Celery(
    "celery_tasks",
    broker="filesystem://",
    backend=f"file://{HOME}/results",
    broker_transport_options={
        "data_folder_in": f"{HOME}/queue",
        "data_folder_out": f"{HOME}/queue",
        "control_folder": f"{HOME}/control",
    },
)


@app.task
def write(folder, name):
    """Write."""
    return load(folder, name)


@app.task
def write_by_task(folder, name):
    """Write in a task of a task, which is not waited for."""
    write.delay(folder, name)


@app.task(bind=True, max_retries=1)
def write_in_retry(self, folder, name):
    """Write in the second attempt."""
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return load(folder, name)
