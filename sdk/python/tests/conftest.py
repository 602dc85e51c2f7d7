import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from host import Host

PAIRS = [(http, loop) for http in ("httptools", "h11") for loop in ("asyncio", "uvloop")]


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def start(request, tmp_path):
    """Starts a host whose workers use one of uvicorn's HTTP implementations on one of the loops."""
    http, loop = request.param
    hosts = []

    def start(app="apps:plain", *options, **more):
        host = Host(tmp_path, app, "--http", http, "--loop", loop, *options, **more)
        hosts.append(host)
        return host.__enter__()

    yield start
    for host in hosts:
        # Logs are shown for a test that has failed.
        host.__exit__(None)
        for worker in host.workers:
            print(f"--- {worker.slot} (exit {worker.process.returncode})\n{worker.log()}")
