"""The drive: no path leads outside, each path has one spelling, and sizes are limited."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import State, load_toolset
from agentft.types import Json

FILES = load_toolset("files", seed=11)
OUTSIDE = [
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "",
    "..",
    "../notes/todo.txt",
    "notes/../../etc/passwd",
    "notes/../todo.txt",
    "notes/..",
    "~",
    "~/secret",
    "C:/Windows/win.ini",
    "C:\\Windows",
    "notes\\todo.txt",
    "..\\..\\etc",
    "file:///etc/passwd",
    "http://10.0.0.1/x",
]
UNWRITABLE = [
    ".",
    "./notes/todo.txt",
    "notes/./todo.txt",
    "notes//todo.txt",
    "notes/",
    "notes/...",
    "notes/todo.txt.",
    "notes/ todo.txt",
    "notes/todo.txt ",
    " notes/todo.txt",
    "notes/todo.txt\n",
    "notes/\x00",
    "notes/todo.txt\x00.png",
    "notes/\x1b[2J",
    "notes/\u202etxt.exe",  # text from right to left
    "notes/\u200b.txt",  # a space without width
    "notes/\ufeffa.txt",
    "\uff0e\uff0e/etc",  # full-width dots
    "\u2024\u2024/etc",  # one-dot leaders
    "notes\u2215todo.txt",  # a slash that is none
    "notes\uff0ftodo.txt",
    "notes/\uff41.txt",  # a full-width a
    "notes/\u2160.txt",  # a Roman one in one letter
    "%2e%2e/etc",
    "notes/a*b",
    "$HOME/x",
    "`id`",
    "a;b",
    "a|b",
    "notes/\ud800",
    "~root/x",
    "x" * 61,
]


def ask(tool: str, state: State, /, **arguments: Json) -> dict[str, Any]:
    result = FILES.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(tool: str, state: State, /, **arguments: Json) -> tuple[int, str]:
    before = FILES.digest(state)
    with pytest.raises(ToolError) as caught:
        FILES.call(tool, arguments, state)
    assert FILES.digest(state) == before
    return caught.value.status, str(caught.value)


def tree_of(state: State, folder: str = "") -> dict[str, str]:
    """Every path and its text, read through the tools only (the entries must fit into one result)."""
    found: dict[str, str] = {}
    listed = ask("list_folder", state, folder=folder)
    assert "more" not in listed["entries"]
    for entry in listed["entries"].split(", "):
        path = f"{folder}/{entry}" if folder else entry
        if entry.endswith("/"):
            found |= tree_of(state, path[:-1])
        else:
            found[path] = text_of(state, path)
    return found


def text_of(state: State, path: str) -> str:
    text, left = "", 1
    while left:
        page = ask("read_file", state, path=path, start=len(text))
        text, left = text + page["text"], page["left"]
    return text


def every_call(path: str) -> list[tuple[str, dict[str, Json]]]:
    return [
        ("list_folder", {"folder": path}),
        ("file_info", {"path": path}),
        ("read_file", {"path": path}),
        ("write_file", {"path": path, "text": "x"}),
        ("append_to_file", {"path": path, "text": "x"}),
        ("replace_text", {"path": path, "old": "a", "new": "b"}),
        ("move_file", {"path": path, "to": "a.txt"}),
        ("move_file", {"path": "notes/todo.txt", "to": path}),
        ("delete_file", {"path": path}),
    ]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_tool_accepts_a_path_outside_the_drive(path: str) -> None:
    state = FILES.new_state()
    for tool, arguments in every_call(path):
        if tool == "list_folder" and path in {"", "/"}:  # the top
            continue
        status, message = refusal(tool, state, **arguments)
        assert status == 403
        assert message.startswith(f"the path {path!r} is not allowed: only this drive can be reached")


@pytest.mark.parametrize("path", UNWRITABLE)
def test_no_tool_accepts_a_second_spelling_of_a_path(path: str) -> None:
    state = FILES.new_state()
    for tool, arguments in every_call(path):
        if tool == "list_folder" and path == ".":
            continue
        status, message = refusal(tool, state, **arguments)
        assert status == 422
        assert message.startswith("the name ")
        assert "is not allowed; use" in message


def test_the_length_of_paths_is_limited() -> None:
    state = FILES.new_state()
    deep = "/".join("abcdefgh")
    assert ask("write_file", state, path=deep, text="")["path"] == deep
    assert refusal("write_file", state, path=f"x/{deep}", text="") == (
        422,
        "the path has 9 parts; at most 8 are allowed",
    )
    assert refusal("write_file", state, path="/".join(["x" * 60] * 3), text="") == (
        422,
        "the path has 182 characters; at most 120 are allowed",
    )


def test_composed_and_decomposed_names_are_the_same() -> None:
    state = FILES.new_state()
    for name in ("笔记/待办.txt", "заметки.txt", "notes/résumé (2).txt", "हिन्दी.txt", ".env"):
        ask("write_file", state, path=name, text=name)
        assert ask("read_file", state, path=name)["text"] == name
    apart = unicodedata.normalize("NFD", "notes/résumé (2).txt")
    assert refusal("write_file", state, path=apart, text="")[0] == 409
    assert ask("read_file", state, path=apart)["path"] == "notes/résumé (2).txt"


@pytest.mark.parametrize("folder", ["", ".", "/"])
def test_the_top_is_listed(folder: str) -> None:
    assert ask("list_folder", FILES.new_state(), folder=folder) == {
        "folder": "",
        "folders": 5,
        "files": 1,
        "entries": "data/, invoices/, notes/, templates/, web/, readme.txt",
    }


def test_a_long_list_is_cut_at_a_name_and_counted() -> None:
    state = FILES.new_state()
    for number in range(40):
        ask("write_file", state, path=f"many/file-{number:02}.txt", text="")
    listed = ask("list_folder", state, folder="many")
    names = listed["entries"].split(", ")
    assert (listed["files"], names[0], names[-1]) == (40, "file-00.txt", f"and {41 - len(names)} more")
    assert len(listed["entries"]) < 170


def test_an_unknown_path_is_a_404_that_names_a_similar_one() -> None:
    state = FILES.new_state()
    message = "there is no file 'notes/tod.txt'; did you mean 'notes/todo.txt'?"
    assert refusal("read_file", state, path="notes/tod.txt") == (404, message)
    assert refusal("list_folder", state, folder="note") == (404, "there is no folder 'note'; did you mean 'notes'?")
    assert refusal("delete_file", state, path="Notes/todo.txt")[0] == 404


def test_folders_and_files_are_not_confused() -> None:
    state = FILES.new_state()
    assert refusal("read_file", state, path="notes") == (422, "'notes' is a folder; list_folder shows its files")
    assert refusal("delete_file", state, path="notes")[0] == 422
    assert refusal("list_folder", state, folder="readme.txt") == (422, "'readme.txt' is a file; read_file reads it")
    assert refusal("write_file", state, path="notes", text="") == (409, "'notes' is a folder; choose another name")
    message = "'readme.txt' is a file, so nothing can be put in it; choose another folder"
    assert refusal("write_file", state, path="readme.txt/a/b.txt", text="") == (409, message)
    assert refusal("move_file", state, path="notes/todo.txt", to="readme.txt/todo.txt") == (409, message)


def test_a_long_file_is_read_page_by_page() -> None:
    state = FILES.new_state()
    text = "".join(f"line {number}\n" for number in range(300))
    ask("write_file", state, path="long.txt", text=text)
    first = ask("read_file", state, path="long.txt")
    assert (first["text"], first["size"], first["left"]) == (text[:1000], len(text), len(text) - 1000)
    assert text_of(state, "long.txt") == text
    assert ask("file_info", state, path="long.txt") == {
        "path": "long.txt",
        "size": len(text),
        "lines": 300,
        "words": 600,
        "read_only": False,
    }
    assert ask("read_file", state, path="long.txt", start=len(text))["text"] == ""
    message = f"'long.txt' has {len(text)} characters only; begin at a smaller start"
    assert refusal("read_file", state, path="long.txt", start=len(text) + 1) == (422, message)


@pytest.mark.parametrize(
    ("query", "path", "line"),
    [("LANDLORD", "notes/todo.txt", 2), ("todo", "notes/todo.txt", 0), ("rental bikes", "notes/ideas.txt", 2)],
)
def test_a_text_is_found_with_its_line(query: str, path: str, line: int) -> None:
    found = ask("search_files", FILES.new_state(), query=query)
    assert (found["path"], found["line"], found["more"]) == (path, line, 0)


def test_a_search_counts_the_other_lines_and_no_hit_is_a_404() -> None:
    state = FILES.new_state()
    assert ask("search_files", state, query="Invoice")["more"] > 6
    for query in ("unicorn", "", " ", "x" * 500):
        assert refusal("search_files", state, query=query)[0] == 404


def test_a_file_is_never_overwritten() -> None:
    state = FILES.new_state()
    for path in ("notes/todo.txt", "data/sales-2026-07.csv"):
        message = f"{path!r} is there already; choose another name, or delete it first"
        assert refusal("write_file", state, path=path, text="x") == (409, message)
        assert refusal("move_file", state, path="notes/ideas.txt", to=path) == (409, message)


def test_appending_starts_a_new_line() -> None:
    state = FILES.new_state()
    ask("write_file", state, path="a.txt", text="one")
    assert ask("append_to_file", state, path="a.txt", text="two") == {"path": "a.txt", "size": 8, "status": "appended"}
    ask("append_to_file", state, path="a.txt", text="three")
    assert text_of(state, "a.txt") == "one\ntwo\nthree\n"
    assert refusal("append_to_file", state, path="a.txt", text="")[0] == 422


def test_a_text_is_replaced_if_it_occurs_once() -> None:
    state = FILES.new_state()
    ask("write_file", state, path="a.txt", text="red red blue")
    assert ask("replace_text", state, path="a.txt", old="blue", new="") == {
        "path": "a.txt",
        "size": 8,
        "status": "replaced",
    }
    assert text_of(state, "a.txt") == "red red "
    message = "'red' occurs 2 times in 'a.txt', not once; give more of the text around it"
    assert refusal("replace_text", state, path="a.txt", old="red", new="x") == (409, message)
    message = "'green' occurs 0 times in 'a.txt', not once; read_file shows its text"
    assert refusal("replace_text", state, path="a.txt", old="green", new="x") == (409, message)
    for old, new in (("", "x"), ("red", "red")):
        assert refusal("replace_text", state, path="a.txt", old=old, new=new)[0] == 422


def test_a_moved_file_keeps_its_text() -> None:
    state = FILES.new_state()
    text = text_of(state, "data/sales-2026-07.csv")
    ask("move_file", state, path="data/sales-2026-07.csv", to="old/july.csv")
    assert text_of(state, "old/july.csv") == text
    assert refusal("read_file", state, path="data/sales-2026-07.csv")[0] == 404
    ask("move_file", state, path="old/july.csv", to="data/sales-2026-07.csv")
    assert text_of(state, "data/sales-2026-07.csv") == text
    message = "'notes' is a folder; write the file's name too: 'notes/readme.txt'"
    assert refusal("move_file", state, path="readme.txt", to="notes") == (409, message)
    assert refusal("move_file", state, path="readme.txt", to="readme.txt")[0] == 409
    assert ask("move_file", state, path="readme.txt", to="readme.txt/new")["to"] == "readme.txt/new"


def test_a_deleted_file_is_gone_until_it_is_written_again() -> None:
    state = FILES.new_state()
    for path in ("web/index.html", "data/sales-2026-08.csv"):
        assert ask("delete_file", state, path=path)["status"] == "deleted"
        assert refusal("read_file", state, path=path)[0] == 404
    assert refusal("list_folder", state, folder="web")[0] == 404
    ask("write_file", state, path="data/sales-2026-08.csv", text="new")
    assert text_of(state, "data/sales-2026-08.csv") == "new"


def test_the_templates_are_read_only() -> None:
    state = FILES.new_state()
    assert ask("file_info", state, path="templates/letter.txt")["read_only"] is True
    message = "'templates/letter.txt' is read-only; write your file to another folder"
    for tool, arguments in every_call("templates/letter.txt")[4:]:
        if arguments["path"] != "notes/todo.txt":
            assert refusal(tool, state, **arguments) == (403, message)
    assert refusal("write_file", state, path="templates/new.txt", text="")[0] == 403
    assert refusal("move_file", state, path="notes/todo.txt", to="templates/todo.txt")[0] == 403
    assert ask("write_file", state, path="templates2/new.txt", text="")["status"] == "written"


def test_sizes_are_limited() -> None:
    state = FILES.new_state()
    message = "the file would have 4001 characters; at most 4000 are allowed"
    assert refusal("write_file", state, path="a.txt", text="x" * 4001) == (413, message)
    full = "the drive is full (100 files, 64000 characters); delete a file first"
    for number in range(15):
        ask("write_file", state, path=f"big/{number}.txt", text="x" * 4000)
    assert refusal("write_file", state, path="big/15.txt", text="x" * 4000) == (409, full)
    assert refusal("append_to_file", state, path="big/0.txt", text="x")[0] == 413
    many = FILES.new_state()
    for number in range(100 - len(tree_of(many))):
        ask("write_file", many, path=f"many/{number}.txt", text="")
    assert refusal("write_file", many, path="one-more.txt", text="") == (409, full)
    ask("delete_file", many, path="many/0.txt")
    ask("write_file", many, path="one-more.txt", text="")


@pytest.mark.parametrize("text", ["\x00", "a\x1b[2Jb", "\r\n", "\ud800", "\x85"])
def test_only_printable_text_is_stored(text: str) -> None:
    message = "the text holds control characters; only text with line breaks and tabs is kept"
    assert refusal("write_file", FILES.new_state(), path="a.txt", text=text) == (422, message)


def test_another_seed_gives_other_figures_in_the_same_files() -> None:
    trees = [tree_of(FILES.new_state(seed)) for seed in range(8)]
    assert len({tuple(tree) for tree in trees}) == 1
    assert len({tree["data/sales-2026-09.csv"] for tree in trees}) == 8
    assert len({tree["notes/todo.txt"] for tree in trees}) == 1


_PATH = st.one_of(
    st.lists(st.sampled_from(["a", "b", "notes", "todo.txt", "..", ".", "", "~"]), min_size=1, max_size=4).map(
        "/".join
    ),
    st.text(max_size=12),
)
_TEXT = st.text(max_size=20)
_CALL = st.one_of(
    st.tuples(st.just("write_file"), st.fixed_dictionaries({"path": _PATH, "text": _TEXT})),
    st.tuples(st.just("append_to_file"), st.fixed_dictionaries({"path": _PATH, "text": _TEXT})),
    st.tuples(st.just("move_file"), st.fixed_dictionaries({"path": _PATH, "to": _PATH})),
    st.tuples(st.just("delete_file"), st.fixed_dictionaries({"path": _PATH})),
    st.tuples(st.just("list_folder"), st.fixed_dictionaries({"folder": _PATH})),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_CALL, max_size=15))
def test_no_calls_break_the_tree(calls: list[tuple[str, dict[str, Json]]]) -> None:
    state = FILES.new_state()
    for tool, arguments in calls:
        try:
            ask(tool, state, **arguments)
        except ToolError as error:
            assert 400 <= error.status < 500  # noqa: PT017
    paths = set(state["files"])
    for path in paths:
        names = path.split("/")
        assert unicodedata.normalize("NFKC", path) == path
        assert path.isprintable()
        assert not path.startswith("/")
        assert all(name and name == name.strip() and set(name) != {"."} for name in names)
        assert not any("/".join(names[:depth]) in paths for depth in range(1, len(names)))
