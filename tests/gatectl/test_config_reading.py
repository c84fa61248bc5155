"""YAML into data and back to line and column; what is a mistake in it; and the file's own spelling both ways."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gatectl.config import reading
from gatectl.config.mistakes import MistakenError, Place
from gatectl.config.reading import Source
from gatectl.config.spelling import MONEY, from_file, to_file
from gatectl.config.writing import yaml_of, yaml_text


def read(text: str | bytes) -> Any:
    return Source("f.yaml", text if isinstance(text, bytes) else text.encode()).data


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(MistakenError) as raised:
        read(text)
    return [str(mistake) for mistake in raised.value.mistakes]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("5", 5), ("-1", -1), ("0", 0),
        ("2.5", 2.5), ("1e3", 1000.0), ("on", "on"), ("no", "no"), ("Yes", "Yes"), ("010", "010"), ("0x10", "0x10"),
        ("0o7", "0o7"), ("60:00", "60:00"), ("1_000", "1_000"), ("+5", "+5"), (".5", ".5"), ("5.", "5."),
        (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("2026-11-21", "2026-11-21"), ("'5'", "5"),
        ('"true"', "true"), ("!!str 5", "5"), ("60/min", "60/min"), ("-", "-"), ("9" * 101, "9" * 101),
    ],
)  # fmt: skip
def test_a_plain_value_is_what_json_says_and_else_text(text: str, value: Any) -> None:
    """YAML 1.1, PyYAML's own, would make True of `on`, 8 of `010` and 3600 of `60:00`."""
    if text == "-":
        text = "'-'"
    held = read(f"a: {text}\n")["a"]
    assert held == value
    assert isinstance(held, type(value))


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("on: 1\n404: 2\nnull: 3\n'a b': 4\n") == {"on": 1, "404": 2, "null": 3, "a b": 4}


def test_anchors_aliases_and_merged_mappings() -> None:
    text = "x: &x {a: 1, b: 2}\nl: &l [1, 2]\ny:\n  <<: *x\n  b: 3\nz: *l\nw:\n  <<: [{a: 5}, *x]\nq:\n  '<<': {a: 1}\n"
    held = read(text)
    assert held["y"] == {"a": 1, "b": 3}
    assert held["z"] == [1, 2]
    assert held["w"] == {"a": 5, "b": 2}
    assert held["q"] == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1: a is given twice; line 1 has it too"]),
        ("a: {b: 1, c: 2, b: 3}\n", ["f.yaml:1:17: b is given twice; line 1 has it too"]),
        ('{"a": 1,\n "a": 2}', ["f.yaml:2:2: a is given twice; line 1 has it too"]),
        ("a: 1\na: 2\nb: !x 1\n", ["f.yaml:2:1: a is given twice; line 1 has it too",
                                   "f.yaml:3:4: the tag !x means nothing here"]),
        ("a:\n\tb: 1\n", ["f.yaml:2:1: a tab; YAML is indented with spaces"]),
        ("a: 1\n---\nb: 1\n", ["f.yaml:2:1: a second document; put it into a file of its own"]),
        ("", ["f.yaml: is empty; it begins with 'version: 1' and 'tenants:'"]),
        ("# nothing\n", ["f.yaml: is empty; it begins with 'version: 1' and 'tenants:'"]),
        (b"a: 1\nb: \xe4\n", ["f.yaml:2:4: this is not UTF-8"]),
        ("\ufeffa: 1\n".encode("utf-16-le"), ["f.yaml:1:1: this is not UTF-8"]),
        ("a: ä\x07\n", ["f.yaml:1:5: a control character, which YAML does not allow"]),
        ("a: [1, 2\nb: 3\n", ["f.yaml:2:2: did not find expected ',' or ']' while parsing a flow sequence that began "
                              "in line 1"]),
        ("a:\n  b: 1\n c: 2\n", ["f.yaml:3:2: did not find expected key while parsing a block mapping that began in "
                                 "line 1"]),
        ("[a]: 1\n", ["f.yaml:1:1: a key must be text"]),
        ("a: *b\n", ["f.yaml:1:4: *b stands for nothing that was given before, as &b"]),
        ("a: &a [*a]\n", ["f.yaml:1:8: *a stands for nothing that was given before, as &a"]),
        ("[" * 100_000, ["f.yaml:1:65: this is deeper than 64 levels"]),
        ("- " * 100_000, ["f.yaml:1:129: this is deeper than 64 levels"]),
        ('{"a":' * 100_000, ["f.yaml:1:321: this is deeper than 64 levels"]),
    ],
    ids=lambda text: repr(text[:20]) if isinstance(text, (str, bytes)) else "",
)  # fmt: skip
def test_mistakes_have_their_line_and_column(text: str | bytes, said: list[str]) -> None:
    assert mistakes(text) == said


