"""The search environment: tools and tags, rewards, costs, judgements, snapshots, speed, and the page about it."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from turnwise_envs import Action, Environment, InvalidOptions, StepResult, ToolCall, load
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.search import Search, search
from turnwise_envs.search.rewards import answer_reward

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

PAGE = Path(__file__).parents[2] / "docs" / "environments" / "search.md"

DOCUMENTS = [
    {"title": "Emma", "text": ["Emma is a novel.", "It was written by Jane Austen.", "Its heroine is rich."]},
    {"title": "Jane Austen", "text": ["Jane Austen was a writer.", "She died in Winchester."]},
    {"title": "Persuasion", "text": ["Persuasion is a novel set in Bath."]},
]
QUESTIONS = [
    {
        "question": "Where did the author of Emma die?",
        "answers": ["Winchester", "Winchester, Hampshire"],
        "supporting_facts": [["Emma", 1], ["Jane Austen", 1]],
    },
    {"question": "Where is Persuasion set?", "answer": "Bath", "split": "valid"},
]


def lines(path: Path, rows: Sequence[object]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.fixture
def books(tmp_path: Path) -> type[Environment]:
    """A corpus of three documents with two questions, in tags."""
    corpus, tasks = lines(tmp_path / "books.jsonl", DOCUMENTS), lines(tmp_path / "asked.jsonl", QUESTIONS)
    return search(corpus=corpus, tasks=tasks, protocol="tags")


async def start(env: type[Environment], split: str = "train", index: int = 0, **options: object) -> LiveEpisode:
    return await LiveEpisode.start(env, split, index, options=options)


async def say(episode: LiveEpisode, text: str) -> StepResult:
    return await episode.step(Action(text=text))


def test_the_plain_id_is_the_generated_world() -> None:
    assert load("search") is Search
    spec = Search.spec
    assert (spec.id, spec.action_format, [tool.name for tool in spec.tools]) == (
        "search",
        "tools",
        ["search", "open", "answer"],
    )
    assert {split.name: split.size for split in spec.splits} == {"train": 10_000, "valid": 1_000}
    easy = load("search:easy", {"max_hops": "1"})
    assert (easy.spec.id, easy.spec.action_format, easy.spec.tools) == ("search:easy.max_hops1", "tags", [])


async def test_an_episode_in_tags(books: type[Environment]) -> None:
    episode = await start(books, passage_words=3, top_k=2)
    assert books.spec.id == "search:books"
    assert episode.initial.text.endswith("Question: Where did the author of Emma die?")
    found = await say(episode, "<think>Who wrote it?</think><search>who wrote Emma</search>")
    assert found.observation.text == "<information>Doc 1(Title: Emma) Emma is a …</information>"
    assert found.info.metrics == {"recall": 0.0}
    opened = await say(episode, "<open> emma </open>")
    text = "Emma is a novel. It was written by Jane Austen. Its heroine is rich."
    assert opened.observation.text == f"<information>Emma\n{text}</information>"
    assert (opened.info.metrics, opened.info.counters) == ({"recall": 0.5}, {"tool_calls": 1, "opens": 1})
    both = await say(episode, "<search>Jane Austen died</search><answer>winchester, hampshire.</answer>")
    assert both.observation.text.splitlines()[-1] == "Your answer was taken."
    assert (both.reward, both.terminated, both.info.end) == (1.0, True, "solved")
    assert both.info.metrics == {"em": 1.0, "f1": 1.0, "recall": 0.5, "retrievals": 3.0, "cost": 0.0}


async def test_an_episode_in_tools_and_that_each_protocol_understands_the_other(books: type[Environment]) -> None:
    episode = await start(books)
    calls = [
        ToolCall(id="c0_0", name="search", arguments={"query": "Emma"}),
        ToolCall(id="c0_1", name="look", arguments={}),
        ToolCall(id="c0_2", name="open", arguments={"title": "Sanditon"}),
    ]
    result = await episode.step(Action(text="<answer>ignored beside calls</answer>", tool_calls=calls))
    contents = [(message.role, message.tool_call_id) for message in result.observation.messages]
    assert contents == [("tool", "c0_0"), ("tool", "c0_1"), ("tool", "c0_2")]
    assert result.observation.messages[0].content.startswith("Doc 1(Title: Emma) Emma is a novel.")
    assert "There is no tool 'look'" in result.observation.text
    assert "There is no document of this title" in result.observation.text
    assert (result.info.action_valid, result.info.action_effective) == (False, True)
    tools = await start(Search)
    written = await say(tools, "<search>Ada</search>")
    assert written.observation.text.startswith("<information>")


@pytest.mark.parametrize(
    "text", ["", "Emma", "<think><search>Emma</search></think>", "</search>", "<judge>Yes</judge>"]
)
async def test_what_is_no_action_is_answered_with_advice(books: type[Environment], text: str) -> None:
    result = await say(await start(books), text)
    assert "Write <search>query</search> to search" in result.observation.text
    assert (result.info.action_valid, result.info.action_effective, result.reward) == (False, False, 0.0)


async def test_nothing_found_and_a_wrong_answer(books: type[Environment]) -> None:
    episode = await start(books, reward="f1")
    result = await say(episode, "<search>zebra</search>")
    assert result.observation.text == "<information>Nothing was found.</information>"
    result = await say(episode, "<answer>in Winchester Cathedral")
    assert result.reward == pytest.approx(0.5)  # one word of three and of one in common
    assert (result.info.end, result.info.metrics["em"]) == ("failed", 0.0)


async def test_the_reference_has_the_usual_answer_first(books: type[Environment]) -> None:
    reference = books.tasks.reference(books.tasks.get("train", 0))
    assert reference.answers == ["Winchester", "Winchester, Hampshire"]
    assert reference.data["evidence"] == ["Emma", "Jane Austen"]
    assert "Winchester" not in books.tasks.get("train", 0).model_dump_json()


@pytest.mark.parametrize(
    ("kind", "answer", "well_formed", "reward"),
    [
        ("em", "Bath", True, 1.0), ("em", "Bath Spa", True, 0.0), ("em", None, True, 0.0),
        ("f1", "Bath Spa", False, 2 / 3), ("f1", None, True, 0.0),
        ("em_f1", "bath", True, 2.0), ("em_f1", "Bath Spa", True, 2 / 3),
        ("format", "Bath", True, 1.0), ("format", "Bath", False, 0.8), ("format", "Ely", True, 0.2),
        ("format", "Ely", False, 0.1), ("format", None, True, 0.2), ("format", None, False, 0.0),
    ],
)  # fmt: skip
def test_reward_tables(kind: str, answer: str | None, well_formed: bool, reward: float) -> None:
    assert answer_reward(kind, answer, ["Bath"], well_formed) == pytest.approx(reward)  # type: ignore[arg-type]


async def test_searching_costs(books: type[Environment]) -> None:
    episode = await start(books, "valid", reward="em_f1", search_cost=0.2)
    rewards = [(await say(episode, text)).reward for text in ("<search>Bath</search><open>Emma</open>", "Bath?")]
    last = await say(episode, "<answer>Bath</answer>")
    assert [*rewards, last.reward] == pytest.approx([-0.4, 0.0, 2.0])
    assert last.info.metrics["cost"] == pytest.approx(0.4)


async def test_searches_run_out(books: type[Environment]) -> None:
    episode = await start(books, max_searches=1)
    assert "You have 1 searches." in episode.initial.text
    await say(episode, "<search>Emma</search>")
    result = await say(episode, "<search>Jane Austen</search>")
    assert result.observation.text == "No searches are left: answer now."
    assert (result.info.action_valid, result.info.action_effective) == (True, False)
    assert (await say(episode, "<answer>Winchester</answer>")).reward == 1.0


async def test_a_run_out_episode_is_scored(books: type[Environment]) -> None:
    episode = await start(books, max_turns=1, reward="format")
    result = await say(episode, "<search>Emma</search>")
    assert (result.truncated, result.reward, result.info.end) == (True, 0.2, "max_turns")
    assert result.info.metrics == {"em": 0.0, "f1": 0.0, "recall": 0.5, "retrievals": 1.0, "cost": 0.0}
    assert (await (await start(books)).finish("context_overflow")).reward == 0.0


async def test_judgements_are_asked_for_and_paid(books: type[Environment]) -> None:
    """ReSeek's example: Yes where No was right, No where No was right, Yes where Yes was, and a right answer: 1.0."""
    episode = await start(books, judge="paid", top_k=1)
    assert "<judge>" in episode.initial.text
    useless = "<search>Persuasion Bath</search>"
    first = await say(episode, useless)
    assert first.observation.admissible_actions == ["<judge>No</judge>", "<judge>Yes</judge>"]
    refused = await say(episode, "<answer>Winchester</answer>")
    assert refused.observation.text.startswith("First judge what was found")
    assert not refused.done
    rewards = [(await say(episode, "<judge>Yes</judge>")).reward]
    rewards.append((await say(episode, f"{useless}<judge>No</judge>")).reward)
    refused = await say(episode, "<open>Emma</open><answer>Winchester</answer>")
    assert refused.observation.text.splitlines() == ["You judged that this does not help: search again first."] * 2
    rewards.append((await say(episode, "<search>Emma</search> I think <judge> yes </judge>")).reward)
    rewards.append((await say(episode, "<answer>Winchester</answer>")).reward)
    assert rewards == pytest.approx([-0.6, 0.3, 0.3, 1.0])
    assert sum(rewards) == pytest.approx(1.0)


