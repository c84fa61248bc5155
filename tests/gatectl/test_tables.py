"""Tables on terminals of any width, of text in any script, in colours that can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gatectl.cells import folded, padded, width
from gatectl.colours import PALETTE, WORDS
from gatectl.kinds import KINDS
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon, key, service, tenant

TEXTS = st.text(st.sampled_from("ab /,-日本語é\u0301👩\u200d🔬ü한"), max_size=60)


@given(TEXTS, st.integers(2, 30))
def test_folding_loses_nothing_but_spaces_and_fits(text: str, columns: int) -> None:
    lines = folded(text, columns)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width(line) <= columns for line in lines)


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("it did not answer", 8, ["it did", "not", "answer"]),
        ("one two", 3, ["one", "two"]),
        ("https://ops.example.com/hooks", 24, ["https://ops.example.com/", "hooks"]),
        ("a.very.long.name.without.breaks", 10, ["a.very.lon", "g.name.wit", "hout.break", "s"]),
        ("日本語", 4, ["日本", "語"]),
        ("日本語", 5, ["日本", "語"]),
        ("a\nb", 5, ["a", "b"]),
        ("", 5, [""]),
    ],
)
def test_folds(text: str, columns: int, lines: list[str]) -> None:
    assert folded(text, columns) == lines


def test_columns_of_letters_that_take_two_or_none_are_straight() -> None:
    assert [cell_len(padded(text, 8)) for text in ("日本", "e\u0301", "ab")] == [8, 8, 8]
    assert padded("日本", 6, right=True) == "  日本"


def test_a_table_of_many_scripts_is_straight(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    names = ("日本語 株式会社", "Cafe\u0301 Zu\u0308rich", "plain", "한국")
    daemon.state["tenants"] += [tenant(f"t{number}", name) for number, name in enumerate(names)]
    lines = gatectl.at_terminal("tenant", "list").plain.splitlines()
    assert {cell_len(line[: line.index("EUR")]) for line in lines[1:]} == {lines[0].index("CURRENCY")}


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_every_width_is_kept(gatectl: Gatectl, daemon: FakeDaemon, columns: int) -> None:
    host = "a-rather-long-host-name.example.com"
    daemon.state["services"] = [service(f"s{n}", f"https://{host}:8{n}/a/path/below") for n in range(3)]
    written = gatectl.at_terminal("service", "list", columns=columns).plain
    assert max(map(len, written.splitlines())) <= columns
    assert "…" not in written
    if columns == 200:
        assert len(written.splitlines()) == 4


def test_pages_of_a_long_list_are_one_table(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    """The second page has wider names than the first, and still stands below the one heading."""
    daemon.state["keys"] = [key(f"{n:08}", "a-name-that-is-long" if n == 1500 else "ci", [], None) for n in range(1600)]
    lines = gatectl.at_terminal("key", "list", "--all", columns=120).plain.splitlines()
    assert len(lines) == 1601
    assert sum(line.startswith("PREFIX") for line in lines) == 1
    assert "" not in lines


def _contrast(of_256: int, ground: float) -> float:
    """WCAG 2 between a colour of xterm's cube and a ground of that luminance."""
    number = of_256 - 16
    levels = (0, 95, 135, 175, 215, 255)
    channels = [levels[part] / 255 for part in (number // 36, number // 6 % 6, number % 6)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    high, low = max(luminance, ground), min(luminance, ground)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("meaning", PALETTE)
def test_colours_are_readable_on_light_and_on_dark(meaning: str) -> None:
    assert min(_contrast(PALETTE[meaning][0], ground) for ground in (0.0, 1.0)) >= 3.8


def test_words_have_meanings_that_exist() -> None:
    assert set(WORDS.values()) <= set(PALETTE)


@pytest.mark.usefixtures("daemon")
def test_a_terminal_of_few_colours_gets_those(gatectl: Gatectl) -> None:
    gatectl.environment["TERM"] = "xterm"
    assert "\x1b[32mactive\x1b[0m" in gatectl.at_terminal("key", "list").out
    gatectl.environment["TERM"] = "xterm-256color"
    assert "\x1b[38;5;28mactive\x1b[0m" in gatectl.at_terminal("key", "list").out


@pytest.mark.usefixtures("daemon")
def test_times_are_told_from_the_gateways_clock_and_only_to_people(gatectl: Gatectl) -> None:
    assert "in 89 days" in gatectl.at_terminal("key", "list").plain
    assert "in 89 days (2027-02-19 02:00:00Z)" in gatectl.at_terminal("key", "show", "ci").plain
    assert "2027-02-19 02:00:00Z" in gatectl.at_terminal("key", "list", "-o", "wide").plain
    for form in ("table", "wide", "tsv", "csv", "json", "yaml"):
        assert " days" not in gatectl("key", "list", "-o", form).out


@pytest.mark.usefixtures("daemon")
def test_numbers_are_grouped_for_people_alone(gatectl: Gatectl) -> None:
    assert "12,345" in gatectl.at_terminal("usage", "show").plain
    assert "12345" in gatectl("usage", "show").out


@pytest.mark.parametrize(
    ("seconds", "told", "plain"),
    [
        (0, "0 s", "0"),
        (2.5, "2.5 s", "2.5"),
        (300.0, "5 min", "300"),
        (5400, "1 h 30 min", "5400"),
        (86400.0, "1 d", "86400"),
        (2592000.0, "30 d", "2592000"),
        (1234567.5, "14 d 6 h 56 min 7.5 s", "1234567.5"),
    ],
)
def test_spans_of_time_are_told_in_the_units_that_they_are_typed_in(seconds: float, told: str, plain: str) -> None:
    kind = KINDS["seconds"]
    assert (kind.human(seconds), kind.plain(seconds)) == (told, plain)


@pytest.mark.usefixtures("daemon")
def test_phrases_are_folded_before_an_address_is_taken_apart(gatectl: Gatectl) -> None:
    written = gatectl.at_terminal("service", "health").plain
    assert written.count("http://127.0.0.1:8003 ") == 2
    assert max(map(len, written.splitlines())) <= 80


@pytest.mark.usefixtures("daemon")
def test_ids_are_of_what_has_one(gatectl: Gatectl) -> None:
    assert gatectl("logs", "-q").out.split()[0] == "ff42db4e2b8f4601"  # what `explain` takes
    tried = gatectl("route", "test", "GET", "/v1/users/7", "-q").out.split()
    assert tried
    assert "None" not in tried
