"""The service desks: the scripted customer, rules, scoring, and whole conversations."""

import random

import pytest

from turnwise_envs import Action, ToolCall
from turnwise_envs.check.policy import Player
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.tools.desk import AirlineDesk, ShopDesk
from turnwise_envs.tools.desk.customer import Mood, hear
from turnwise_envs.tools.desk.database import append, put, row
from turnwise_envs.tools.desk.scenario import Request, Scenario, Topic
from turnwise_envs.tools_api import ToolMistake

DESKS = (AirlineDesk, ShopDesk)
TOPICS = {"booking": Topic(("booking",), ""), "date": Topic(("date", "when"), ""), "bags": Topic(("bags",), "")}
STORY = Scenario(
    db={},
    identity={"date": "On Monday."},
    requests=(
        Request("Help me.", {"booking": "It is AB12."}, (), about="AB12", plea="Please!"),
        Request("And one more thing.", {}, ()),
    ),
    kinds=("a", "b"),
)


def told(mood: Mood, message: str) -> tuple[str, Mood]:
    return hear(STORY, TOPICS, mood, message)


def test_the_customer_tells_what_is_asked() -> None:
    reply, mood = told(Mood(), "Which Booking, and WHEN?")
    assert (reply, mood.told) == ("It is AB12. On Monday.", ("booking", "date"))
    assert told(Mood(), "How many bags?")[0] == "I am not sure what you need from me. Help me."
    assert told(Mood(), "rebookings update")[0].startswith("I am not sure")  # whole words only


def test_the_customer_agrees_only_to_what_is_named() -> None:
    assert told(Mood(), "Shall I go ahead?") == (
        "What exactly should I agree to? Please say what you would do, and with which number.",
        Mood(),
    )
    reply, mood = told(Mood(), "I would move booking AB12. Do you agree?")
    assert (reply, mood.agreed) == ("It is AB12. Yes, please go ahead.", True)
    assert told(Mood(), "Do you agree to AB123?")[1].agreed is False


def test_the_customer_insists_once_and_goes_when_nothing_is_left() -> None:
    reply, mood = told(Mood(), "Sorry, I can\u2019t.")
    assert (reply, mood.insisted) == ("Please!", True)
    assert told(mood, "It is not possible.")[0] == "I see. That is a pity."
    reply, mood = told(Mood(0, ("booking", "date"), True, True), "Anything else?")
    assert (reply, mood) == ("And one more thing.", Mood(1, ("date",)))  # who they are is not asked again
    reply, mood = told(mood, "Is there anything else?")
    assert (reply, mood.gone) == ("No, that is all. Goodbye.", True)


def test_the_database_is_a_value() -> None:
    db = {"flights": {"a": {"seats": 1}}, "refusals": {}}
    after = append(put(db, "flights", "a", seats=0, full=True), "refusals", rule="R1")
    assert db == {"flights": {"a": {"seats": 1}}, "refusals": {}}
    assert after == {"flights": {"a": {"seats": 0, "full": True}}, "refusals": {"1": {"rule": "R1"}}}
    with pytest.raises(ToolMistake, match="There is no flight 'b'"):
        row(db, "flights", "b")


def calls(*steps: tuple[str, dict]) -> Action:
    return Action(
        tool_calls=[ToolCall(id=f"c{n}", name=name, arguments=given) for n, (name, given) in enumerate(steps)]
    )


def find(desk: type, kind: str, split: str = "train") -> int:
    return next(index for index in range(500) if desk.tasks.get(split, index).metadata["requests"] == [kind])


async def play(episode: LiveEpisode, stop: str = "") -> None:
    """Follow the expert until it would call ``stop``."""
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        if stop and any(call.name == stop for call in action.tool_calls):
            return
        await episode.step(action)


@pytest.mark.parametrize("desk", DESKS)
@pytest.mark.parametrize("split", ["train", "valid"])
async def test_the_expert_solves_all(desk: type, split: str) -> None:
    seen = set()
    for index in range(120):
        episode = await LiveEpisode.start(desk, split, index)
        seen |= set(episode.task.metadata["requests"])
        await play(episode)
        result = episode.records[-1].result
        assert (result.reward, result.info.end) == (1.0, "solved"), episode.task
        assert result.info.metrics == {"success": 1.0, "database": 1.0, "answers": 1.0}
        assert episode.turn <= 15
    assert len(seen) == 11


@pytest.mark.parametrize("desk", DESKS)
async def test_doing_nothing_never_succeeds(desk: type) -> None:
    for index in range(60):
        episode = await LiveEpisode.start(desk, "train", index)
        while not episode.done:
            result = await episode.step(Action(text="Is there anything else?"))
        assert (result.reward, result.info.end) == (0.0, "failed"), episode.task


@pytest.mark.parametrize("desk", DESKS)
async def test_random_calls_rarely_succeed(desk: type) -> None:
    solved = 0.0
    for index in range(100):
        episode = await LiveEpisode.start(desk, "train", index)
        player = Player(random.Random(index))
        while not episode.done:
            solved += (await episode.step(player._guess(episode))).reward
    assert solved <= 8


