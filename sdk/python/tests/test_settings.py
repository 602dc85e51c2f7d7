"""What sidetrack says, in the environment and in its answer to a join."""

import pytest

from sidetrack.key import SessionKey
from sidetrack.session import IDLE
from sidetrack.settings import Settings

ANSWER = {"type": "sidetrack:joined", "slot": "w4", "id": 5, "session_key": "path:1", "keepalive": "close"}


@pytest.fixture
def env(monkeypatch):
    for name in ("SLOT", "SESSION_KEY", "KEEPALIVE", "SESSION_IDLE", "SID_TAG"):
        monkeypatch.delenv(f"SIDETRACK_{name}", raising=False)

    def env(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"SIDETRACK_{name}", value)
        return Settings.from_env()

    return env


def test_a_sidetrack_that_says_nothing(env):
    assert env() == Settings(None, SessionKey("query", "sid"), "worker", IDLE, None)
    assert Settings.from_answer(ANSWER) == Settings("w4", SessionKey("path", "1"), "close", IDLE, None)
    assert Settings.from_answer({**ANSWER, "sid_tag": None, "session_idle": None}) == Settings.from_answer(ANSWER)


def test_one_that_says_everything(env, caplog):
    all_of_it = Settings("w4", SessionKey("path", "1"), "close", 120.0, "w4")
    said = env(SLOT="w4", SESSION_KEY="path:1", KEEPALIVE="close", SESSION_IDLE="120", SID_TAG="w4")
    assert said == all_of_it
    assert Settings.from_answer({**ANSWER, "session_idle": 120, "sid_tag": "w4"}) == all_of_it
    assert not caplog.records


@pytest.mark.parametrize("rubbish", ["soon", "-1", "0", "1.5", "1e3", "٣", " "])
def test_an_idle_time_that_makes_no_sense_is_named_and_no_reason_not_to_serve(env, caplog, rubbish):
    assert env(SESSION_IDLE=rubbish).session_idle == IDLE
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "SIDETRACK_SESSION_IDLE" in record.getMessage() and f'"{rubbish}"' in record.getMessage()


@pytest.mark.parametrize("rubbish", ["soon", -1, 0, 1.5, True, [60]])
def test_nor_is_one_in_an_answer(caplog, rubbish):
    assert Settings.from_answer({**ANSWER, "session_idle": rubbish}).session_idle == IDLE
    (record,) = caplog.records
    assert "session_idle" in record.getMessage()


def test_a_tag_is_a_text(env):
    assert env(SID_TAG="").sid_tag is None
    assert Settings.from_answer({**ANSWER, "sid_tag": 4}).sid_tag is None
