"""What people see who use the command line in the wrong way."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def run(*arguments, channel=True):
    here, there = socket.socketpair()
    with here, there:
        env = {name: value for name, value in os.environ.items() if name != "NODE_CHANNEL_FD"}
        if channel:
            env["NODE_CHANNEL_FD"] = str(there.fileno())
        return subprocess.run(
            [sys.executable, "-m", "sidetrack.asgi", *arguments],
            cwd=TESTS, env=env, pass_fds=[there.fileno()], capture_output=True, text=True, timeout=30,
        )


def test_outside_sidetrack_one_line_says_how_to_start_it():
    ran = run("apps:plain", channel=False)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "sidetrack run --listen :3000 -- python -m sidetrack.asgi app:app" in ran.stderr


@pytest.mark.parametrize(
    "app, says",
    [
        ("nowhere:app", 'Could not import module "nowhere"'),
        ("apps:nothing", 'Attribute "nothing" not found in module "apps"'),
        ("apps", 'must be in format "<module>:<attribute>"'),
    ],
)
def test_an_app_that_is_not_there_is_named_in_one_line(app, says):
    ran = run(app)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1 and says in ran.stderr, ran.stderr


def test_an_apps_own_error_keeps_its_traceback(tmp_path):
    (tmp_path / "broken.py").write_text("import apps\nraise RuntimeError('its own')\n")
    ran = run("--app-dir", str(tmp_path), "broken:app")
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr and "its own" in ran.stderr and "broken.py" in ran.stderr


def test_wrong_options_are_explained():
    assert run("--http", "http3", "apps:plain").returncode == 2
    assert run().returncode == 2


def test_help_teaches():
    ran = run("--help", channel=False)
    assert ran.returncode == 0
    for word in ("sidetrack run --workers 4", "--session-key", "--factory", "--http", "Exit codes"):
        assert word in ran.stdout


def test_a_factory_and_a_lifespan(tmp_path):
    from client import Client
    from host import Host

    host = Host(tmp_path, "apps:factory", "--factory", "--root-path", "/mounted", "--lifespan", "on")
    with host, Client(host.connect()) as client:
        assert client.get("/new").status == 200


def test_a_failing_lifespan_ends_the_worker(tmp_path):
    (tmp_path / "failing.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    ran = run("--app-dir", str(tmp_path), "failing:app")
    assert ran.returncode == 3 and "no database" in ran.stderr


def test_the_package_is_typed():
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "src/sidetrack"],
        cwd=TESTS.parent, capture_output=True, text=True,
    )
    assert ran.returncode == 0, ran.stdout
