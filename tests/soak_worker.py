"""One process of the soak (`soak.py`): asks, is answered, and may fork, invalidate, or find its disk full.

Its one argument is a task in JSON; it prints how many calls it made and how many bytes its memory grew after the first.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import farthing

warnings.simplefilter("ignore")
TASK = json.loads(sys.argv[1])
KIND = TASK["kind"]
RNG = random.Random(os.urandom(8))
# What no process may ever meet, however many of them there are.
NEVER = {"cache file: locked", "cache file: too slow", "cache file: corrupt", "cache file: damaged entry"}


def ask(client: farthing.OpenAI) -> None:
    question = str(RNG.randrange(TASK["questions"]))
    chance = RNG.random()
    options: dict[str, Any] = {"tag": f"t{int(question) % 50}"}
    # Most calls may be answered by the cache; some ask anew, some leave it out.
    if chance < 0.015:
        options["cache"] = "refresh" if chance < 0.01 else "off"
    with farthing.options(**options):
        made = client.chat.completions.create(
            model="test-model",
            messages=[{"role": "user", "content": question}],
            extra_headers={"idempotency-key": str(os.getpid())},
        )
    said = made.choices[0].message.content or ""
    assert said.split(" ", 1)[0] == question, (question, said[:20])


def invalidate(client: farthing.OpenAI) -> None:
    try:
        client.cache.invalidate(tag=f"t{RNG.randrange(50)}")
    except farthing.CacheError as error:
        assert "full" in str(error) or KIND == "limited", error


def written(client: farthing.OpenAI) -> None:
    for _ in range(200):
        try:
            return client.cache.flush()
        except farthing.CacheError:
            time.sleep(0.1)
    raise SystemExit("the file could not be written for 20 seconds")


def fork(client: farthing.OpenAI) -> None:
    pid = os.fork()
    if pid == 0:
        for _ in range(20):
            ask(client)
        written(client)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "a forked child failed"


def limit(bytes_of_a_file: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, resource.RLIM_INFINITY))


def memory() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    client = None
    while client is None:
        try:
            client = farthing.OpenAI(base_url=TASK["url"], api_key="k", max_retries=0, policy=TASK["policy"])
        except farthing.CacheError as error:
            assert KIND == "strict" and "full" in str(error), error
            time.sleep(0.1)
    end = time.time() + TASK["seconds"]
    count = warm = 0
    while time.time() < end or count < TASK["least"]:
        try:
            ask(client)
        except farthing.CacheError as error:
            assert KIND == "strict" and "full" in str(error), error
            time.sleep(0.1)
        count += 1
        if count == TASK["warm_up"]:
            warm = memory()
        if RNG.random() < 0.0001:
            invalidate(client)
        if KIND == "limited" and count % 200 == 0:
            limit(os.path.getsize(TASK["policy"]["cache"]["path"]) if RNG.random() < 0.5 else resource.RLIM_INFINITY)
        elif KIND == "forking" and RNG.random() < 0.0005:
            fork(client)
    limit(resource.RLIM_INFINITY)
    grown = memory() - warm if warm else 0
    written(client)
    faults = client.savings().faults
    assert not NEVER & set(faults), faults
    print(count, grown)


if __name__ == "__main__":
    main()