async def test_changes_need_agreement() -> None:
    index = find(AirlineDesk, "cancel")
    episode = await LiveEpisode.start(AirlineDesk, "train", index)
    (booking,) = [step[1]["booking"] for step in gold(episode) if step[0] == "cancel_booking"]
    result = await episode.step(calls(("cancel_booking", {"booking": booking})))
    assert result.observation.text.startswith("Refused: the customer has not agreed.")
    assert (result.info.action_valid, result.info.action_effective) == (True, False)
    await episode.step(Action(text=f"I would cancel booking {booking} and refund it."))
    assert "Refused" in (await episode.step(calls(("cancel_booking", {"booking": booking})))).observation.text
    await episode.step(Action(text=f"I would cancel booking {booking}. Shall I do it?"))
    result = await episode.step(calls(("cancel_booking", {"booking": booking})))
    assert "Cancelled." in result.observation.text


def gold(episode: LiveEpisode) -> list:
    return type(episode.env).tasks.reference(episode.task).data["calls"]


async def test_a_required_answer_that_was_not_said_fails() -> None:
    episode = await LiveEpisode.start(AirlineDesk, "train", find(AirlineDesk, "cancel"))
    await play(episode, stop="cancel_booking")  # the expert has told the refund when it asked for agreement
    branch = await LiveEpisode.start(AirlineDesk, "train", episode.task.index)
    (booking,) = [step[1]["booking"] for step in gold(episode) if step[0] == "cancel_booking"]
    for action in (
        Action(text=f"May I cancel {booking}? Please confirm."),
        calls(("cancel_booking", {"booking": booking})),
        Action(text="Done. Anything else?"),
    ):
        result = await branch.step(action)
    assert result.info.metrics == {"success": 0.0, "database": 1.0, "answers": 0.0}


async def test_breaking_a_rule_shows_in_the_final_database() -> None:
    """The customer agrees to what the rules forbid, and the tool does it."""
    episode = await LiveEpisode.start(AirlineDesk, "train", find(AirlineDesk, "cancel_forbidden"))
    (booking,) = [step[1]["booking"] for step in gold(episode) if step[0] == "get_booking"]
    for then, right in (
        ([calls(("refuse", {"rule": "R4"}))], 1.0),
        ([calls(("refuse", {"rule": "R3"}))], 0.0),
        ([Action(text=f"Shall I cancel {booking}?"), calls(("cancel_booking", {"booking": booking}))], 0.0),
    ):
        branch = await episode.fork()
        for action in then:
            assert (await branch.step(action)).info.action_effective
        result = await branch.step(Action(text="Anything else?"))
        assert (result.reward, result.info.metrics["database"]) == (right, right)


async def test_wrong_details_show_in_the_final_database() -> None:
    episode = await LiveEpisode.start(ShopDesk, "train", find(ShopDesk, "give_back"))
    await play(episode, stop="return_item")
    (step,) = [step for step in gold(episode) if step[0] == "return_item"]
    wrong = {"original payment": "gift card", "gift card": "original payment"}[step[1]["refund_to"]]
    for refund_to, reward in ((wrong, 0.0), (step[1]["refund_to"], 1.0)):
        branch = await episode.fork()
        await branch.step(calls(("return_item", {**step[1], "refund_to": refund_to})))
        assert (await branch.step(Action(text="Goodbye."))).reward == reward


async def test_the_last_turn_and_a_finish_score_the_database_as_it_is() -> None:
    for ending in ("turns", "finish"):
        index = find(ShopDesk, "cancel")
        length = 5  # ask, find, get, propose, cancel: all is done, but nobody said goodbye
        episode = await LiveEpisode.start(
            ShopDesk, "train", index, options={"max_turns": 5} if ending == "turns" else {}
        )
        for _ in range(length):
            result = await episode.step(episode.env.expert_action() or Action())
        if ending == "finish":
            result = await episode.finish("context_overflow")
        assert (result.reward, result.truncated, result.info.metrics["success"]) == (1.0, True, 1.0)


async def test_transfers_end_the_conversation() -> None:
    index = find(AirlineDesk, "human")
    for topic, reward in (gold_topic(index), 1.0), ("group booking", 0.0):
        if topic == gold_topic(index) and not reward:
            topic = "complaint"
        episode = await LiveEpisode.start(AirlineDesk, "train", index)
        result = await episode.step(calls(("transfer_to_human", {"topic": topic}), ("refuse", {"rule": "R1"})))
        assert (result.terminated, result.reward) == (True, reward)
        assert "Not run" in result.observation.messages[1].content


def gold_topic(index: int) -> str:
    (step,) = AirlineDesk.tasks.reference(AirlineDesk.tasks.get("train", index)).data["calls"]
    return step[1]["topic"]


@pytest.mark.parametrize("text", ["", "  ", "<think>hm</think>", "x" * 1_001])
async def test_empty_and_endless_messages_teach(text: str) -> None:
    episode = await LiveEpisode.start(AirlineDesk, "train", 0)
    result = await episode.step(Action(text=text))
    assert "The customer is waiting" in result.observation.text
    assert (result.info.action_valid, result.terminated) == (False, False)


async def test_snapshots_hold_the_whole_conversation() -> None:
    for desk in DESKS:
        episode = await LiveEpisode.start(desk, "train", 3)
        while not episode.done:
            branch = await episode.fork()
            action = episode.env.expert_action()
            assert action is not None
            assert branch.env.expert_action() == action
            assert await branch.step(action) == await episode.step(action)


def test_splits_share_no_people_and_no_pairs_of_requests() -> None:
    for desk in DESKS:
        pairs = {
            split: {tuple(desk.tasks.get(split, index).metadata["requests"]) for index in range(500)}
            for split in ("train", "valid")
        }
        both = pairs["train"] & pairs["valid"]
        assert both
        assert all(len(kinds) == 1 for kinds in both)
