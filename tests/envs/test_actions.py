"""What is read out of a policy's text: thoughts, last lines, tags."""

from __future__ import annotations

import time

import pytest

from turnwise_envs.actions import Tag, last_line, tags, without_thoughts

NAMES = ("search", "answer")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("look", "look"),
        ("<think>a <b> c</think>look", "look"),
        ("<THINK>a</Think> look", " look"),
        ("one<think>a</think>two<think>b</think>three", "onetwothree"),
        ("opened by the prompt</think>look", "look"),
        ("<think>a</think>b</think>look", "look"),
        ("look <think>never closed", "look "),
        ("", ""),
    ],
)
def test_thoughts_are_dropped(said: str, left: str) -> None:
    assert without_thoughts(said) == left


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("I will go.\n  Go  to desk 1 \n\n", "Go to desk 1"),
        ("<think>go\nhome</think>\nlook", "look"),
        ("look\n<think>stay", "look"),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_the_last_line(said: str, line: str) -> None:
    assert last_line(said) == line


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("I need <search> who wrote Emma\n</search> now", [Tag("search", "who wrote Emma", True)]),
        ("<search>a</search><answer>b</answer>", [Tag("search", "a", True), Tag("answer", "b", True)]),
        ("<think><answer>x</answer></think><search>y", [Tag("search", "y", False)]),
        ("<search>a <answer>b</answer>", [Tag("search", "a", False), Tag("answer", "b", True)]),
        ("<Search>A</SEARCH>", [Tag("search", "A", True)]),
        ("<search></search>", [Tag("search", "", True)]),
        ("<answer>a <search> b</answer>", [Tag("answer", "a <search> b", True)]),
        ("</search> <other>z</other> answer", []),
    ],
)
def test_tags_in_order(said: str, found: list[Tag]) -> None:
    assert tags(said, NAMES) == found


@pytest.mark.parametrize(
    "said", ["x", "<think>", "</think>", "<search>", "<search>a</think>", "<answer><search>", "<", "\n"]
)
def test_long_nonsense_takes_no_longer_than_it_is_long(said: str) -> None:
    began = time.process_time()
    for _ in range(2):
        tags(said * (300_000 // len(said)), NAMES)
        last_line(said * (300_000 // len(said)))
    assert time.process_time() - began < 30  # what is quadratic takes minutes
