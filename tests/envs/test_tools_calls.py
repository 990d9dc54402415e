"""Function calls: AST matching by BFCL's rules, reading calls from text, the categories, and whole episodes."""

import json

import pytest

from turnwise_envs import Action, ToolCall
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.tools.calls import Calls
from turnwise_envs.tools.calls.cases import CATEGORIES, case
from turnwise_envs.tools.calls.matching import Gold, Made, fits, mismatch
from turnwise_envs.tools.calls.reading import calls_in

WEATHER = Gold("weather", {"city": ["New York", "NYC"], "unit": ["celsius", ""], "days": [3]})


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"city": "New York", "days": 3}, True),
        ({"city": "new-york.", "days": 3}, True),  # case and signs do not count
        ({"city": "NYC", "unit": "Celsius", "days": 3}, True),
        ({"city": "NYC", "days": 3.0}, True),  # JSON has one kind of number
        ({"city": "NYC", "unit": "fahrenheit", "days": 3}, False),
        ({"city": "Newark", "days": 3}, False),
        ({"city": "NYC"}, False),  # a required one is missing
        ({"city": "NYC", "days": "3"}, False),
        ({"city": "NYC", "days": 4}, False),
        ({"city": ["NYC"], "days": 3}, False),
        ({"city": "NYC", "days": 3, "extra": 1}, False),
        ({"city": "", "days": 3}, False),
        ({"city": "NYC", "unit": "", "days": 3}, True),  # as in BFCL, "" stands for leaving it out
    ],
)
def test_one_call_against_a_gold_call(arguments: dict, right: bool) -> None:
    assert fits(Made("weather", arguments), WEATHER) is right
    assert not fits(Made("forecast", arguments), WEATHER)


@pytest.mark.parametrize(
    ("given", "allowed", "right"),
    [
        (True, 1, False),
        (1, True, False),
        (False, False, True),
        (None, 0, False),
        (2, 2.0, True),
        ("it's", 'it"s', True),
        (["a", "B"], ["A", "b"], True),
        (["b", "a"], ["a", "b"], False),
        (["a"], ["a", "b"], False),
        ({"x": "A", "y": [1]}, {"y": [1.0], "x": "a"}, True),
        ({"x": "A"}, {"x": "a", "y": 1}, False),
        ("1", 1, False),
    ],
)
def test_values_and_their_types(given: object, allowed: object, right: bool) -> None:
    assert fits(Made("f", {"x": given}), Gold("f", {"x": [allowed]})) is right


def test_parallel_calls_come_in_any_order_each_once() -> None:
    gold = [Gold("f", {"x": [1, 2]}), Gold("f", {"x": [1]}), Gold("g", {})]
    one, two, g = Made("f", {"x": 1}), Made("f", {"x": 2}), Made("g", {})
    assert mismatch([one, two, g], gold) is None  # a greedy match would give `one` to the first and fail
    assert mismatch([g, two, one], gold) is None
    assert mismatch([one, g, two], gold) is None
    assert mismatch([two, two, g], gold) == "two calls stand for the same gold call"
    assert mismatch([one, two], gold) == "2 calls instead of 3"
    assert mismatch([one, two, Made("h", {})], gold) == "h is not among the gold calls with these arguments"
    assert mismatch([], []) is None


def read(text: str) -> list[tuple[str, object]]:
    return [(call.name, call.arguments) for call in calls_in(Action(text=text))]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f", "arguments": {"x": 1, "y": ["a"]}}</tool_call>',
        '<think>f or g?</think>\n<tool_call>\n{"name": "f", "arguments": {"x": 1, "y": ["a"]}}\n</tool_call>',
        'Sure. <tool_call>{"name": "f", "arguments": {"x": 1, "y": ["a"]}}',
        '[f(x=1, y=["a"])]',
        "f(x=1, y=('a',))",
        "<think>[g()]</think> [f(x=+1, y=['a'])]",
    ],
)
def test_calls_are_read_in_both_notations(text: str) -> None:
    assert read(text) == [("f", {"x": 1, "y": ["a"]})]


def test_several_calls_and_dotted_names_are_read() -> None:
    assert read("[a.b(x={'k': None}), c(t=True)]") == [("a.b", {"x": {"k": None}}), ("c", {"t": True})]


