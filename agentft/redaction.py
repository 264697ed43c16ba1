"""Redacts secrets in recorded exchanges and commands, recognised by their names, shapes and values."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from functools import lru_cache

from agentft.json_text import UnreadableError, parse_json
from agentft.strict import own_table
from agentft.types import Json

__all__ = ["is_secret_argument", "redacted", "redacted_command", "redacted_path"]

_HIDDEN = "[redacted]"
_TABLE = own_table(__file__, str)
_SECRET_NAME, _SECRET_ARGUMENT, _LOGIN, _VERDICT, _MIXED, _AFTER, _AT_WORDS, _SHAPES = (
    re.compile("|".join(pattern for key, pattern in _TABLE.items() if key.startswith(kind)), re.IGNORECASE)
    for kind in ("name-", "argument-", "login-", "verdict-", "mixed-", "after-", "word-", "shape-")
)
_SECRET_SHAPE = re.compile(
    rf"(?<=[=/\s])(?:{_AFTER.pattern})|\b(?:{_AT_WORDS.pattern})|{_SHAPES.pattern}", re.IGNORECASE
)
# `name=`, `name:`, `name =>` and `--name `, with or without quotes, and the value after them.
_HEAD = re.compile(
    r"""(?P<quote>["']?)(?P<flag>(?<![\w-])--)?(?P<name>(?:api |access |private )?[\w.-]{1,64})(?P=quote)"""
    r"""(?:\s{0,9}(?:=>?|:=?|->|：|%3[aAdD])\s{0,9}|(?(flag)\s{1,9}|(?!)))"""
)
_VALUE = re.compile(r"""(?<=")(?:[^"\\]|\\.)+(?=")|(?<=')[^']+(?=')|[^&\s"'#;,{}\[\]<>]+""")
_HEADER = re.compile(
    r"""(?i)\b([\w-]{0,40}(?:authori[sz]ation|cookie)["']?:\s{0,9}["']?)(?:[^\n"'{}<>]|(?<==)"[^"\n]{0,999}")+"""
)
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]{0,19}(?:['’-][^\W\d_A-Z]{1,19})?[.!?:)]*")  # a credential rarely is a plain word
_BREAKS = frozenset("\n\r,;&?|(){}[]<>\"'`")
_ELEMENT = re.compile(r"(?P<head><(?P<name>[\w.:-]{1,64})[^<>]{0,200}>)[^<>]{1,2000}(?=</(?P=name)>)")
_NAMES = ("name", "key", "field", "header", "parameter", "param", "label", "id", "k")
_PAIRED = ("value", "values", "content", "val", "v")
# Such a pair in a text: `key="password" value="x"`, `<name>password</name><value>x</value>`.
_TWIN = re.compile(
    rf"""(?i)(?P<head>\b(?:{"|".join(_NAMES)})["']?\s{{0,9}}[=:>]\s{{0,9}}["']?(?P<name>[\w.-]{{1,64}})["']?[^\w]{{1,20}}(?:\w+>\s{{0,20}}<)?"""
    rf"""(?:{"|".join(_PAIRED)})["']?\s{{0,9}}[=:>]\s{{0,9}}["']?)[^"'<>\n]+"""
)
_PAIR = re.compile(r"(?<=[?&])([^?&=]+)=[^&]+")  # of a query
_SEAM = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\[\]]+")
_RANDOM = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{20,}|(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9]{24,}")


def is_secret_argument(name: str) -> bool:
    """Whether an argument with this name is a secret, which an imported world leaves out.

    So is every name that `redacted` hides, and also a bare `key`, `token`, `session` or `auth...`.
    """
    return _is_secret(name) or bool(_SECRET_ARGUMENT.search(_plain(name)))


def redacted(value: Json, known: Sequence[str] = ()) -> Json:
    """A copy of `value` with "[redacted]" in place of secrets.

    Secrets are recognised by the name of their key, also in `{"name": ..., "value": ...}`, in lists of pairs of name
    and value, and in JSON, XML, `name=value` and `name: value` inside texts; by their shape; and if they contain one
    of the `known` secrets.
    """
    if isinstance(value, dict):
        paired = any(_is_secret(str(item)) for key, item in value.items() if key.lower() in _NAMES)
        login = any(map(_LOGIN.search, value))
        return {
            key: _HIDDEN
            if not isinstance(item, bool | None)
            and (_is_secret(key) or (paired and key.lower() in _PAIRED) or _is_password(key, item, login=login))
            else redacted(item, known)
            for key, item in value.items()
        }
    if isinstance(value, list):
        forms = ([str, str], [str, type(None)])
        pairs = [item for item in value if isinstance(item, list) and [*map(type, item)] in forms]
        if len(pairs) == len(value):
            return [
                [name, _HIDDEN if item and _is_secret(f"{name}") else redacted(item, known)] for name, item in pairs
            ]
        after = zip([None, *value], value, strict=False)
        return [_HIDDEN if _is_flag(before, item) else redacted(item, known) for before, item in after]
    return _redacted_text(value, known) if isinstance(value, str) else value


def redacted_command(text: str) -> str:
    """A command or a URL with "[redacted]" in place of credentials; the values of environment variables are hidden."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    shown: list[str] = []
    secret, leading = False, True
    for word in words:
        name, given, value = word.partition("=")
        leading = leading and (word == "env" or (bool(given) and name.isidentifier()))
        if secret or ("@sha256:" not in word and _RANDOM.fullmatch(word.rpartition(":")[2])):  # also `ID:KEY`
            shown.append(_HIDDEN)
        elif value and "/" not in name and (leading or is_secret_argument(name.lstrip("-"))):
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(_redacted_address(word))
        secret = not secret and word.startswith("-") and not given and is_secret_argument(word.lstrip("-"))
    return _SECRET_SHAPE.sub(_HIDDEN, text if shown == words else " ".join(shown))


def redacted_path(path: str) -> str:
    """The path of a URL, with "[redacted]" in place of segments that look like keys."""
    return "/".join(map(_redacted_segment, path.split("/")))


@lru_cache(maxsize=1000)
def _redacted_segment(text: str) -> str:
    return _HIDDEN if _RANDOM.fullmatch(text) or _SECRET_SHAPE.search(text) else str(redacted(text))


def _redacted_address(word: str) -> str:
    if "://" not in word:
        return str(redacted(word))
    address, mark, query = _PAIR.sub(_pair, word).partition("?")
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return str(redacted(f"{scheme}://{host}{slash}{redacted_path(path)}{mark}{query}"))


def _pair(found: re.Match[str]) -> str:
    return f"{found[1]}={_HIDDEN}" if is_secret_argument(found[1]) else found[0]


def _is_password(key: str, value: Json, *, login: bool) -> bool:
    """Whether a `pass` is a password: it is beside a `login`, or has letters and digits."""
    known = _MIXED.search(value) or (login and not _VERDICT.search(value)) if isinstance(value, str) else None
    return key.lower() == "pass" and bool(known)


def _is_flag(word: Json, value: Json) -> bool:
    """Whether a word of a command says that the next one is a secret."""
    flag = isinstance(word, str) and re.fullmatch(r"--?([a-zA-Z][\w-]*)", word)
    return bool(flag and isinstance(value, str) and value[:1] != "-" and _is_secret(flag[1]))


@lru_cache(maxsize=10_000)
def _is_secret(name: str) -> bool:
    told = name.lower().endswith(("error", "exception"))  # `NoCredentialsError: Unable to locate credentials`
    return not told and any(map(_SECRET_NAME.search, {name, _plain(name)}))


def _plain(name: str) -> str:
    """`user[authToken][]` -> `user_auth_Token`."""
    return _SEAM.sub("_", name).strip("_")


def _redacted_text(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, _HIDDEN) if secret else text
    if text.lstrip()[:1] in {"{", "[", '"'}:
        try:
            inside = parse_json(text)
            clean = redacted(inside, known)
            return text if clean == inside else json.dumps(clean, ensure_ascii=False)
        except UnreadableError:
            pass
    plain = _TWIN.sub(_named, _ELEMENT.sub(_named, _hide_pairs(_HEADER.sub(_header, text))))
    return _SECRET_SHAPE.sub(_HIDDEN, plain)


def _hide_pairs(text: str) -> str:
    made, at = [], 0
    for head in _HEAD.finditer(text):
        start = head.end() + (text[head.end() : head.end() + 1] in {'"', "'"})
        if head.start() >= at and _is_secret(head["name"]) and (value := _VALUE.match(text, start)):
            quoted = start > head.end() or bool(head["quote"])
            if not quoted and head[0][-1].isspace() and "=" not in head[0] and _is_prose(text, head.start(), value[0]):
                continue
            made += [text[at:start], _HIDDEN]
            at = value.end()
    return "".join([*made, text[at:]])


def _header(found: re.Match[str]) -> str:
    head, line = found[1], found[0][len(found[1]) :]
    words = line.split()[:2]  # such as a scheme and a token
    if words and head[-1].isspace() and all(_is_prose(found.string, found.start(), word) for word in words):
        return found[0]
    return head + _HIDDEN


def _is_prose(text: str, at: int, value: str) -> bool:
    """Whether the colon of a name at `at` is one of a sentence ("the token: expired"): the value after it is a word.

    A name that begins a line, or follows a comma or the like, is a field, whatever its value.
    """
    before = text[max(0, at - 9) : at].rstrip(" \t-*")
    told = text.startswith("--", at) or (bool(before) and before[-1] not in _BREAKS)
    return told and bool(_WORD.fullmatch(value))


def _named(found: re.Match[str]) -> str:
    return found["head"] + _HIDDEN if _is_secret(found["name"]) else found[0]
