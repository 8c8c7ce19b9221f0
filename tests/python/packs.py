"""An upstream that answers packs as a model would, and says what it saw: what the tests of `[batch]` share."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from upstream import Reply, Seen, Upstream, chat

PRICES = {"test-model": {"input": 1, "output": 2}}
"""USD per million tokens."""
SYSTEM = (
    "You answer questions about a small museum of money. " + "It is open from nine to five, and on Sundays too. " * 40
)
"""Long enough for a pack to pay."""
ERROR = {"error": {"message": "no", "type": "kind", "param": None, "code": "why"}}

_numbers = itertools.count(1)

Says = str | Callable[[str], str]


def questions(body: Mapping[str, Any]) -> list[str] | None:
    """Those of a pack, in its order; None: it is none."""
    text = body["messages"][-1]["content"]
    mark = re.match(r"Below are independent inputs, each between <(\d+) N>", str(text))
    return re.findall(rf"\n<{mark[1]} \d+>\n(.*?)\n</{mark[1]}>\n", text, re.DOTALL) if mark else None


def say(question: str) -> str:
    return f"about {question}"


class World:
    """Answers each question by `says`, packed or alone. `edit` may spoil the answer to a pack: it gets the answers by
    their ids, and returns them, a text, or a reply. `gate`: replies to packs wait for it."""

    def __init__(self, server: Upstream) -> None:
        self.server = server
        self.says: Callable[[str], str] = say
        self.edit: Callable[[dict[str, str], int], Any] | None = None
        self.alone: Callable[[str], Reply | None] = lambda question: None
        self.takes_schemas = True
        self.gate: threading.Event | None = None
        self.packs = 0
        server.script = self._script

    def _script(self, seen: Seen, number: int) -> Reply:
        body = seen.json
        asked = questions(body)
        if asked is None:
            question = body["messages"][-1]["content"]
            return self.alone(question) or self._reply(body, self.says(question))
        if self.gate is not None:
            self.gate.wait(30)
        if "response_format" in body and not self.takes_schemas:
            return Reply(400, ERROR)
        self.packs += 1
        answers: Any = {str(at): self.says(question) for at, question in enumerate(asked, 1)}
        if self.edit is not None:
            answers = self.edit(answers, self.packs)
        if isinstance(answers, Reply):
            return answers
        if isinstance(answers, dict) and "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            if schema["properties"]["1"] != {"type": "string"}:
                answers = {at: json.loads(text) for at, text in answers.items()}
            answers = json.dumps(answers)
        elif isinstance(answers, dict):
            answers = numbered(answers)
        return self._reply(body, answers)

    def _reply(self, body: Mapping[str, Any], text: str) -> Reply:
        """Bills four characters as a token."""
        prompt = sum(len(str(message["content"])) for message in body["messages"]) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4 + 1, "total_tokens": 0}
        usage["total_tokens"] = prompt + usage["completion_tokens"]
        return Reply(body=chat(text, model=body["model"], usage=usage))

    @property
    def requests(self) -> list[list[str]]:
        """The questions of each request that came."""
        bodies = [seen.json for seen in self.server.seen]
        return [questions(body) or [body["messages"][-1]["content"]] for body in bodies]

    def policy(self, **batch: Any) -> dict[str, Any]:
        """Ten calls fill a request: a window that long is never waited for then, however busy the machine is."""
        batch = {"models": ["test-model"], "window_ms": 20_000, **batch}
        return {"cache": {"name": f"packs-{next(_numbers)}"}, "models": PRICES, "batch": batch}


def numbered(answers: Mapping[str, str]) -> str:
    lines = (f"{number}. " + answer.replace("\n", "\n   ") for number, answer in answers.items())
    return "\n".join(lines)
