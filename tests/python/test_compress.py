"""The same in fewer tokens: which texts are shortened, what the upstream gets, and what is never touched."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai
import pytest
from conftest import Face
from upstream import Reply, Seen, Upstream, chat, response, response_events, with_calls

import farthing

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]
MODEL = "test-model"
PRICES = {MODEL: {"input": 10, "output": 20}, "writer": {"input": 1, "output": 2}}
DISCOUNT = {MODEL: {"input": 10, "output": 20, "cached_input": 1}}
LONG = "The quick brown fox jumps over the lazy dog beside the river bank. " * 40
ROWS = [{"id": number, "name": f"item {number}", "price": number * 1.5, "is_sold": False} for number in range(40)]
RESULT = json.dumps({"rows": ROWS, "note": "all prices in euro"}, indent=2)
_numbers = itertools.count(1)


def halve(request: farthing.CompressRequest) -> str:
    return request.text[: len(request.text) // 2]


def policy(*, models: Any = None, cache: bool = False, **compress: Any) -> dict[str, Any]:
    compress = {"models": [MODEL], **compress}
    return {
        # Equal policies share what was sent.
        "cache": {"name": f"compress-{next(_numbers)}", "mode": "on" if cache else "off"},
        "models": PRICES if models is None else models,
        "compress": compress,
    }


def system(text: str = LONG) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def tool(text: str = RESULT, call: str = "call_1") -> list[dict[str, Any]]:
    asked = {"id": call, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": call, "content": text},
    ]


def sent(upstream: Upstream, at: int = -1) -> list[Any]:
    messages = upstream.seen[at].json["messages"]
    assert isinstance(messages, list)
    return messages


def receipt(answer: Any) -> farthing.Receipt:
    found = farthing.receipt(answer)
    assert found is not None
    return found


def notes(answer: Any) -> str:
    return "; ".join(receipt(answer).notes)


# ---- which texts ----


CONVERSATION = [system(), user(LONG), assistant(LONG), *tool(LONG), user("short"), assistant("ok"), user(LONG)]


@pytest.mark.parametrize(
    ("parts", "shortened"),
    [
        (["system"], [0]),
        (["history"], [1, 2]),
        (["tools"], [4]),
        (["documents"], []),
        (["last_user"], []),
        (["system", "history", "tools", "documents"], [0, 1, 2, 4]),
    ],
)
def test_only_the_parts_that_the_policy_names(
    face: Face, upstream: Upstream, parts: list[str], shortened: list[int]
) -> None:
    client = face.client(upstream, policy=policy(parts=parts, methods=[halve], keep_turns=1))
    face.chat(client, messages=CONVERSATION)
    got = sent(upstream)
    assert [at for at, message in enumerate(got) if message != CONVERSATION[at]] == shortened
    for at in shortened:
        assert got[at] == {**CONVERSATION[at], "content": CONVERSATION[at]["content"][: len(LONG) // 2]}


def test_the_last_turns_are_no_history(face: Face, upstream: Upstream) -> None:
    messages = [user(LONG), assistant(LONG), user(LONG), assistant(LONG), user("and now?")]
    for turns, shortened in ((1, [0, 1, 2, 3]), (2, [0, 1]), (3, [])):
        client = face.client(upstream, policy=policy(parts=["history"], methods=[halve], keep_turns=turns))
        face.chat(client, messages=messages)
        assert [at for at, message in enumerate(sent(upstream)) if message != messages[at]] == shortened


def test_documents_are_what_is_marked(face: Face, upstream: Upstream) -> None:
    marked = f'Read this.\n<document index="1">{LONG}</document>\n<b>{LONG}</b>'
    pieces = [{"type": "text", "text": LONG}, {"type": "text", "text": "What does it say?"}]
    messages = [user(marked), assistant("yes"), user(pieces), assistant("yes"), user(marked)]
    client = face.client(upstream, policy=policy(parts=["documents"], methods=[halve]))
    face.chat(client, messages=messages)
    got = sent(upstream)
    half = LONG[: len(LONG) // 2]
    assert got[0]["content"] == f'Read this.\n<document index="1">{half}</document>\n<b>{LONG}</b>'
    assert got[2]["content"] == [{"type": "text", "text": half}, pieces[1]]
    assert got[4] == messages[4], "the last message of the user is not touched"


def test_of_the_last_message_the_question_stays(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(parts=["last_user"], methods=[halve]))
    question = "And who jumps over whom?"
    face.chat(client, messages=[user(f"{LONG}\n\n{question}")])
    (text,) = (message["content"] for message in sent(upstream))
    assert text.endswith(question)
    assert len(text) < len(LONG) * 0.6
    assert f"dog beside the \n\n{question}" in text or text.split("\n\n")[-1] == question
    face.chat(client, messages=[user(f"<documents>{LONG}</documents>{LONG}{question}")])
    (text,) = (message["content"] for message in sent(upstream))
    assert text == f"<documents>{LONG[: len(LONG) // 2]}</documents>{LONG}{question}"
    face.chat(client, messages=[user(LONG)])
    assert sent(upstream) == [user(LONG)]


def test_short_texts_and_other_models_are_left_alone(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(methods=[halve], min_chars=500))
    for messages, model in (([system("x" * 499), user("hi")], MODEL), ([system(), user("hi")], "other-model")):
        face.chat(client, model=model, messages=messages)
        assert sent(upstream) == messages
    face.chat(client, messages=[system("x y " * 125), user("hi")])
    assert sent(upstream)[0]["content"] == "x y " * 62 + "x "


def test_what_is_not_text_and_what_nobody_knows_survives(face: Face, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    text = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}, "z": 1e400 and 12345678901234567890}
    first = {"x_new": [1.0, {"a": None}], "role": "user", "content": [image, text, image], "name": "ann"}
    client = face.client(upstream, policy=policy(parts=["history"], methods=[halve], keep_turns=1))
    face.chat(client, messages=[first, user("hi")])
    expected = {**first, "content": [image, {**text, "text": LONG[: len(LONG) // 2]}, image]}
    assert sent(upstream)[0] == expected
    # In the order in which it came.
    assert upstream.seen[-1].body.index(b"x_new") < upstream.seen[-1].body.index(b'"role"')


def test_responses(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=response("pong", model=MODEL))
    client = face.client(upstream, policy=policy(methods=[halve], keep_turns=1))
    half = LONG[: len(LONG) // 2]
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": LONG}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": LONG},
        {"role": "user", "content": LONG},
    ]
    face.run(lambda: client.responses.create(model=MODEL, instructions=LONG, input=items))
    body = upstream.seen[-1].json
    assert body["instructions"] == half
    assert body["input"][0]["content"] == [{"type": "input_text", "text": half}]
    assert body["input"][1] == items[1]
    assert body["input"][2]["output"] == half
    assert body["input"][3] == items[3]
    face.run(lambda: client.responses.create(model=MODEL, instructions=LONG, input="hello"))
    assert (upstream.seen[-1].json["instructions"], upstream.seen[-1].json["input"]) == (half, "hello")
    # What the server has is not here.
    face.run(lambda: client.responses.create(model=MODEL, input=items, previous_response_id="resp_1"))
    assert upstream.seen[-1].json["input"] == items


# ---- how ----


def test_structural_is_the_same_in_fewer_tokens(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(parts=["tools"], tables=True))
    page = f"<html><head><title>Fares</title><script>x()</script></head><body><p>{LONG}</p></body></html>"
    log = "\n".join(["boot   "] + ["retrying in 15 s"] * 60 + [LONG.replace("fox", "cat")])
    code = "```python\n" + "def f(x):\n    return  x\n" * 40 + "```"
    cow = LONG.replace("fox", "cow")
    answer = face.chat(
        client, messages=[user("a"), *tool(RESULT), *tool(page), *tool(log), *tool(code), *tool(cow), *tool(cow)]
    )
    table, text, lines, kept, once, again = (m["content"] for m in sent(upstream) if m["role"] == "tool")
    assert len(table) < len(RESULT) / 3
    read = json.loads(table)
    rows = [dict(zip(read["rows"]["columns"], row, strict=True)) for row in read["rows"]["rows"]]
    assert {**read, "rows": rows} == json.loads(RESULT)
    assert "Fares" in text and LONG.strip() in text and "<p>" not in text and "x()" not in text
    assert lines.count("retrying") == 1 and "60" in lines and "boot\n" in lines and "quick brown cat" in lines
    assert kept == code
    assert once.strip() == cow.strip() and len(again) < 100 and "same as above" in again
    made = receipt(answer).compress
    assert made is not None and {step.method for step in made.steps} == {"structural"}


def test_lists_stay_lists_where_the_policy_does_not_say_so(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(parts=["tools"]))
    face.chat(client, messages=[user("a"), *tool(RESULT)])
    assert sent(upstream)[2]["content"] == json.dumps(json.loads(RESULT), separators=(",", ":"))


def test_extractive_keeps_what_answers_the_question(face: Face, upstream: Upstream) -> None:
    filler = [f"Room {number} was painted in {1900 + number} and has {number % 7} windows." for number in range(80)]
    filler.insert(57, "The director's parrot is called Bartholomew, and it does not bite.")
    text = " ".join(filler)
    client = face.client(upstream, policy=policy(methods=["extractive"], keep=0.2, parts=["tools", "system"]))
    face.chat(client, messages=[system(text), user("What is the name of the director's parrot?"), *tool(text)])
    got = sent(upstream)
    assert got[0] == system(text), "what tells a model how to go about it is no passage"
    assert "parrot is called Bartholomew, and it does not bite." in got[3]["content"]
    assert "[…]" in got[3]["content"]
    tokens = [farthing.count_tokens(one, model="gpt-4o").tokens for one in (text, got[3]["content"])]
    assert tokens[1] <= 0.2 * tokens[0]


@pytest.mark.parametrize("method", ["extractive", "function"])
def test_what_was_made_for_one_question_is_not_used_for_another(face: Face, upstream: Upstream, method: str) -> None:
    facts = [f"The {animal} of the house lives in room {number}." for number, animal in enumerate(ANIMALS)]
    document = "\n\n".join(
        fact + " It is fed at noon, and sleeps for most of the day, as do all of the others." for fact in facts
    )

    def fitting(request: farthing.CompressRequest) -> str:
        words = request.question.replace("?", "").split()
        return " ".join(fact for fact in facts if any(word in fact.split() for word in words if word in ANIMALS))

    made = policy(methods=[fitting if method == "function" else method], parts=["documents"], keep=0.2)
    client = face.client(upstream, policy=made)
    begin = [user(f"<document>{document}</document>"), assistant("I have read it.")]
    for at in (3, 17, 3):
        question = user(f"In which room does the {ANIMALS[at]} live?")
        face.chat(client, messages=[*begin, question])
        first = sent(upstream)[0]
        assert facts[at] in first["content"] and len(first["content"]) < len(document) / 2
        # Of one conversation it stays.
        face.chat(client, messages=[*begin, question, assistant("There."), user("And when is the walrus fed?")])
        assert sent(upstream)[0] == first


ANIMALS = [
    "ant",
    "bear",
    "cat",
    "dog",
    "eel",
    "fox",
    "goat",
    "hen",
    "ibex",
    "jackal",
    "koala",
    "lion",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "rat",
    "seal",
    "toad",
    "urchin",
    "vole",
    "wolf",
    "yak",
]


def test_words_to_be_heeded_or_imitated_are_not_put_otherwise(face: Face, upstream: Upstream) -> None:
    """An example of an answer is to be answered like; a page that the model wrote is to be changed in the next turn."""
    text = LONG.strip()
    page = f"<html><body><p id='a'>{text}</p><ul><li>a</li><li>b</li></ul></body></html>"
    rules = f"End with {'=' * 40}\nName:    <name>\n\n\n{text}  \n{text}"
    messages = [
        system(rules),
        user("rows?"),
        assistant(RESULT),
        user("a page?"),
        assistant(page),
        user(page.replace("fox", "cat")),
        assistant(text),
        assistant(text),
        user("and?"),
    ]
    client = face.client(upstream, policy=policy(keep_turns=1))
    face.chat(client, messages=messages)
    got = sent(upstream)
    assert got[1:] == messages[1:]
    assert got[0]["content"] == rules.replace("\n\n\n", "\n\n").replace("  \n", "\n")


def test_documents_of_a_system_message_are_not_cut_for_a_question(face: Face, upstream: Upstream) -> None:
    text = " ".join(f"Rule {number} is about the colour of room {number}." for number in range(80))
    client = face.client(upstream, policy=policy(methods=["extractive"], parts=["documents"]))
    messages = [system(f"<context>{text}</context>"), user("Which rule is about room 7?")]
    face.chat(client, messages=messages)
    assert sent(upstream) == messages


# ---- what it saves ----


def test_the_receipt_and_the_bill_say_what_was_saved(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(methods=[halve]))
    answer = face.chat(client, messages=[system(), user("hi")])
    made = receipt(answer).compress
    assert made is not None
    (step,) = made.steps
    assert (step.part, step.method) == ("system", "callable")
    before, after = (farthing.count_tokens(text, model="gpt-4o").tokens for text in (LONG, LONG[: len(LONG) // 2]))
    assert (step.before, step.after, made.saved_tokens) == (before, after, before - after)
    assert made.saved == receipt(answer).saved == Decimal(before - after) * 10 / 10**6
    bill = client.savings()
    line = bill.by_stage["compress"]
    assert (line.calls, line.saved, line.saved_tokens) == (1, made.saved, before - after)
    assert bill.saved == bill.estimated_saved == made.saved == sum(row.saved or 0 for row in bill.by_model.values())
    assert bill.saved_tokens == before - after


@pytest.mark.parametrize(
    ("details", "rate"),
    [({}, 10), ({"cached_tokens": 0}, 10), ({"cached_tokens": 1408}, 1), ({"cache_write_tokens": 1500}, 13)],
)
def test_what_is_saved_has_the_price_that_the_provider_billed(
    face: Face, upstream: Upstream, details: dict[str, int], rate: int
) -> None:
    """What was cut out of a message that the provider had in its cache would have been there too."""
    usage = {"prompt_tokens": 1500, "completion_tokens": 1, "total_tokens": 1501, "prompt_tokens_details": details}
    upstream.script = lambda seen, number: Reply(body={**chat("pong", model=MODEL), "usage": usage})
    prices = {MODEL: {"input": 10, "output": 20, "cached_input": 1, "cache_write": 13}}
    client = face.client(upstream, policy=policy(models=prices, methods=[halve]))
    long = "".join(f"Rule {number} of the house is to be read at least once. " for number in range(210))
    made = receipt(face.chat(client, messages=[system(long), user("hi")])).compress
    assert made is not None and made.saved_tokens > 1000
    assert made.saved == Decimal(made.saved_tokens) * rate / 10**6


def test_without_a_policy_nothing_is_shortened(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    answer = face.chat(client, messages=CONVERSATION)
    assert sent(upstream) == CONVERSATION
    assert receipt(answer).compress is None


def test_answers_to_shorter_prompts_are_kept_apart(face: Face, upstream: Upstream) -> None:
    made = policy(methods=[halve], cache=True)
    plain = face.client(upstream, policy={**made, "compress": False})
    client = face.client(upstream, policy=made)
    for one in (plain, client, plain, client):
        face.chat(one, messages=[system(), user("hi")])
    assert len(upstream.seen) == 2, "and one of them is longer"
    # What a hit saves is the stored answer's, whatever was shortened for it.
    assert receipt(face.chat(client, messages=[system(), user("hi")])).outcome == "hit"


def test_an_error_saves_nothing(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(400, {"error": {"message": "no"}})
    client = face.client(upstream, policy=policy(methods=[halve]))
    with pytest.raises(openai.BadRequestError):
        face.chat(client, messages=[system(), user("hi")])
    assert "compress" not in client.savings().by_stage


def test_a_stream_that_breaks_off_saves_nothing(face: Face, upstream: Upstream) -> None:
    from upstream import chat_events

    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong pong")[:2], cut=True)
    client = face.client(upstream, policy=policy(methods=[halve]))
    stream = face.chat(client, messages=[system(), user("hi")], stream=True)
    with pytest.raises(openai.APIError):
        face.items(stream)
    made = receipt(stream).compress
    assert made is not None and (made.saved_tokens, made.saved) == (0, 0)
    assert "compress" not in client.savings().by_stage


def test_what_is_saved_has_the_price_of_the_model_that_answered(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        if seen.json["model"] == MODEL:
            return Reply(503, {"error": {"message": "no"}})
        return Reply(body=chat("pong", model="writer"))

    upstream.script = script
    made = policy(methods=[halve])
    made["models"] = {**PRICES, MODEL: {**PRICES[MODEL], "fallback": ["writer"]}}
    client = face.client(upstream, policy=made)
    found = receipt(face.chat(client, messages=[system(), user("hi")])).compress
    assert found is not None and found.saved == Decimal(found.saved_tokens) / 10**6


def test_streams(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(methods=[halve]))
    face.stream(client, messages=[system(), user("hi")])
    assert len(sent(upstream)[0]["content"]) < len(LONG)
    assert client.savings().by_stage["compress"].calls == 1


# ---- what was sent before ----


def test_a_message_keeps_its_form(face: Face, upstream: Upstream) -> None:
    """Whatever the function would make of it later, or of the question then."""
    counter = itertools.count(1)
    client = face.client(
        upstream, policy=policy(methods=[lambda request: f"{next(counter)} {request.question}"], keep_turns=1)
    )
    messages = [system(), user(LONG), assistant("yes"), user("a")]
    face.chat(client, messages=messages)
    first = sent(upstream)
    assert first[:2] == [system("1 a\n"), user("2 a\n")]
    longer = [*messages, assistant(LONG), user("b")]
    face.chat(client, messages=longer)
    assert sent(upstream)[:4] == first
    assert sent(upstream)[4] == assistant("3 b\n")
    # Saved again, as it was not sent again.
    assert client.savings().by_stage["compress"].calls == 2


@pytest.mark.parametrize("is_discounted", [False, True])
def test_what_the_provider_has_in_its_cache_stays(face: Face, upstream: Upstream, is_discounted: bool) -> None:
    text = LONG * 3
    client = face.client(
        upstream,
        policy=policy(models=DISCOUNT if is_discounted else PRICES, parts=["history"], methods=[halve], keep_turns=1),
    )
    messages = [user(text), assistant("yes"), user("a")]
    face.chat(client, messages=messages[:1])
    assert sent(upstream) == messages[:1], "the last message is no history"
    face.chat(client, messages=messages)
    half = user(text[: len(text) // 2])
    assert sent(upstream) == ([messages[0]] if is_discounted else [half]) + messages[1:]


def test_a_prefix_too_short_for_the_providers_cache_may_change(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(models=DISCOUNT, parts=["history"], methods=[halve], keep_turns=1))
    face.chat(client, messages=[user(LONG)])
    face.chat(client, messages=[user(LONG), assistant("yes"), user("a")])
    assert sent(upstream)[0] == user(LONG[: len(LONG) // 2])


def test_a_system_prompt_is_not_made_too_short_to_be_cached(face: Face, upstream: Upstream) -> None:
    text = LONG * 2  # 1,100 tokens or so: half of it at full price is dearer than all of it at a tenth
    for models, is_kept in ((DISCOUNT, True), (PRICES, False)):
        client = face.client(upstream, policy=policy(models=models, parts=["system"], methods=[halve]))
        answer = face.chat(client, messages=[system(text), user("hi")])
        assert (sent(upstream)[0] == system(text)) is is_kept
        assert ("would not cache it" in notes(answer)) is is_kept
        assert ("compress" in client.savings().by_stage) is not is_kept


def test_a_system_prompt_that_was_sent_short_stays_short(face: Face, upstream: Upstream) -> None:
    text = LONG * 2
    client = face.client(
        upstream, policy=policy(models=DISCOUNT, parts=["system"], methods=[lambda request: "Fox. " * 9])
    )
    for question in (LONG * 2, "hi"):
        answer = face.chat(client, messages=[system(text), user(question)])
        assert sent(upstream)[0] == system("Fox. " * 9)
    made = receipt(answer).compress
    assert made is not None and made.saved_tokens > 1000


def test_the_next_turn_of_a_stream_that_was_left_has_the_same_beginning(face: Face, upstream: Upstream) -> None:
    counter = itertools.count(1)
    client = face.client(upstream, policy=policy(methods=[lambda request: f"{next(counter)}"]))
    stream = face.chat(client, messages=[system(), user("hi")], stream=True)
    face.run(stream.close)
    face.chat(client, messages=[system(), user("hi"), assistant("po"), user("go on")])
    assert sent(upstream)[0] == system("1")


def test_conversations_of_two_keys_share_nothing(face: Face, upstream: Upstream) -> None:
    counter = itertools.count(1)
    made = policy(methods=[lambda request: f"{next(counter)}"])
    for key, text in (("sk-a", "1"), ("sk-b", "2"), ("sk-a", "1")):
        face.chat(face.client(upstream, policy=made, api_key=key), messages=[system(), user("hi")])
        assert sent(upstream)[0] == system(text)


# ---- functions ----


def test_functions_sync_and_async(face: Face, upstream: Upstream) -> None:
    async def later(request: farthing.CompressRequest) -> str:
        await asyncio.sleep(0)
        return f"{request.part}, {request.model}, {request.question.strip()}"

    for function in (later, lambda request: f"{request.part}, {request.model}, {request.question.strip()}"):
        client = face.client(upstream, policy=policy(methods=[function]))
        face.chat(client, messages=[system(), user("what?")])
        assert sent(upstream)[0] == system(f"system, {MODEL}, what?")


def _raises(request: farthing.CompressRequest) -> str:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_raises, "boom"),
        (lambda request: 7, "neither a text nor None"),
        (lambda request: " ", "no text"),
        (lambda request: None, ""),
        (lambda request: request.text + " and more", ""),
        (lambda request: time.sleep(3) or "short", "no answer within"),
    ],
)
def test_a_function_that_fails_leaves_the_text(
    face: Face, upstream: Upstream, function: Callable[..., Any], said: str
) -> None:
    client = face.client(upstream, policy=policy(methods=[function], timeout=0.3))
    answer = face.chat(client, messages=[system(), user("hi")])
    assert sent(upstream)[0] == system()
    assert said in notes(answer)
    assert answer.choices[0].message.content.startswith("pong")


def test_a_function_that_fails_fails_the_call_where_the_policy_is_strict(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy={**policy(methods=[_raises]), "strict": True})
    for stream in (False, True):
        with pytest.raises(farthing.FarthingError, match="compress: the function failed: RuntimeError: boom"):
            face.chat(client, messages=[system(), user("hi")], stream=stream)
    assert not upstream.seen, "nobody is asked"
    face.chat(client, messages=[user("hi")])


def test_a_function_that_failed_three_times_is_not_called_for_a_while(face: Face, upstream: Upstream) -> None:
    called: list[str] = []

    def fails(request: farthing.CompressRequest) -> str:
        called.append(request.text)
        raise RuntimeError("boom")

    client = face.client(upstream, policy=policy(methods=[fails], parts=["system"]))
    answers = [face.chat(client, messages=[system(f"{number} {LONG}"), user("hi")]) for number in range(5)]
    assert len(called) == 3
    assert ["boom" in notes(answer) for answer in answers] == [True, True, True, False, False]
    assert "not called for a while" in notes(answers[-1])


def test_all_texts_of_a_call_share_its_time(face: Face, upstream: Upstream) -> None:
    def slow(request: farthing.CompressRequest) -> str:
        time.sleep(0.4)
        return "short"

    client = face.client(upstream, policy=policy(methods=[slow], timeout=0.5))
    began = time.monotonic()
    answer = face.chat(client, messages=[user("a"), *tool(LONG), *tool(LONG[1:]), *tool(LONG[2:]), *tool(LONG[3:])])
    assert time.monotonic() - began < 3, "and not four times as long"
    assert "no time left" in notes(answer) or "no answer within" in notes(answer)
    assert sum(message["content"] == "short" for message in sent(upstream)) == 1


def test_a_function_may_call_the_client(face: Face, upstream: Upstream) -> None:
    made: dict[str, Any] = {}

    def ask(request: farthing.CompressRequest) -> str:
        said = made["client"].chat.completions.create(model=MODEL, messages=[user(request.text)])
        return str(said.choices[0].message.content)

    made["client"] = farthing.OpenAI(
        base_url=upstream.url, api_key="sk-test", policy=policy(methods=[ask], parts=["system"])
    )
    client = face.client(upstream, policy=policy(methods=[ask], parts=["system"]))
    face.chat(client, messages=[system(), user("hi")])
    assert sent(upstream)[0]["content"].startswith("pong")


# ---- summaries ----


class Writer:
    """An upstream whose model "writer" shortens what it is asked to."""

    def __init__(self, server: Upstream, says: Callable[[str], str]) -> None:
        self.server = server
        self.says = says
        self.reply: Callable[[], Reply | None] = lambda: None
        server.script = self._script

    def _script(self, seen: Seen, number: int) -> Reply:
        body = seen.json
        if body["model"] != "writer":
            return Reply(body=chat("pong", model=body["model"]))
        text = body["messages"][-1]["content"].split(">\n", 1)[1].rsplit("\n</", 1)[0]
        usage = {"prompt_tokens": len(text) // 4, "completion_tokens": len(self.says(text)) // 4, "total_tokens": 0}
        return self.reply() or Reply(body=chat(self.says(text), model="writer", usage=usage))

    @property
    def asked(self) -> int:
        return sum(seen.json["model"] == "writer" for seen in self.server.seen)


FACTS = LONG + "It cost 1,250 euro in Berlin; see https://example.com/a and `run_all()`. "
SUMMARY = "The fox jumps over the dog. It cost 1,250 euro in Berlin; see https://example.com/a and `run_all()`."


def summary(**more: Any) -> dict[str, Any]:
    return policy(methods=["summarise"], parts=["system"], summarise={"model": "writer", "keep": 0.1, **more})


def test_a_system_prompt_is_summarised_once(face: Face, upstream: Upstream) -> None:
    writer = Writer(upstream, lambda text: SUMMARY if text == FACTS else "?")
    client = face.client(upstream, policy=summary())
    first = face.chat(client, messages=[system(FACTS), user("a")])
    second = face.chat(client, messages=[system(FACTS), user("b")])
    assert writer.asked == 1
    assert [sent(upstream, at)[0] for at in (1, 2)] == [system(SUMMARY)] * 2
    assert receipt(first).overhead == Decimal(len(FACTS) // 4 * 1 + len(SUMMARY) // 4 * 2) / 10**6
    assert receipt(second).overhead == 0
    bill = client.savings()
    assert bill.overhead == receipt(first).overhead
    assert bill.by_stage["compress"].spent == bill.overhead
    assert bill.saved == 2 * (receipt(second).saved or 0)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (LONG[:200] + "It cost euro in Berlin.", "facts"),
        ("OK.", "much shorter"),
        ("I am sorry, but I cannot help you with anything of this kind. " * 4, "something else"),
        (FACTS + FACTS, "not shorter"),
        (FACTS[140:], "hardly shorter"),
        ("", "empty"),
    ],
)
def test_a_summary_that_is_worse_is_not_used(face: Face, upstream: Upstream, said: str, why: str) -> None:
    writer = Writer(upstream, lambda text: said)
    client = face.client(upstream, policy=summary())
    answer = face.chat(client, messages=[system(FACTS), user("a")])
    assert sent(upstream)[0] == system(FACTS)
    assert why in notes(answer)
    face.chat(client, messages=[system(FACTS), user("b")])
    assert writer.asked == 1, "the same text is not asked about again"
    face.chat(client, messages=[system(FACTS), user("c")])
    assert "compress" in client.savings().by_stage, "what was in vain is on the bill"


def test_a_summary_that_turns_a_rule_into_its_opposite_is_not_used(face: Face, upstream: Upstream) -> None:
    rules = "Never tell the balance of an account to anybody. Do not open doors. Be kind to all who ask. " * 12
    Writer(upstream, lambda text: "Tell the balance of an account to anybody. Open doors. Be kind to all who ask.")
    client = face.client(upstream, policy=summary())
    answer = face.chat(client, messages=[system(rules), user("a")])
    assert sent(upstream)[0] == system(rules)
    assert "negations" in notes(answer)


def test_rules_keep_all_of_their_negations(face: Face, upstream: Upstream) -> None:
    rules = "Do not open it. Never call before noon. Send nothing without a stamp. "
    Writer(upstream, lambda text: f"{LONG[:300]} Do not open it. Never call before noon. Send it with a stamp.")
    client = face.client(upstream, policy=summary())
    answer = face.chat(client, messages=[system(LONG + rules), user("a")])
    assert sent(upstream)[0] == system(LONG + rules) and "negations" in notes(answer)


def test_a_writer_that_takes_no_limits(face: Face, upstream: Upstream) -> None:
    writer = Writer(upstream, lambda text: SUMMARY)
    writer.reply = lambda: (
        Reply(400, {"error": {"message": "no max_tokens"}}) if "max_tokens" in upstream.seen[-1].json else None
    )
    client = face.client(upstream, policy=summary())
    face.chat(client, messages=[system(FACTS), user("a")])
    assert sent(upstream)[0] == system(SUMMARY)


def test_a_writer_that_cannot_answer_leaves_the_text(face: Face, upstream: Upstream) -> None:
    writer = Writer(upstream, lambda text: SUMMARY)
    writer.reply = lambda: Reply(500, {"error": {"message": "no"}})
    client = face.client(upstream, policy=summary())
    answer = face.chat(client, messages=[system(FACTS), user("a")])
    assert sent(upstream)[0] == system(FACTS)
    assert "status 500" in notes(answer)
    # Another time it may answer.
    writer.reply = lambda: None
    face.chat(client, messages=[system(FACTS), user("b")])
    assert sent(upstream)[0] == system(SUMMARY)


def test_a_function_is_asked_once_about_a_text(face: Face, upstream: Upstream) -> None:
    asked: list[str] = []

    def none(request: farthing.CompressRequest) -> None:
        asked.append(request.part)

    client = face.client(upstream, policy=policy(methods=[none], keep_turns=1))
    messages = [system(), user(LONG), assistant("yes"), user("a")]
    for more in ([], [assistant("b"), user("c")]):
        face.chat(client, messages=[*messages, *more])
    assert asked == ["system", "history"]


def test_equal_texts_at_once_are_summarised_once(face: Face, upstream: Upstream) -> None:
    writer = Writer(upstream, lambda text: SUMMARY)
    writer.reply = lambda: time.sleep(0.3)  # type: ignore[assignment, return-value, func-returns-value]
    client = face.client(upstream, policy=summary())
    create = client.chat.completions.create

    def call(number: int) -> Callable[[], Any]:
        arguments: Any = {"model": MODEL, "messages": [system(FACTS), user(str(number))]}
        if not face.is_async:
            return lambda: create(**arguments)

        async def later() -> Any:
            return await create(**arguments)

        return later

    answers = face.together(*(call(number) for number in range(6)))
    assert [receipt(answer).compress is not None for answer in answers] == [True] * 6
    assert writer.asked == 1
    assert client.savings().by_stage["compress"].calls == 6


def test_a_summary_that_cannot_pay_is_not_asked_for(face: Face, upstream: Upstream) -> None:
    writer = Writer(upstream, lambda text: SUMMARY)
    dear = {**PRICES, "writer": {"input": 100, "output": 200}}
    client = face.client(upstream, policy={**summary(uses=5), "models": dear})
    answer = face.chat(client, messages=[system(FACTS), user("a")])
    assert writer.asked == 0
    assert "and 5 are expected" in notes(answer)


def test_what_costs_more_than_it_saves_rests(face: Face, upstream: Upstream) -> None:
    """Each system prompt comes once: its summary is never paid back."""
    Writer(upstream, lambda text: text[:-60])
    client = face.client(upstream, policy=summary(keep=0.1, max_lost=1.0))
    answers = [face.chat(client, messages=[system(f"{number} {LONG}"), user("a")]) for number in range(25)]
    assert "nobody is asked for summaries for an hour" in notes(answers[-1])
    assert "for an hour" not in notes(answers[10])
    assert sent(upstream)[0] == system(f"24 {LONG}")
    assert client.savings().faults == {"compress does not pay": 1}


def test_what_was_sent_short_stays_short_while_it_rests(face: Face, upstream: Upstream) -> None:
    """And what costs nothing goes on."""
    Writer(upstream, lambda text: text[:-60])
    made = summary(keep=0.1, max_lost=1.0)
    made["compress"].update(methods=["structural", "summarise"], parts=["system", "tools"])
    client = face.client(upstream, policy=made)
    messages = [user("look"), *tool()]
    face.chat(client, messages=messages)
    before = sent(upstream)
    for number in range(25):
        answer = face.chat(client, messages=[system(f"{number} {LONG}"), user("a")])
    assert "for an hour" in notes(answer)
    face.chat(client, messages=[*messages, assistant("ok"), user("and?")])
    assert sent(upstream)[:3] == before and before[2] != messages[2]
    other = face.chat(client, messages=[user("look again"), *tool(RESULT.replace("item", "thing"))])
    made_of = receipt(other).compress
    assert made_of is not None and [step.method for step in made_of.steps] == ["structural"]


def test_what_loses_the_providers_discount_is_negative_and_rests(face: Face, upstream: Upstream) -> None:
    """A prompt that is too short for the provider's cache once it is shortened, asked again and again."""

    def script(seen: Seen, number: int) -> Reply:
        tokens = len(json.dumps(seen.json["messages"])) // 4
        usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
        return Reply(body={**chat("pong", model=MODEL), "usage": usage})

    upstream.script = script
    client = face.client(upstream, policy=policy(models=DISCOUNT, methods=[halve], parts=["documents"]))
    document = f"<document>{'Rule by rule, the house is described. ' * 150}</document>"
    messages = [user(f"{document} Read it."), user("What is the first rule?")]
    for number in range(24):
        messages = [*messages, user(f"And the rule number {number}?")]
        answer = face.chat(client, messages=messages)
    bill = client.savings()
    line = bill.by_stage["compress"]
    assert line.saved is not None and line.saved < 0
    assert bill.faults == {"compress does not pay": 1}
    assert "nothing new is shortened for an hour" in notes(answer)


