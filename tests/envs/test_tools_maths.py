"""Maths: answers by value, problems against the programs that solve them, colleagues, and whole episodes."""

import contextlib
import io
import shutil
from fractions import Fraction

import pytest

from turnwise_envs import Action, EnvironmentFault, ToolCall
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.tools.maths import Maths
from turnwise_envs.tools.maths.answers import boxed, number, same
from turnwise_envs.tools.maths.env import SHOWN, shown
from turnwise_envs.tools.maths.families import SEEN, UNSEEN, problem
from turnwise_envs.tools.sandbox import Outcome
from turnwise_envs.tools.sandbox.run import require_sandbox

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs PROGRAM: bwrap")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), (" +12. ", 12), ("-0.5", Fraction(-1, 2)), (".25", Fraction(1, 4)), ("3/4", Fraction(3, 4)),
        ("6 / 8", Fraction(3, 4)), ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)), ("$\\dfrac{-3}{4}$", Fraction(-3, 4)),
        ("so \\boxed{1} no, \\boxed{2}", 2), ("1,234,567", 1_234_567), ("75%", Fraction(3, 4)), ("75\\%", Fraction(3, 4)),
        ("1.5e3", 1500), ("\u221212", -12), ("0/5", 0), ("1.5/0.5", 3),
    ],
)  # fmt: skip
def test_numbers_are_read_by_value(text: str, value: Fraction) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1/0",
        "1/2/3",
        "--1",
        "1e9999",
        "1e99999999999",
        "9" * 300,
        "nan",
        "inf",
        "1,23",
        "12 apples",
        "٣",
        "²",
        "1_000",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None


def test_equality_is_exact_for_whole_numbers_and_close_for_others() -> None:
    assert same(Fraction(5), Fraction(5))
    assert not same(Fraction("5.0000001"), Fraction(5))
    assert same(Fraction("0.333333"), Fraction(1, 3))
    assert not same(Fraction("0.3333"), Fraction(1, 3))
    assert same(Fraction("1234.56701"), Fraction("1234.567"))
    assert boxed("no box") is None


@pytest.mark.parametrize("split", ["train", "valid", "valid_unseen"])
def test_the_programs_print_the_answers(split: str) -> None:
    for index in range(3 * len(UNSEEN if split == "valid_unseen" else SEEN)):
        found = problem(split, index)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(found.program, {"__name__": "program"})
        assert Fraction(printed.getvalue().strip()) == found.value, found


def test_some_answers_worked_out_by_hand() -> None:
    # train/0: 6x^3 - 7x^2 - 3x + 13: (7/6)^2 - 2 * (-3/6) = 49/36 + 1
    assert problem("train", 0).question.endswith("6x^3 - 7x^2 - 3x + 13 = 0? Give a fraction.")
    assert problem("train", 0).value == Fraction(85, 36)
    # train/2: 5 * 6663 * 6664 / 2 + 11 * 3028 * 3029 / 2 - 55 * 605 * 606 / 2
    assert "up to 33316 that are divisible by 5 or by 11" in problem("train", 2).question
    assert problem("train", 2).value == 111_005_580 + 50_445_966 - 10_082_325 - 1_000
    assert {problem("valid_unseen", index).family for index in range(9)} == {"system", "digits", "collatz"}


def call(name: str, **arguments: object) -> Action:
    return Action(tool_calls=[ToolCall(id="c", name=name, arguments=arguments)])


