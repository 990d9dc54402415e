"""Every Python block of docs/client.md runs as it stands (but for the server's port)."""

import gc
import re
import warnings
from pathlib import Path

import pytest
from remote_world import served

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("state"), "household") as server:
        yield server.url


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(url, number, capsys):
    code = compile(BLOCKS[number].replace("http://127.0.0.1:8000", url), f"{PAGE.name} block {number}", "exec")
    gc.collect()  # what other tests left lying about is no fault of the page
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, {"__name__": "__main__"})
    if "# 0.0 max_turns" in BLOCKS[number]:
        assert capsys.readouterr().out.endswith("0.0 max_turns\n")


def test_there_are_blocks():
    assert len(BLOCKS) == 7
