# SPDX-License-Identifier: Apache-2.0
"""Five tasks that do nothing, each with a queue and a worker of its own: what ./bench/queue measures of Celery."""

import os

from celery import Celery

STAGES = ["text-encode", "prior", "decoder", "upsampler-1", "upsampler-2"]

redis = os.environ["UNCLIP_REDIS"]
app = Celery("stages", broker=f"redis://{redis}/1", backend=f"redis://{redis}/2")
app.conf.update(
    # Celery's guide to optimising: many for short tasks ("50 or 150 might make sense")
    worker_prefetch_multiplier=128,
    task_routes={f"stage.{name}": {"queue": name} for name in STAGES},
    broker_connection_retry_on_startup=True,
)


def stage(name: str):
    # as the guide advises, results that nobody reads are not kept
    @app.task(name=f"stage.{name}", ignore_result=name != STAGES[-1])
    def work(job: dict) -> dict:
        return job

    return work


TASKS = [stage(name) for name in STAGES]
