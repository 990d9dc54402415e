"""Errands: files of tasks are read strictly, and an episode is scored by its answer and its calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnwise_envs.plugins.errands import BadTasks, Errand, Errands, as_errands, chosen, read_errands, score_of, splits
from turnwise_envs.types import EnvSpec, ToolSpec


def test_a_file_of_tasks(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        '{"instruction": "What is 17 + 25?", "answers": ["42"]}\n\n'
        '{"instruction": "Who?", "answers": ["Ada"], "scorer": "f1", "split": "valid", "difficulty": 0.5}\n'
        '{"instruction": "Move a.", "calls": [{"name": "move", "arguments": {"from": "a"}}], "metadata": {"x": 1}}\n'
    )
    errands = read_errands(path)
    assert [(one.name, one.size) for one in splits(errands)] == [("train", 2), ("valid", 1)]
    tasks = Errands(EnvSpec(id="e", splits=splits(errands)), errands)
    task = tasks.get("train", 1)
    assert (task.id, task.instruction, task.metadata) == ("e/train/1", "Move a.", {"x": 1})
    assert tasks.reference(task).data == {"scorer": "exact", "calls": [{"name": "move", "arguments": {"from": "a"}}]}
    assert tasks.get("valid", 0).difficulty == 0.5
    assert "42" not in tasks.get("train", 0).model_dump_json()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"instruction": "x"}', r"line 2: needs answers, or calls that must be made"),
        ('{"instruction": "x", "answers": "42"}', r"line 2: answers: Input should be a valid array"),
        (
            '{"instruction": "x", "answers": ["42"], "scoring": "f1"}',
            r"line 2: scoring: Extra inputs are not permitted",
        ),
        ('{"instruction": "x", "answers": ["4"], "scorer": "bleu"}', r"line 2: scorer: Input should be 'exact', 'f1'"),
        ('{"instruction": "", "answers": ["4"]}', r"line 2: instruction: String should have at least 1 character"),
        ('{"instruction": "x", "calls": [{"tool": "t"}]}', r"line 2: calls.0.name: Field required"),
        ('{"instruction": "x", "answers": ["4"]', r"line 2: Invalid JSON"),
        ("42", r"line 2: Input should be an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"instruction": "good", "answers": ["1"]}\n' + line)
    with pytest.raises(BadTasks, match=words):
        read_errands(path)


def test_no_tasks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadTasks, match="No such file"):
        read_errands(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(BadTasks, match="has no task"):
        read_errands(tmp_path / "empty.jsonl")
    with pytest.raises(BadTasks, match="task 1: needs answers"):
        as_errands([{"instruction": "x", "answers": ["1"]}, {"instruction": "y"}])


@pytest.mark.parametrize(
    ("scorer", "answer", "reward"),
    [
        ("exact", "The  Old Mill!", 1.0),
        ("exact", "the old mill house", 0.0),
        ("contains", "It was the old mill, I think.", 1.0),
        ("contains", "It was the older mill.", 0.0),
        ("f1", "old mill house", 0.8),  # precision 2/3, recall 2/2
        ("exact", None, 0.0),
    ],
)
def test_scores_of_answers(scorer: str, answer: str | None, reward: float) -> None:
    errand = Errand(instruction="x", answers=["old mill"], scorer=scorer)  # type: ignore[arg-type]
    assert score_of(errand.reference, answer, [])[0] == pytest.approx(reward)


def test_no_answer_is_no_empty_answer() -> None:
    """A gold answer of articles and signs alone is empty after normalisation, as is silence."""
    reference = Errand(instruction="Which article?", answers=["The"]).reference
    assert (score_of(reference, "the.", [])[0], score_of(reference, None, [])[0]) == (1.0, 0.0)


def test_required_calls_gate_the_answer() -> None:
    errand = as_errands(
        [{"instruction": "x", "answers": ["ok"], "calls": [{"name": "a", "arguments": {"k": 1}}, {"name": "a"}]}]
    )[0]
    twice = [("a", {"k": 1, "more": 2}), ("a", {})]
    assert score_of(errand.reference, "ok", twice) == (1.0, {"em": 1.0, "f1": 1.0, "contains": 1.0, "calls_made": 1.0})
    assert score_of(errand.reference, "ok", twice[:1]) == (
        0.0,
        {"em": 1.0, "f1": 1.0, "contains": 1.0, "calls_made": 0.5},
    )
    assert score_of(errand.reference, "ok", [("a", {"k": 2}), ("b", {"k": 1})])[1]["calls_made"] == 0.5


def test_calls_are_assigned_to_requirements_in_the_best_way() -> None:
    """Whoever takes the first that fits gives the call of k to the requirement that any call would meet."""
    calls = [{"name": "a"}, {"name": "a", "arguments": {"k": 1}}]
    for wanted in (calls, calls[::-1]):
        reference = as_errands([{"instruction": "x", "calls": wanted}])[0].reference
        for made in ([("a", {"k": 1}), ("a", {})], [("a", {}), ("a", {"k": 1})]):
            assert score_of(reference, None, made) == (1.0, {"calls_made": 1.0})
        assert score_of(reference, None, [("a", {"k": 1})]) == (0.0, {"calls_made": 0.5})
        assert score_of(reference, None, [("a", {}), ("a", {})]) == (0.0, {"calls_made": 0.5})


def test_a_task_of_calls_alone_needs_no_answer() -> None:
    errand = as_errands([{"instruction": "x", "calls": [{"name": "a"}]}])[0]
    assert score_of(errand.reference, None, [("a", {})]) == (1.0, {"calls_made": 1.0})
    assert score_of(errand.reference, "done", []) == (0.0, {"calls_made": 0.0})


def test_only_some_tools() -> None:
    specs = [ToolSpec(name=name, description="") for name in ("read", "write", "answer")]
    assert [one.name for one in chosen(specs, "write, read")] == ["read", "write"]
    with pytest.raises(ValueError, match="--only wipe: no such tool; there are: read, write, answer"):
        chosen(specs, "wipe")
    with pytest.raises(ValueError, match="leave it out with --only"):
        chosen(specs, None)