def test_aliases_cannot_multiply_without_bound() -> None:
    """A thousand bytes that stand for 10^20 values."""
    lines = ["a: &a [xxxxxxxxx, xxxxxxxxx]"]
    lines += [f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(20)]
    assert mistakes("\n".join(lines)) == ["f.yaml:8:14: aliases repeat more than a configuration can hold"]


def test_no_more_mistakes_than_anybody_reads() -> None:
    with pytest.raises(MistakenError) as raised:
        read("a: 1\n" * 1000)
    assert len(raised.value.mistakes) == 100
    assert str(raised.value) == "f.yaml has 100 or more mistakes; nothing was done"


def test_json_is_read_with_all_its_escapes_and_tabs() -> None:
    assert read('{\n\t"a": "\\ud83d\\ude00",\n\t"b": [1.50, true, null]\n}') == {"a": "😀", "b": [1.5, True, None]}


def test_the_byte_order_mark_of_an_editor_is_no_text() -> None:
    assert read("\ufeffa: 1\n") == {"a": 1}


TEXT = """\
version: 1
tenants:
  - slug: default
    services:
      - slug: orders
        targets: [http://a, http://b]
        weights: {"http://a/~x": 3}
      - {slug: beta, timeout_s: 5}
    plans: []
"""


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n")], ids=["lf", "crlf"])
@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("/version", (1, 1)),
        ("/tenants/0/services/0/targets", (6, 9)),
        ("/tenants/0/services/0/targets/1", (6, 29)),
        ("/tenants/0/services/0/weights/http:~1~1a~1~0x", (7, 19)),
        ("/tenants/0/services/1", (8, 9)),
        ("/tenants/0/services/1/timeout_s", (8, 22)),
        ("/tenants/0/services/1/slug/nothing", (8, 10)),
        ("/tenants/0/plans/3/name", (9, 5)),
        ("/tenants/0/keys", (3, 5)),
        ("", (1, 1)),
    ],
)
def test_a_pointer_leads_to_line_and_column(text: str, pointer: str, place: tuple[int, int]) -> None:
    """What is missing is told where it should be."""
    assert Source("f.yaml", text.encode()).places([pointer]) == {pointer: Place(*place)}


def test_without_libyaml_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LOADER", yaml.SafeLoader)
    source = Source("f.yaml", TEXT.encode())
    assert source.data["tenants"][0]["services"][1] == {"slug": "beta", "timeout_s": 5}
    assert source.places(["/tenants/0/services/1/timeout_s"]) == {"/tenants/0/services/1/timeout_s": Place(8, 22)}
    assert mistakes("a:\n\tb: 1\n") == ["f.yaml:2:1: a tab; YAML is indented with spaces"]
    assert mistakes("a: ä\x07\n") == ["f.yaml:1:5: a control character, which YAML does not allow"]