async def test_a_no_with_no_search_left_does_not_lock_the_policy_out(books: type[Environment]) -> None:
    episode = await start(books, judge="measured", max_searches=1, top_k=1)
    judged = await say(episode, "<search>Persuasion</search><judge>No</judge>")
    assert judged.observation.text.splitlines()[-1] == "Noted."
    assert (await say(episode, "<answer>Winchester</answer>")).info.end == "solved"


async def test_what_helps_is_new_evidence(books: type[Environment]) -> None:
    episode = await start(books, judge="measured", top_k=1)
    worth = []
    for query, said in (("Emma", "No"), ("Emma", "No"), ("Jane Austen", "Yes")):
        result = await say(episode, f"<search>{query}</search><judge>{said}</judge>")
        worth.append((result.info.metrics["judge"], result.reward))
    assert worth == [(-0.3, 0.0), (0.3, 0.0), (0.3, 0.0)]
    no_labels = await start(books, "valid", judge="paid", top_k=1)
    for query, reward in (("Emma", -0.6), ("Persuasion", 0.3)):
        result = await say(no_labels, f"<search>{query}</search><judge>Yes</judge>")
        assert result.reward == pytest.approx(reward)


async def test_the_state_is_what_was_shown(books: type[Environment]) -> None:
    keys = []
    for queries in (("Emma", "Jane Austen"), ("Jane Austen", "zebra", "Emma novel heroine"), ("Emma",)):
        episode = await start(books, top_k=1)
        for query in queries:
            await say(episode, f"<search>{query}</search>")
        keys.append(episode.observation.state_key)
    assert keys[0] == keys[1] != keys[2]
    assert (await start(books)).initial.state_key != keys[2]


