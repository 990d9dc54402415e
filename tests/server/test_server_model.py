"""The session rules against a model of them: any sequence of calls, checked with an episode of one's own."""

from __future__ import annotations

import asyncio
import itertools

import httpx
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule
from toy_environments import Guess

from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action
from turnwise_server.app import create_app
from turnwise_server.settings import Settings

TEXTS = st.sampled_from(["1", "2", "3"])
INDEX = 2  # so that "2" ends an episode


class Sessions(RuleBasedStateMachine):
    """A session is modelled by its log: texts of actions, and ``None`` for a finish."""

    sids = Bundle("sids")

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        app = create_app([Guess], Settings())
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        self.logs: dict[str, list[str | None]] = {}
        self.keys = itertools.count()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.http.aclose())
        self.loop.close()

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        answer = self.loop.run_until_complete(self.http.request(method, f"/v1/sessions{path}", json=body))
        return answer.status_code, answer.json() if answer.content else {}

    def truth(self, log: list[str | None]) -> LiveEpisode:
        """An episode of our own that went through ``log``."""

        async def play() -> LiveEpisode:
            episode = await LiveEpisode.start(Guess, "train", INDEX)
            for text in log:
                await (episode.finish("enough") if text is None else episode.step(Action(text=text)))
            return episode

        return self.loop.run_until_complete(play())

    def turns(self, sid: str) -> int:
        return sum(text is not None for text in self.logs[sid])

    @rule(target=sids, actions=st.lists(TEXTS.filter(lambda text: text != "2"), max_size=3))
    def create(self, actions: list[str]) -> str:
        expected = self.truth(list(actions))
        body = {
            "env": "guess",
            "index": INDEX,
            "actions": [{"text": text} for text in actions],
            "expect_hash": expected.log_hash,
        }
        status, view = self.call("POST", "", body)
        assert (status, view["log_hash"]) == (201, expected.log_hash)
        self.logs[view["session_id"]] = list(actions)
        return view["session_id"]

    @rule(sid=sids, offset=st.integers(-2, 1), text=TEXTS)
    def step(self, sid: str, offset: int, text: str) -> None:
        log, turn = self.logs[sid], max(0, self.turns(sid) + offset)
        status, answer = self.call("POST", f"/{sid}/step", {"turn": turn, "action": {"text": text}})
        before = self.truth(log)
        if turn < self.turns(sid):
            expected = (200, None) if log[turn] == text else (409, "turn-conflict")
        elif turn > self.turns(sid):
            expected = (409, "turn-ahead")
        elif before.done:
            expected = (409, "session-done")
        else:
            expected = (200, None)
            log.append(text)
        assert (status, answer.get("type", "").removeprefix("urn:turnwise:") or None) == expected
        if status == 200:
            record = self.truth(log).records[turn]
            assert (answer["log_hash"], answer["turn"]) == (record.log_hash, turn + 1)
            assert answer["reward"] == record.result.reward

    @rule(sid=sids)
    def finish(self, sid: str) -> None:
        log, turn = self.logs[sid], self.turns(sid)
        status, answer = self.call("POST", f"/{sid}/finish", {"turn": turn, "reason": "enough"})
        if self.truth(log).done and log[-1] is not None:
            assert (status, answer["type"]) == (409, "urn:turnwise:session-done")
            return
        if not log or log[-1] is not None:
            log.append(None)
        assert (status, answer["log_hash"]) == (200, self.truth(log).log_hash)

    @rule(target=sids, sid=sids, data=st.data())
    def fork(self, sid: str, data: st.DataObject):
        log, turn = self.logs[sid], self.turns(sid)
        at_turn = data.draw(st.one_of(st.none(), st.integers(0, turn)))
        body = {"at_turn": at_turn, "count": 2, "key": f"k{next(self.keys)}"}
        status, answer = self.call("POST", f"/{sid}/fork", body)
        assert status == 201
        prefix = list(log) if at_turn in (None, turn) else log[:at_turn]
        for view in answer["sessions"]:
            assert view["log_hash"] == self.truth(prefix).log_hash
            self.logs[view["session_id"]] = list(prefix)
        assert self.call("POST", f"/{sid}/fork", body) == (200, answer)
        return multiple(*(view["session_id"] for view in answer["sessions"]))

    @rule(sid=sids)
    def look(self, sid: str) -> None:
        expected = self.truth(self.logs[sid])
        status, history = self.call("GET", f"/{sid}/history")
        assert status == 200
        assert [step["log_hash"] for step in history["steps"]] == [record.log_hash for record in expected.records]
        _, view = self.call("GET", f"/{sid}")
        assert view["status"] == ("done" if expected.done else "live")

    @rule(sid=consumes(sids))
    def delete(self, sid: str) -> None:
        assert self.call("DELETE", f"/{sid}")[0] == 204
        assert self.call("GET", f"/{sid}") == (410, self.call("GET", f"/{sid}")[1])
        assert self.call("DELETE", f"/{sid}")[0] == 204
        del self.logs[sid]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, database=None, phases=[Phase.generate]
)