@pytest.mark.parametrize(
    "text", ["", "Which city?", "None of them (sadly) fits.", "<think>[f(x=1)]</think>", "f", "[]"]
)
def test_words_are_no_calls(text: str) -> None:
    assert calls_in(Action(text=text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[f(1)]", "[f(**{})]", "[f(x=g())]", "[f(x=open('a'))]", "[f(x=__import__('os'))]", "[1]", "[f(x={1, 2})]",
        "[f(x=b'a')]", "[f(x=1j)]", "[f(", "[" * 5000 + "]" * 5000, "f(x=" + "-" * 5000 + "1)", "f(x=" + "9" * 7000 + ")",
        "<tool_call>{</tool_call>", "<tool_call>[]</tool_call>", '<tool_call>{"name": "f", "arguments": 1}</tool_call>',
        "<tool_call>" + "[" * 100_000,
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_so(text: str) -> None:
    (call,) = calls_in(Action(text=text)) if text != "[f(" else [ToolCall(id="t0", name="", parse_error="not closed")]
    assert call.arguments is None or call.parse_error
    assert call.parse_error


async def start(category: str, split: str = "train", nth: int = 0) -> LiveEpisode:
    index = CATEGORIES.index(category) + 10 * nth
    assert case(split, index).category == category
    return await LiveEpisode.start(Calls, split, index)


def gold_calls(episode: LiveEpisode, turn: int = 0) -> list[dict]:
    found = case(episode.task.split, episode.task.index).turns[turn].gold
    return [{"name": one.name, "arguments": one.arguments} for one in found]


def written(calls: list[dict]) -> Action:
    return Action(text="".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls))


async def test_the_prompt_shows_this_tasks_functions_and_the_request() -> None:
    episode = await start("multiple")
    system, user = episode.initial.messages
    names = [json.loads(line)["function"]["name"] for line in system.content.splitlines() if line.startswith("{")]
    assert names == episode.task.metadata["functions"]
    assert 2 <= len(names) <= 4
    assert user.content == episode.task.instruction
    assert gold_calls(episode)[0]["name"] in names


async def test_the_gold_call_solves_and_others_fail() -> None:
    solved = await (await start("simple")).step(written(gold_calls(await start("simple"))))
    assert (solved.reward, solved.terminated, solved.info.end) == (1.0, True, "solved")
    assert solved.info.metrics == {"success": 1.0, "strict": 1.0}
    # train/0: convert_currency(amount=120.5, source="CHF", target="USD")
    other = {"name": "convert_currency", "arguments": {"amount": 120.5, "source": "USD", "target": "CHF"}}
    failed = await (await start("simple")).step(written([other]))
    assert (failed.reward, failed.terminated, failed.info.end) == (0.0, True, "failed")
    assert failed.info.metrics == {"success": 0.0, "strict": 0.0}


async def test_calls_that_the_client_parsed_get_a_tool_message_each() -> None:
    episode = await start("parallel")
    calls = [ToolCall(id=f"c0_{n}", **call) for n, call in enumerate(reversed(gold_calls(episode)))]
    result = await episode.step(Action(tool_calls=calls))
    assert result.reward == 1.0
    assert [message.tool_call_id for message in result.observation.messages] == [*(call.id for call in calls), None]


async def test_malformed_calls_teach_and_can_be_made_again_but_not_strictly() -> None:
    episode = await start("simple")
    for wrong, told in [
        ('<tool_call>{"name": "convert_money", "arguments": {}}</tool_call>', "There are: convert_currency"),
        ('<tool_call>{"name": "convert_currency", "arguments": {"amount": "many"}}</tool_call>', "Wrong arguments"),
        ("<tool_call>{</tool_call>", "could not be read"),
    ]:
        result = await episode.step(Action(text=wrong))
        assert told in result.observation.text
        assert (result.info.action_valid, result.terminated, result.info.counters["malformed"]) == (False, False, 1)
    result = await episode.step(written(gold_calls(episode)))
    assert (result.reward, result.info.metrics) == (1.0, {"success": 1.0, "strict": 0.0})


async def test_a_call_where_none_fits_fails_and_words_are_right() -> None:
    episode = await start("irrelevance")
    shown = case("train", 9).functions[1]
    assert shown.name == "compute_loan"
    arguments = {"principal": 5000, "interest": 3.9, "years": 5}
    assert (await episode.step(written([{"name": shown.name, "arguments": arguments}]))).info.end == "failed"
    assert (await (await start("irrelevance")).step(Action(text="I cannot do that."))).info.end == "solved"
    silent = await (await start("irrelevance")).step(Action(text="<think>none fits</think>"))
    assert (silent.terminated, silent.info.action_valid) == (False, False)


async def test_words_where_a_call_is_wanted_fail() -> None:
    assert (await (await start("simple")).step(Action(text="That is 134 dollars."))).info.end == "failed"


async def test_a_missing_value_must_be_asked_for() -> None:
    # train/5 lacks the date of a reminder
    guessed = await (await start("missing")).step(written(gold_calls(await start("missing"))))
    assert (guessed.reward, guessed.info.end) == (0.0, "failed")
    episode = await start("missing")
    assert (await episode.step(Action(text="Which colour?"))).observation.text == "What do you need to know?"
    assert (await episode.step(Action(text="On which day?"))).observation.text == "Sorry, I forgot: on August 14, 2026."
    assert (await episode.step(written(gold_calls(episode)))).reward == 1.0


async def test_a_second_turn_needs_the_result_of_the_first() -> None:
    # train/8 lists trains and then reserves a seat on the fastest
    episode = await start("multi_turn", nth=0)
    episode = await LiveEpisode.start(Calls, "train", 8)
    result = await episode.step(written(gold_calls(episode)))
    response = result.observation.text.splitlines()[1]
    trains = json.loads(response)["trains"]
    assert len(trains) == 3
    assert not result.terminated
    fastest, *others = sorted(trains, key=lambda train: train["minutes"])
    for train, reward in ((others[0], 0.0), (fastest, 1.0)):
        branch = await episode.fork()
        call = {"name": "reserve_seat", "arguments": {"train": train["train"]}}
        assert (await branch.step(written([call]))).reward == reward


@pytest.mark.parametrize("split", ["train", "valid"])
async def test_the_expert_solves_all(split: str) -> None:
    for index in range(100):
        episode = await LiveEpisode.start(Calls, split, index)
        while not episode.done:
            action = episode.env.expert_action()
            assert action is not None
            await episode.step(action)
        assert episode.records[-1].result.info.metrics == {"success": 1.0, "strict": 1.0}, episode.task


def test_valid_has_functions_that_train_lacks() -> None:
    shown = {
        split: {name for index in range(200) for name in Calls.tasks.get(split, index).metadata["functions"]}
        for split in ("train", "valid")
    }
    assert len(shown["train"]) > 15
    assert shown["train"].isdisjoint(shown["valid"])


def test_references_have_the_form_of_bfcl() -> None:
    truth = Calls.tasks.reference(Calls.tasks.get("train", 3)).data["ground_truth"]
    assert truth[0][0] == {
        "create_event": {"title": ["Dentist"], "date": ["2026-06-03"], "time": ["09:15"], "minutes": [60, ""]}
    }
