"""`hostguide status`: what a person reads of a search, in any state of it."""

import pytest
import yaml

from search.storage.status import write_status


@pytest.mark.parametrize(
    ("message", "state"), [("running", "running"), ("stopped", "stopped"), ("finished", "finished")]
)
def test_the_state_is_that_of_the_driver(call, small_run, message, state):
    actors = {"relax": {"busy": 2, "waiting": 3}}
    write_status(small_run, message=message, expected=9, seconds_left=300.0, notes=["a node is lost"], actors=actors)
    code, out, _ = call("status", small_run)
    assert code == 0 and f": {state}, round 1, 3 of at most 9 candidates (2 relaxed, 1 rejected)" in out
    assert ("about 5 minutes left" in out) == (state == "running") == ("relax 2 busy, 3 waiting" in out)
    assert ("Resume with: hostguide search" in out) == (state == "stopped")
    assert "a node is lost" in out and "LiSi" in out


def test_a_search_that_has_stored_nothing_has_a_status_too(call, tmp_path, make_config):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(make_config().model_dump(mode="json")))
    code, out, _ = call("status", tmp_path)
    assert code == 0 and "0 candidates" in out


def test_another_folder_is_no_run(call, tmp_path):
    code, _, err = call("status", tmp_path)
    assert code == 2 and "is not a run" in err
