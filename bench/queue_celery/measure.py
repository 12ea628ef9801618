# SPDX-License-Identifier: Apache-2.0
"""measure.py latency COUNT RATE | pipeline COUNT: sends chains of the five tasks and prints one JSON object.

The same as unclip-bench-queue's commands of these names do: COUNT at RATE a second, evenly, or as fast as they go, from
the sending to the moment at which this process has the last task's result.
"""

import json
import sys
import time

from celery import chain

from stages import TASKS


def send(i: int):
    job = {"prompt": f"a small red fox in fresh snow at dusk, soft light, number {i}", "size": 1024, "seed": i}
    first, *rest = TASKS
    return chain(first.s(job), *(task.s() for task in rest)).apply_async()


def latency(count: int, rate: int) -> dict:
    ms = [0.0] * count

    def one(i: int) -> None:
        began = time.monotonic()
        send(i).get(timeout=60)
        ms[i] = (time.monotonic() - began) * 1000

    due = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, due - time.monotonic()))
        one(i)
        due = max(due + 1 / rate, time.monotonic())
    ms.sort()
    return {"count": count, "p50_ms": ms[count // 2], "p90_ms": ms[int(0.9 * count)], "p99_ms": ms[int(0.99 * count)], "max_ms": ms[-1]}


def pipeline(count: int) -> dict:
    began = time.monotonic()
    results = [send(i) for i in range(count)]
    sent = time.monotonic()
    for result in results:
        result.get(timeout=120)
    seconds = time.monotonic() - began
    return {"count": count, "seconds": seconds, "per_s": count / seconds, "sent_per_s": count / (sent - began)}


if __name__ == "__main__":
    command, *numbers = sys.argv[1:]
    print(json.dumps({"latency": latency, "pipeline": pipeline}[command](*map(int, numbers))))
