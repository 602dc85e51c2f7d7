import json
from pathlib import Path

import pytest

from sidetrack import head
from sidetrack.matches import Matches

CASES = json.loads((Path(__file__).parents[3] / "tests" / "matches.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["matches"])
def test_all_languages_agree(case):
    matches = Matches.parse(case["matches"])
    for own, requests in ((True, case["own"]), (False, case["others"])):
        for target, host in requests:
            line = "" if host is None else f"Host: {host}\r\n"
            parsed = head.parse(bytearray(f"GET {target} HTTP/1.1\r\n{line}\r\n".encode()))
            assert matches.is_own(parsed) is own, f"{target} {host}"


def test_what_is_no_match_is_refused():
    with pytest.raises(ValueError, match=r'behind a \+ or a -, found "b"'):
        Matches.parse("+a b")
