import pytest

from sidetrack import wire


@pytest.mark.parametrize("size", range(1, 24))
def test_lines_come_out_whole_however_they_are_cut(size):
    stream = b'{"a":1}\n\n{"b":2}\n{"c"'
    decoder = wire.Decoder(64)
    lines = []
    for start in range(0, len(stream), size):
        decoder.push(stream[start : start + size])
        lines += decoder.lines()
    assert lines == [b'{"a":1}', b"", b'{"b":2}']
    assert not decoder.between_lines


def test_a_line_over_the_limit_is_refused_early():
    decoder = wire.Decoder(8)
    decoder.push(b"12345678\n123456789")
    lines = decoder.lines()
    assert next(lines) == b"12345678"
    with pytest.raises(wire.LineTooLong):
        next(lines)


def test_tells_what_concerns_a_worker_from_the_rest():
    hand_off = '{"cmd":"NODE_HANDLE","type":"net.Socket","msg":%s}'
    heard = {
        hand_off % '{"type":"sticky:connection","data":""}': wire.HandOff(),
        hand_off % '{"sidetrack":"probe"}': wire.HandOff(probe=True),
        hand_off % '{"sidetrack":{"data":"R0VU","final":true}}': wire.HandOff(b"GET", True),
        hand_off % '{"sidetrack":{"final":"yes"}}': wire.HandOff(),
        hand_off % '["sidetrack"]': wire.HandOff(),
        hand_off % '{"sidetrack":{"data":"%%%"}}': wire.Word.UNREADABLE,
        hand_off % '{"sidetrack":{"data":5}}': wire.Word.UNREADABLE,
        hand_off % '{"sidetrack":{"peer":["2001:db8::1",443]}}': wire.HandOff(peer=("2001:db8::1", 443)),
        hand_off % '{"sidetrack":{"peer":null}}': wire.HandOff(),
        hand_off % '{"sidetrack":{"peer":["nobody",443]}}': wire.Word.UNREADABLE,
        hand_off % '{"sidetrack":{"peer":["2001:db8::1",true]}}': wire.Word.UNREADABLE,
        hand_off % '{"sidetrack":{"peer":5}}': wire.Word.UNREADABLE,
        '{"cmd":"NODE_HANDLE_ACK"}': wire.Word.ARRIVED,
        '{"cmd":"NODE_HANDLE_NACK"}': wire.Word.LOST,
        '{"cmd":"NODE_CLUSTER","act":"disconnect","seq":3}': wire.Word.DISCONNECT,
        '{"cmd":"NODE_CLUSTER","ack":0,"seq":2}': wire.Word.ANSWERED,
        '{"type":"news"}': wire.Word.OTHER,
        '"text"': wire.Word.OTHER,
        "rubbish": wire.Word.OTHER,
    }
    for line, message in heard.items():
        assert wire.parse(line.encode()) == message, line


def test_lines_are_as_documented():
    assert wire.opened('a"b') == b'{"type":"sidetrack:opened","sid":"a\\"b"}\n'
    assert wire.opened("a", ends=False) == b'{"type":"sidetrack:opened","sid":"a","ends":false}\n'
    assert wire.closed("\u00e9") == b'{"type":"sidetrack:closed","sid":"\\u00e9"}\n'
    assert wire.sockets_closed(3) == b'{"type":"sidetrack:sockets-closed","count":3}\n'
    assert (
        wire.hand_back(b"GET\n")
        == b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"type":"sidetrack:hand-back","data":"R0VUCg=="}}\n'
    )
    assert b'"data":"","peer":["192.0.2.1",7]}}\n' in wire.hand_back(b"", ("192.0.2.1", 7))