NAMES = st.sampled_from(["name", "slug", "quota", "labels", "on", "<<", *sorted(MONEY)]) | st.text(max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | FLOATS | st.text(max_size=20)
AMOUNTS = st.from_regex(r"(0|[1-9][0-9]{0,12})(\.[0-9]{1,9})?", fullmatch=True)
DOCUMENTS = st.recursive(
    VALUES | AMOUNTS | st.sampled_from(["on", "no", "010", "60:00", "1_000", "0x1", "=", "<<", "2026-11-21", ".5"]),
    lambda held: st.lists(held, max_size=4) | st.dictionaries(NAMES, held, max_size=4),
    max_leaves=12,
)


def comparable(value: Any) -> Any:
    """With its types: True is no 1. JSON has one kind of number: 5.0 is 5."""
    if isinstance(value, dict):
        return {name: comparable(held) for name, held in value.items()}
    if isinstance(value, list):
        return [comparable(held) for held in value]
    if isinstance(value, float):
        return comparable(int(value)) if value.is_integer() and abs(value) < 1e15 else ("float", float(value))
    return (type(value).__name__, value)


def has_its_own_spelling(value: Any) -> bool:
    """Of money the API has text and of quotas numbers: another type there is not what it ever gives."""
    if isinstance(value, list):
        return any(has_its_own_spelling(each) for each in value)
    if not isinstance(value, dict):
        return False
    for name, held in value.items():
        if (name in MONEY and isinstance(held, (int, float))) or (name == "quota" and isinstance(held, str)):
            return True
        if has_its_own_spelling(held):
            return True
    return False


@given(st.dictionaries(NAMES, DOCUMENTS, max_size=4).filter(lambda document: not has_its_own_spelling(document)))
def test_what_is_written_is_read_as_it_was(document: Any) -> None:
    text = yaml_text(document)
    assert comparable(from_file(read(text))) == comparable(json.loads(json.dumps(document)))
    assert from_file(to_file(document)) == document


@given(AMOUNTS)
def test_money_is_never_a_float(amount: str) -> None:
    """Digit for digit, with or without quotes."""
    assert from_file(read(f"price: {amount}\n")) == {"price": amount}
    assert from_file(read(f"price: '{amount}'\n")) == {"price": amount}
    assert yaml_text({"price": amount}) == f"price: {amount}\n"


@pytest.mark.parametrize(
    ("member", "wire", "file"),
    [
        ("quota", 10000, "quota: 10000/month\n"),
        ("quota", None, "quota: null\n"),
        ("price", "0.00000001", "price: 0.00000001\n"),
        ("base_fee", "20", "base_fee: 20\n"),
        ("timeout_s", 5.0, "timeout_s: 5\n"),
        ("timeout_s", 0.25, "timeout_s: 0.25\n"),
        ("rates", ["60/min burst 10", "10/s"], "rates: [60/min burst 10, 10/s]\n"),
        ("targets", ["http://a", "http://b"], "targets:\n- http://a\n- http://b\n"),
        ("name", "on", "name: 'on'\n"),
        ("name", "010", "name: '010'\n"),
        ("name", "0E0", "name: '0E0'\n"),
        ("contact", "a\nb", 'contact: "a\\nb"\n'),
        ("labels", {}, "labels: {}\n"),
        ("name", "Bäcker", "name: Bäcker\n"),
    ],
)
def test_a_dump_is_pleasant_to_read(member: str, wire: Any, file: str) -> None:
    assert yaml_text({member: wire}) == file
    assert from_file(read(file)) == {member: wire}


def test_another_program_reads_what_is_written_as_we_do() -> None:
    """PyYAML's own constructors follow YAML 1.1."""
    document = {"a": ["on", "010", "60:00", "1_000", "0x10", "null", "=", "~"], "b": {"yes": "no"}, "c": 2.5, "d": None}
    assert yaml.safe_load(yaml_of(document)) == document


def test_a_number_too_large_for_a_float_stays_text() -> None:
    assert not any(isinstance(value, float) and math.isinf(value) for value in read("a: 1e999\nb: -1e999\n").values())