def test_a_conversation_is_not_made_too_short_to_be_cached(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(models=DISCOUNT, methods=[halve], parts=["tools"]))
    long = "Rule by rule, the house is described. " * 150
    messages = [user("look"), *tool(long)]
    answer = face.chat(client, messages=messages)
    assert sent(upstream) == messages and "would not cache it" in notes(answer)
    made = receipt(answer).compress
    assert made is not None and made.steps == () and made.saved == 0
    # And stays so.
    face.chat(client, messages=[*messages, assistant("ok"), user("and?")])
    assert sent(upstream)[:3] == messages
    # Without a discount there is nothing to lose.
    client = face.client(upstream, policy=policy(methods=[halve], parts=["tools"]))
    face.chat(client, messages=messages)
    assert sent(upstream)[2]["content"] == long[: len(long) // 2]


def test_what_a_message_points_at_stays(face: Face, upstream: Upstream) -> None:
    clause = (
        "The delivery clause: whoever is late by more than three days pays a tenth of the price for each of them. " * 2
    )
    clause = clause.strip()
    filler = "".join(f"Line {number} of the letter has nothing to do with it.\n" for number in range(40))

    def drop(request: farthing.CompressRequest) -> str | None:
        return request.text.replace(clause, "") if request.part == "history" else None

    made = policy(methods=["structural", drop], parts=["tools", "history"], keep_turns=1)
    client = face.client(upstream, policy=made)
    messages = [user(f"{filler}\n\n{clause}\n\nLook it up."), *tool(f"{filler[:-60]}\n\n{clause}\n\nend")]
    face.chat(client, messages=messages)
    assert "the same as above" in sent(upstream)[2]["content"]
    face.chat(client, messages=[*messages, assistant("ok"), user("What does the clause say?")])
    assert "the same as above" in sent(upstream)[2]["content"]
    assert clause in sent(upstream)[0]["content"]


# ---- what was left out can be asked for ----


class Agent:
    """A model that asks for what was left out, so many times."""

    def __init__(self, server: Upstream, times: int = 1, also: Any = ()) -> None:
        self.server = server
        self.times = times
        self.also = also
        self.takes_tools = True
        server.script = self._script

    def _script(self, seen: Seen, number: int) -> Reply:
        body = seen.json
        offered = [tool["function"]["name"] for tool in body.get("tools", [])]
        if "farthing_restore" in offered and not self.takes_tools:
            return Reply(400, {"error": {"message": "no tools"}})
        if "farthing_restore" not in offered or self.times <= 0:
            made = chat("done", model=MODEL)
            return Reply(body=made) if not body.get("stream") else _streamed("done")
        self.times -= 1
        marks = [m["content"].rsplit("id=", 1)[1].rstrip("]") for m in body["messages"] if "farthing_restore" in str(m)]
        calls = [("call_9", "farthing_restore", json.dumps({"id": marks[0] if marks else "gone"})), *self.also]
        return Reply(body=with_calls(chat(model=MODEL), calls)) if not body.get("stream") else _streamed("", calls)


def _streamed(text: str, calls: Any = ()) -> Reply:
    from upstream import chat_events

    return Reply(pieces=chat_events(text, usage=True, model=MODEL, calls=calls))


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def agent(face: Face, upstream: Upstream, **more: Any) -> Any:
    return face.client(upstream, policy=policy(parts=["tools"], methods=[halve], recoverable=True, **more))


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_gets_what_was_left_out(face: Face, upstream: Upstream, stream: bool) -> None:
    Agent(upstream)
    client = agent(face, upstream)
    messages = [user("look"), *tool(LONG)]
    if stream:
        chunks = face.stream(client, messages=messages, tools=TOOLS)
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert not any(c.choices and c.choices[0].delta.tool_calls for c in chunks)
    else:
        answer = face.chat(client, messages=messages, tools=TOOLS)
        said = answer.choices[0].message.content
        assert receipt(answer).overhead == Decimal(9 * 10 + 3 * 20) / 10**6
        assert "asked for 1 whole" in notes(answer)
    assert said == "done"
    assert len(upstream.seen) == 2
    shortened, whole = (sent(upstream, at)[2]["content"] for at in (0, 1))
    assert whole == LONG
    assert shortened.startswith(LONG[: len(LONG) // 2] + "\n[shortened; whole: farthing_restore id=")
    # The application's own tools come first, as they were.
    assert upstream.seen[0].json["tools"][:-1] == TOOLS
    # What came back stays in the conversation, and so does the tool: the prompt would begin otherwise.
    face.chat(client, messages=[*messages, assistant("done"), user("and?")], tools=TOOLS)
    assert sent(upstream)[2]["content"] == LONG
    assert all(seen.json["tools"] == upstream.seen[0].json["tools"] for seen in upstream.seen)
    # It takes 90 tokens of each prompt, and nothing is left out any more.
    assert client.savings().by_stage["compress"].saved == Decimal(-2 * 90 * 10) / 10**6


def test_results_that_are_not_asked_for_stay_short(face: Face, upstream: Upstream) -> None:
    Agent(upstream, times=0)
    client = agent(face, upstream)
    answer = face.chat(client, messages=[user("look"), *tool(LONG)], tools=TOOLS)
    made = receipt(answer).compress
    assert made is not None and made.saved_tokens > 100
    assert len(upstream.seen) == 1
    assert client.savings().overhead == 0
    # Sent again as it was, and still to be asked for.
    Agent(upstream, times=1)
    face.chat(client, messages=[user("look"), *tool(LONG), assistant("done"), user("and?")], tools=TOOLS)
    assert [sent(upstream, at)[2]["content"] == LONG for at in (0, 1, 2)] == [False, False, True]


def test_other_calls_beside_it_are_made_again(face: Face, upstream: Upstream) -> None:
    """The application would answer its own calls, and nobody this one."""
    Agent(upstream, also=[("call_8", "look", "{}")])
    client = agent(face, upstream)
    answer = face.chat(client, messages=[user("look"), *tool(LONG)], tools=TOOLS)
    assert answer.choices[0].message.content == "done"


def test_calls_of_the_applications_tools_are_its_own(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=with_calls(chat(model=MODEL), [("call_8", "look", "{}")]))
    answer = face.chat(agent(face, upstream), messages=[user("look"), *tool(LONG)], tools=TOOLS)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["look"]
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("more", [{"tool_choice": "none"}, {"tool_choice": "required"}, {"n": 2}])
def test_where_the_tool_cannot_be_offered_nothing_is_left_out(
    face: Face, upstream: Upstream, more: dict[str, Any]
) -> None:
    face.chat(agent(face, upstream), messages=[user("look"), *tool(LONG)], tools=TOOLS, **more)
    assert sent(upstream)[2]["content"] == LONG
    assert upstream.seen[-1].json["tools"] == TOOLS


def test_where_the_tool_is_not_offered_any_more_the_whole_is_sent(face: Face, upstream: Upstream) -> None:
    Agent(upstream, times=0)
    client = agent(face, upstream)
    messages = [user("look"), *tool(LONG)]
    face.chat(client, messages=messages, tools=TOOLS)
    short = sent(upstream)[2]
    longer = [*messages, assistant("done"), user("and?")]
    face.chat(client, messages=longer, tools=TOOLS, tool_choice="required")
    assert sent(upstream) == longer
    face.chat(client, messages=longer, tools=TOOLS)
    assert sent(upstream)[2] == short


def test_equal_results_come_back_together(face: Face, upstream: Upstream) -> None:
    Agent(upstream)
    messages = [user("look"), *tool(LONG, "call_1"), *tool(LONG, "call_2")]
    face.chat(agent(face, upstream), messages=messages, tools=TOOLS)
    assert len(upstream.seen) == 2
    assert sent(upstream) == messages


def test_a_tool_of_the_same_name_is_the_applications(face: Face, upstream: Upstream) -> None:
    own = [{"type": "function", "function": {"name": "farthing_restore", "parameters": {"type": "object"}}}]
    upstream.script = lambda seen, number: Reply(
        body=with_calls(chat(model=MODEL), [("call_8", "farthing_restore", "{}")])
    )
    answer = face.chat(agent(face, upstream), messages=[user("look"), *tool(LONG)], tools=own)
    assert answer.choices[0].message.tool_calls[0].function.name == "farthing_restore"
    assert upstream.seen[-1].json["tools"] == own
    assert sent(upstream)[2]["content"] == LONG


def test_an_answer_of_responses_lists_the_tools_of_the_application(face: Face, upstream: Upstream) -> None:
    own = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}

    def script(seen: Seen, number: int) -> Reply:
        echo = {"model": MODEL, "tools": [{**one, "strict": True} for one in seen.json["tools"]]}
        is_stream = seen.json.get("stream")
        return Reply(pieces=response_events(echo=echo)) if is_stream else Reply(body=response(**echo))

    upstream.script = script
    client = agent(face, upstream)
    items: Any = [
        {"role": "user", "content": "look"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": LONG},
    ]
    answer = face.run(lambda: client.responses.create(model=MODEL, input=items, tools=[own], store=False))
    assert [tool["name"] for tool in upstream.seen[-1].json["tools"]] == ["look", "farthing_restore"]
    assert [tool.name for tool in answer.tools] == ["look"] and answer.tools[0].strict
    items[2] = {**items[2], "output": LONG[1:]}
    stream = face.run(lambda: client.responses.create(model=MODEL, input=items, tools=[own], stream=True, store=False))
    events = [event for event in face.items(stream) if hasattr(event, "response")]
    assert events and all([tool.name for tool in event.response.tools] == ["look"] for event in events)
    # What the server keeps may be continued by a call that says nothing of it.
    face.run(lambda: client.responses.create(model=MODEL, input=items, tools=[own]))
    assert upstream.seen[-1].json["input"] == items and upstream.seen[-1].json["tools"] == [own]


def test_what_came_of_a_stream_that_breaks_off_is_the_applications(face: Face, upstream: Upstream) -> None:
    from upstream import chat_events

    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong pong")[:2], cut=True)
    client = agent(face, upstream)
    stream = face.chat(client, messages=[user("look"), *tool(LONG)], tools=TOOLS, stream=True)
    got: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            got.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError):
        if face.is_async:
            face.run(read)
        for chunk in () if face.is_async else stream:
            got.append(chunk.choices[0].delta.content or "")
    assert "".join(got) == "p", "what came before the break"
    bill = client.savings()
    assert bill.overhead == 0 and "compress" not in bill.by_stage


def test_a_bad_request_is_asked_once(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(400, {"error": {"message": "bad temperature"}})
    with pytest.raises(openai.BadRequestError):
        face.chat(agent(face, upstream), messages=[user("look"), *tool(LONG)])
    assert len(upstream.seen) == 1


def test_a_server_without_tools_gets_the_whole_result(face: Face, upstream: Upstream) -> None:
    Agent(upstream).takes_tools = False
    answer = face.chat(agent(face, upstream), messages=[user("look"), *tool(LONG)])
    assert answer.choices[0].message.content == "done"
    assert sent(upstream)[2]["content"] == LONG
    assert "tools" not in upstream.seen[-1].json
    assert "asked without" in notes(answer)


def test_a_model_that_asks_without_end_is_heard(face: Face, upstream: Upstream) -> None:
    Agent(upstream, times=100)
    messages = [user("look"), *tool(LONG, "call_1"), *tool(LONG[10:], "call_2")]
    answer = face.chat(agent(face, upstream), messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "done"
    assert len(upstream.seen) == 4
    assert [sent(upstream)[at]["content"] for at in (2, 4)] == [LONG, LONG[10:]]
    assert upstream.seen[-1].json["tools"] == TOOLS, "it has all of it, and is not asked again"


# ---- with other stages ----


def test_savings_of_rejected_drafts_are_none(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        model = seen.json["model"]
        return Reply(body=chat("" if model == "small" else "pong", model=model))

    upstream.script = script
    prices = {name: {"input": 10, "output": 20} for name in ("small", "large")}
    made = {
        **policy(models=prices, methods=[halve]),
        "escalate": {"models": [MODEL], "ladder": ["small", "large"], "thresholds": [0.5]},
    }
    client = face.client(upstream, policy=made)
    answer = face.chat(client, messages=[system(), user("hi")])
    assert [len(sent(upstream, at)[0]["content"]) for at in (0, 1)] == [len(LONG) // 2] * 2
    bill = client.savings()
    assert bill.by_stage["compress"].calls == 1
    made_of = receipt(answer).compress
    assert made_of is not None and bill.by_stage["compress"].saved == made_of.saved


# ---- another order ----


def test_what_another_order_would_gain_is_said(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(parts=["tools"]))
    rules = "\n\n".join(LONG.replace("fox", f"fox {number}") for number in range(4))
    first = face.chat(client, messages=[system(f"It is 10:01.\n\n{rules}"), user("a")])
    second = face.chat(client, messages=[system(f"It is 10:02.\n\n{rules}"), user("b")])
    made = [receipt(answer).compress for answer in (first, second)]
    assert made[0] is not None and made[0].reordered_tokens == 0
    assert made[1] is not None and made[1].reordered_tokens > 1024
    bill = client.savings()
    assert bill.reordered_tokens == made[1].reordered_tokens
    assert "could be cached" in str(bill)
    assert sent(upstream) == [system(f"It is 10:02.\n\n{rules}"), user("b")], "it is only counted"


def test_without_a_method_it_is_only_counted(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(methods=[]))
    rules = "\n\n".join(LONG.replace("fox", f"fox {number}") for number in range(4))
    face.chat(client, messages=[system(f"It is 10:01.\n\n{rules}"), user("a")])
    messages = [system(f"It is 10:02.\n\n{rules}"), user("b")]
    made = receipt(face.chat(client, messages=messages)).compress
    assert sent(upstream) == messages
    assert made is not None and made.reordered_tokens > 1024 and made.steps == () and made.saved == 0
    assert "compress" not in client.savings().by_stage


# ---- many at once ----


def test_many_calls_at_once(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(methods=[halve]))
    create = client.chat.completions.create

    def call(number: int) -> Callable[[], Any]:
        arguments: Any = {"model": MODEL, "messages": [system(f"{number} {LONG}"), user(str(number))]}
        if not face.is_async:
            return lambda: create(**arguments)

        async def later() -> Any:
            return await create(**arguments)

        return later

    answers = face.together(*(call(number) for number in range(12)))
    assert all(receipt(answer).compress for answer in answers)
    texts = sorted(seen.json["messages"][0]["content"] for seen in upstream.seen)
    assert texts == sorted((whole := f"{number} {LONG}")[: len(whole) // 2] for number in range(12))


def test_a_caller_that_leaves_stops_the_summary(upstream: Upstream) -> None:
    gate = threading.Event()
    writer = Writer(upstream, lambda text: SUMMARY)

    def wait() -> None:
        gate.wait(20)

    writer.reply = wait  # type: ignore[assignment]

    async def main() -> None:
        client = farthing.AsyncOpenAI(base_url=upstream.url, api_key="sk-test", policy=summary())
        task = asyncio.create_task(
            client.chat.completions.create(model=MODEL, messages=[system(FACTS), user("a")])  # type: ignore[list-item]
        )
        while not writer.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        writer.reply = lambda: None
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[system(FACTS), user("b")],  # type: ignore[list-item]
        )
        assert answer.choices[0].message.content.startswith("pong")

    asyncio.run(main())
    assert sent(upstream)[0] == system(SUMMARY)


# ---- the policy ----


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "missing key in the policy: compress.models"),
    ({"models": []}, "compress.models is empty"),
    ({"models": ["m"], "parts": []}, "compress.parts is empty"),
    ({"models": ["m"], "methods": ["gzip"]}, "compress.methods must be one of structural, extractive, summarise"),
    ({"models": ["m"], "methods": ["structural", "structural"]}, "compress.methods names one twice"),
    ({"models": ["m"], "parts": ["all"]}, "compress.parts must be one of system, history, tools, documents, last_user"),
    ({"models": ["m"], "parts": 7}, "compress.parts must be a list of"),
    ({"models": ["m"], "min_chars": 0}, "compress.min_chars must be a whole number from 1"),
    ({"models": ["m"], "keep": 1}, "compress.keep must be more than 0 and less than 1"),
    ({"models": ["m"], "keep_turns": 0}, "compress.keep_turns must be a whole number from 1"),
    ({"models": ["m"], "methods": ["summarise"]}, "missing key in the policy: compress.summarise"),
    ({"models": ["m"], "summarise": {"model": "w"}}, "compress.summarise is not among the methods"),
    (
        {"models": ["m"], "methods": ["summarise"], "summarise": {}},
        "missing key in the policy: compress.summarise.model",
    ),
    ({"models": ["m"], "recoverable": 1}, "compress.recoverable must be true or false"),
    ({"models": ["m"], "ratio": 2}, "unknown key in the policy: compress.ratio"),
]


@pytest.mark.parametrize(("compress", "said"), WRONG)
def test_a_wrong_policy_is_refused(compress: dict[str, Any], said: str) -> None:
    with pytest.raises(farthing.PolicyError) as error:
        farthing.Policy.from_dict({"compress": compress})
    assert said in str(error.value).replace(" in the policy", " in the policy", 1)


def test_the_policy_survives_pickle_and_toml(tmp_path: Any) -> None:
    import pickle

    made = farthing.Policy(
        compress=farthing.Compress(
            models="m", methods=("structural", "summarise"), summarise=farthing.Summarise(model="w", uses=3)
        )
    )
    assert pickle.loads(pickle.dumps(made)) == made
    path = tmp_path / "farthing.toml"
    path.write_text(
        '[compress]\nmodels = ["m"]\nmethods = ["structural", "summarise"]\nsummarise = { model = "w", uses = 3 }\n'
    )
    assert farthing.Policy.from_toml(path) == made
    assert farthing.Policy.from_dict({"compress": False}) == farthing.Policy()