async def test_a_snapshot_holds_everything(books: type[Environment]) -> None:
    episode = await start(books, judge="paid", reward="f1", max_searches=3)
    await say(episode, "<search>Emma</search>")
    await say(episode, "no action")
    snapshot = episode.env.snapshot()
    assert len(snapshot) < 300
    assert json.loads(snapshot)[:2] == ["train", 0]
    copy = await episode.fork()
    for text in (
        "<judge>No</judge>",
        "<answer>x</answer>",
        "<search>Jane</search>",
        "<judge>Yes</judge><answer>Winchester</answer>",
    ):
        one, other = await say(episode, text), await say(copy, text)
        assert one == other
    assert episode.log_hash == copy.log_hash
    assert one.done


@pytest.mark.parametrize("options", [{"top_k": 0}, {"reward": "luck"}, {"judge": True}, {"search_cost": -1}, {"k": 3}])
async def test_options_that_do_not_fit(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOptions):
        await start(Search, **options)


async def solved(env: type[Environment], split: str, indices: Sequence[int], **options: object) -> float:
    right = 0
    for index in indices:
        episode = await start(env, split, index, **options)
        while not episode.done and (action := episode.env.expert_action()) is not None:
            await episode.step(action)
        right += episode.records[-1].result.info.end == "solved"
    return right / len(indices)


@pytest.mark.parametrize("split", ["train", "valid"])
async def test_the_expert_solves_the_worlds(split: str) -> None:
    assert await solved(Search, split, range(0, 1000, 29)) >= 0.95
    assert await solved(search("easy"), split, range(0, 1000, 29), top_k=1, judge="paid") >= 0.95


async def test_the_expert_solves_files(books: type[Environment]) -> None:
    assert await solved(books, "train", [0], passage_words=2, judge="paid") == 1.0
    assert await solved(books, "train", [0], max_searches=0) == 1.0
    assert await solved(books, "valid", [0]) == 1.0


@pytest.mark.parametrize("name", ["", "easy"])
async def test_a_random_policy_solves_few(name: str) -> None:
    """It searches words that it has seen, and after some turns answers with one."""
    rng, right = random.Random(5), 0
    for index in range(0, 1000, 10):
        episode = await start(search(name), "train", index)
        seen = episode.initial.text.rpartition("Question:")[2].split()
        for _ in range(3):
            found = await say(episode, f"<search>{rng.choice(seen)}</search>")
            seen += re.findall(r"\w+", found.observation.text)
        right += (await say(episode, f"<answer>{rng.choice(seen)}</answer>")).reward
    assert right <= (2 if name == "" else 12)


@pytest.mark.slow
async def test_steps_per_second() -> None:
    """A guard far below the measured figure (docs/environments/search.md), since test machines are shared."""
    for index in range(0, 10_000, 250):
        Search.tasks.library("train", index).search("warm", 1)
    steps, began = 0, time.process_time()
    for index in range(0, 10_000, 50):
        episode = await start(Search, "train", index)
        while not episode.done:
            await episode.step(episode.env.expert_action() or Action())
            steps += 1
    assert steps / (time.process_time() - began) >= 100


@pytest.mark.parametrize(
    ("block", "name", "index", "options"), [(1, "", 7, {}), (2, "easy", 0, {"top_k": 1, "explain": False})]
)
async def test_the_page_shows_what_happens(block: int, name: str, index: int, options: dict[str, object]) -> None:
    """The transcripts in the manual are what the environment says today."""
    transcript = PAGE.read_text().split("```text\n")[block].split("\n```")[0]
    opening, *turns = transcript.split("\n\n> ")
    episode = await start(search(name, protocol="tags"), "train", index, **options)
    assert opening == episode.initial.text
    for turn in turns:
        action, _, said = turn.partition("\n")
        assert (await say(episode, action)).observation.text == said
    assert episode.records[-1].result.reward == 1.0


def test_the_page_names_every_option() -> None:
    page = PAGE.read_text()
    assert [name for name in Search.spec.options_schema["properties"] if f"`{name}`" not in page] == []
