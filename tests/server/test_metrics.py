"""The page for Prometheus: right numbers, bounded labels, and nothing that costs a step more than microseconds."""

from __future__ import annotations

import subprocess
import sys
import timeit

from prometheus_client.parser import text_string_to_metric_families

from turnwise_server.metrics import BUCKETS, CONTENT_TYPE, Latency, Metrics


def numbers(page: str) -> dict[tuple[str, ...], float]:
    """Samples by name and label values (in the order of label names)."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def scrape(api) -> dict[tuple[str, ...], float]:
    answer = await api.http.get("/metrics")
    assert answer.headers["content-type"] == CONTENT_TYPE
    return numbers(answer.text)


async def test_what_was_done_is_counted(api, refusal):
    sid = await api.open(index=50)
    for turn in range(3):
        await api.step(sid, turn, "1")
    await api.step(sid, 0, "1")  # a retry is an operation, and no turn
    await api.fork(sid, count=2)
    await api.fork(sid, count=2)  # the same key: nothing new
    await api.finish(sid, 3)
    refusal(await api.step(sid, 9), "turn-ahead")
    refusal(await api.http.get("/v1/envs", headers={"authorization": "Bearer no-such-token-9876"}), "unauthorized")
    await api.http.get("/nowhere")
    seen = await scrape(api)
    assert seen["turnwise_steps_total", "guess"] == 4
    assert seen["turnwise_step_seconds_count", "guess"] == 4
    assert seen["turnwise_operations_total", "step", "200"] == 4
    assert seen["turnwise_operations_total", "step", "409"] == 1
    assert seen["turnwise_operations_total", "create_session", "201"] == 1
    assert seen["turnwise_operations_total", "unknown", "404"] == 1
    assert seen["turnwise_operation_seconds_count", "step"] == 5
    assert seen["turnwise_forks_total", "guess"] == 2
    assert seen["turnwise_rejections_total", "turn-ahead"] == 1
    assert seen["turnwise_rejections_total", "unauthorized"] == 1
    assert seen["turnwise_sessions", "active"] == 2
    assert seen["turnwise_sessions", "done"] == 1
    assert seen["turnwise_operations_in_flight",] == 0
    assert seen["process_open_fds",] > 0


async def test_failures_and_rebuilt_sessions_are_counted(api):
    sid = await api.open("crashing")
    await api.step(sid, 0, "crash")
    seen = await scrape(api)
    assert seen["turnwise_sessions", "failed"] == 1
    assert seen["turnwise_replays_total", "crashing"] == 1
    assert seen["turnwise_operations_total", "step", "500"] == 1
    assert seen["turnwise_rejections_total", "env-failed"] == 1


async def test_the_journal_is_seen(serve, tmp_path):
    api = await serve(journal=tmp_path)
    sid = await api.open()
    await api.step(sid, 0, "1")
    seen = await scrape(api)
    assert seen["turnwise_journal_lag_seconds_count",] >= 2
    assert 0 < seen["turnwise_journal_lag_seconds_sum",] < 60
    assert seen["turnwise_journal_backlog",] == 0


async def test_calls_of_a_batch_are_counted_one_by_one(api):
    call = {"method": "GET", "path": "/v1/envs"}
    await api.http.post("/v1/batch", json={"requests": [call, call, {"method": "GET", "path": "/v1/sessions/s_0"}]})
    seen = await scrape(api)
    assert seen["turnwise_operations_total", "list_envs", "200"] == 2
    assert seen["turnwise_operations_total", "get_session", "404"] == 1
    assert seen["turnwise_rejections_total", "not-found"] == 1
    assert seen["turnwise_operations_total", "batch", "200"] == 1


async def test_strangers_make_no_labels(api):
    for number in range(20):
        await api.http.get(f"/nowhere/{number}")
        await api.http.get(f"/v1/sessions/s_{number}")
        await api.http.post("/v1/sessions", json={"env": f"env{number}"})
    operations = {key[1] for key in await scrape(api) if key[0] == "turnwise_operations_total"}
    assert operations == {"unknown", "get_session", "create_session"}


def test_a_histogram_counts_up():
    metrics = Metrics()
    for seconds in (0.0004, 0.0005, 0.0006, 31.0):  # a bound belongs to its bucket
        metrics.step_seconds["guess"].observe(seconds)
    seen = numbers(metrics.page().decode())
    assert seen["turnwise_step_seconds_bucket", "guess", "0.0005"] == 2
    assert seen["turnwise_step_seconds_bucket", "guess", "0.001"] == 3
    assert seen["turnwise_step_seconds_bucket", "guess", "30.0"] == 3
    assert seen["turnwise_step_seconds_bucket", "guess", "+Inf"] == 4
    assert abs(seen["turnwise_step_seconds_sum", "guess"] - 31.0015) < 1e-9
    assert len(metrics.step_seconds["guess"].counts) == len(BUCKETS) + 1


def test_counting_is_cheap():
    """A step has about 100 microseconds. Of many tries the best counts, for the machine does other things too."""
    latency = Latency()
    assert min(timeit.repeat(lambda: latency.observe(0.0007), number=100, repeat=200)) / 100 < 20e-6


def test_what_observes_is_imported_by_whoever_looks():
    code = "import sys, turnwise_server.app; print({'prometheus_client', 'opentelemetry.sdk'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "set()"