@pytest.fixture
def without_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the interpreter works without one."""
    monkeypatch.setattr("turnwise_envs.tools.maths.env.require_sandbox", lambda: None)


@pytest.mark.usefixtures("without_sandbox")
async def test_answers_are_scored_by_value() -> None:
    for action, reward in [
        (call("answer", value="85/36"), 1.0),
        (call("answer", value="2.36111111"), 1.0),
        (Action(text="<think>easy</think>It is $\\boxed{\\frac{85}{36}}$."), 1.0),
        (call("answer", value="2.36"), 0.0),
        (Action(text="\\boxed{3}"), 0.0),
    ]:
        episode = await LiveEpisode.start(Maths, "train", 0)
        result = await episode.step(action)
        assert (result.reward, result.terminated) == (reward, True)
        assert result.info.end == ("solved" if reward else "failed")
        assert result.info.metrics == {"success": reward, "expert_cost": 0.0}


@pytest.mark.usefixtures("without_sandbox")
async def test_what_is_no_answer_teaches() -> None:
    episode = await LiveEpisode.start(Maths, "train", 0)
    result = await episode.step(call("answer", value="about two"))
    assert result.observation.text.startswith("'about two' is not a number")
    assert (result.terminated, result.info.action_effective) == (False, False)
    for text in ("It is 3.", "", "<think>\\boxed{3}</think>"):
        result = await episode.step(Action(text=text))
        assert "No tool was called" in result.observation.text
        assert (result.terminated, result.info.action_valid) == (False, False)
    result = await episode.finish("context_overflow")
    assert (result.reward, result.info.metrics["success"]) == (0.0, 0.0)


@pytest.mark.usefixtures("without_sandbox")
async def test_colleagues_reply_in_turn_are_counted_and_cost() -> None:
    episode = await LiveEpisode.start(Maths, "train", 0, options={"consult_cost": 0.25})
    first = await episode.step(call("consult", questions=["How?", "With what program?"]))
    lines = first.observation.text.splitlines()
    assert lines[0].startswith("1. The mathematician says: With Vieta's formulas")
    assert lines[1].startswith("2. The programmer says:")
    assert first.info.counters == {"tool_calls": 1, "expert_calls": 2, "expert_replies": 2}
    second = await episode.step(call("consult", questions=["About?"]))
    assert second.observation.text == "1. The estimator says: it should be about 2."
    result = await episode.step(call("answer", value="85/36"))
    assert (result.reward, result.info.metrics) == (0.25, {"success": 1.0, "expert_cost": 0.75})


@pytest.mark.usefixtures("without_sandbox")
async def test_nobody_hears_at_acceptance_zero_and_some_are_heard_at_a_half() -> None:
    heard = 0
    for seed in range(40):
        for acceptance in (0, 0.5):
            options = {"consult_acceptance": acceptance}
            episode = await LiveEpisode.start(Maths, "train", 0, seed, options)
            result = await episode.step(call("consult", questions=["How?"]))
            replied = result.info.counters["expert_replies"]
            assert ("Nobody is available" in result.observation.text) is (replied == 0)
            assert acceptance or not replied
            heard += replied
    assert 10 <= heard <= 30


async def test_without_a_sandbox_it_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    require_sandbox.cache_clear()
    with pytest.raises(EnvironmentFault, match="SandboxUnavailable: the python tool needs bubblewrap"):
        await LiveEpisode.start(Maths, "train", 0)
    require_sandbox.cache_clear()


def test_output_is_shown_short() -> None:
    assert shown(Outcome("4\n", "ok")) == "4"
    assert shown(Outcome("", "ok")) == "[no output; print what you want to see]"
    assert shown(Outcome("1\n2\n", "time", "not done after 10 s")) == "1\n2\n[not done after 10 s]"
    long = shown(Outcome("a" * 5000 + "b", "ok"))
    assert len(long) < SHOWN + 60
    assert long.endswith("ab")
    assert "(3001 characters left out)" in long


@needs_bwrap
async def test_the_expert_solves_with_the_interpreter() -> None:
    for split, count in (("train", len(SEEN)), ("valid_unseen", len(UNSEEN))):
        for index in range(count):
            episode = await LiveEpisode.start(Maths, split, index)
            while not episode.done:
                action = episode.env.expert_action()
                assert action is not None
                await episode.step(action)
            assert episode.records[-1].result.reward == 1.0, (episode.task, episode.observation)


@needs_bwrap
async def test_the_state_is_what_is_known() -> None:
    """Other programs that print the same, and questions that nobody heard, lead to the same state."""

    async def key(*actions: Action, acceptance: float = 1.0) -> str | None:
        episode = await LiveEpisode.start(Maths, "train", 0, options={"consult_acceptance": acceptance})
        for action in actions:
            await episode.step(action)
        return episode.observation.state_key

    start, one = await key(), await key(call("python", program="print(6 * 7)"))
    assert await key(call("python", program="print(1)"), call("python", program="42")) == one != start
    assert await key(call("consult", questions=["How?"]), acceptance=0.0) == start
    assert await key(call("consult", questions=["How?"])) not in (start, one)
    other = await LiveEpisode.start(Maths, "train", 1)
    assert None is not start != other.initial.state_key


@needs_bwrap
async def test_programs_run_and_are_counted() -> None:
    episode = await LiveEpisode.start(Maths, "train", 0)
    two = [ToolCall(id=f"c{n}", name="python", arguments={"program": p}) for n, p in enumerate(("x = 3\nx + 1", "x"))]
    result = await episode.step(Action(tool_calls=two))
    first, second = (message.content for message in result.observation.messages)
    assert first == "4"
    assert "NameError" in second  # nothing is kept
    assert result.info.counters == {"tool_calls": 2, "python_calls": 2, "python_errors": 1}
    branch = await episode.fork()
    assert branch.env.snapshot() == episode.env.snapshot()


def python(program: str) -> Action:
    return Action(tool_calls=[ToolCall(id="c", name="python", arguments={"program": program})])


@needs_bwrap
async def test_names_are_kept_where_the_task_says_so_and_a_fork_has_them_too() -> None:
    episode = await LiveEpisode.start(Maths, "train", 0, 0, {"keep_names": True})
    assert "as in a notebook" in episode.initial.text
    first = await episode.step(python("x = 41"))
    assert first.observation.state_key != episode.initial.state_key
    failed = await episode.step(python("x = 0\n1 / 0"))
    assert "ZeroDivisionError" in failed.observation.text
    assert (await episode.step(python("x + 1"))).observation.text == "42"
    branch = await episode.fork()
    assert (await branch.step(python("x + 2"))).observation.text == "43"
    alone = await LiveEpisode.start(Maths, "train", 0, 0, {})
    assert "as in a notebook" not in alone.initial.text
    await alone.step(python("x = 41"))
    assert "NameError" in (await alone.step(python("x + 1"))).observation.text
