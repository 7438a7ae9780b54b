"""Words on the command line become values; mistakes in them, one line."""

import argparse
import dataclasses

import pytest

from pixelcontrol.arguments import Parser, add_setting, at_least, numbers, truth, whole_number, words
from pixelcontrol.settings import setting


@dataclasses.dataclass(frozen=True)
class Choices:
    frames_kept: int = setting(7, "of 100 % of them", "ours")
    mood: str = setting("calm", "how it is", "ours", choices=("calm", "wild"))
    strides: tuple[int, ...] = setting((2, 1), "of each", "ours")
    odd: complex = setting(1j, "no word says it", "ours")


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("1_000_000", 10**6), ("1e6", 10**6), ("-3", -3)])
def test_whole_numbers(text: str, value: int) -> None:
    assert whole_number(text) == value


@pytest.mark.parametrize("text", ["", "2.5", "inf", "nan", "many"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"whole number, got '{text}'"):
        whole_number(text)


def test_bounds_truths_and_lists() -> None:
    assert at_least(2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="at least 2, got '1'"):
        at_least(2)("1")
    assert [truth(word) for word in ("yes", "True", "1", "no", "FALSE", "0")] == [True] * 3 + [False] * 3
    with pytest.raises(argparse.ArgumentTypeError, match="yes or no, got 'perhaps'"):
        truth("perhaps")
    assert numbers("96,1e2") == (96, 100)
    assert [words(text) for text in ("", "back", "back,side")] == [(), ("back",), ("back", "side")]
    with pytest.raises(argparse.ArgumentTypeError, match="between commas, got 'back,'"):
        words("back,")


def test_settings_become_flags_and_only_what_is_given_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="program")
    *usual, odd = dataclasses.fields(Choices)
    for item in usual:
        add_setting(parser, item)
    assert vars(parser.parse_strictly([])) == {}
    parsed = parser.parse_strictly(["--strides", "2,2", "--mood", "wild", "--frames-kept", "1e3"])
    assert vars(parsed) == {"strides": (2, 2), "mood": "wild", "frames_kept": 1000}
    assert "of 100 % of them (default: 7; ours)" in " ".join(parser.format_help().split())
    with pytest.raises(ValueError, match="'odd' of an agent is declared as complex"):
        add_setting(parser, odd)
    for given, answer in (
        (["--frame-kept", "3"], "unknown argument '--frame-kept'; did you mean --frames-kept?"),
        (["--frames-kept", "few"], "expected a whole number, got 'few'"),
        (["--frames", "3"], "unknown argument '--frames'"),  # no abbreviation
    ):
        with pytest.raises(SystemExit) as end:
            parser.parse_strictly(given)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert answer in said
        assert said.count("\n") == 1
