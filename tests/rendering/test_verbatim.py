"""A template that is proven to print contents only prints contents, and every other use of a content is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MethodType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import FrameError
from agentft.rendering.frame import Frame
from agentft.rendering.verbatim import only_prints_contents
from tests.tiny import tiny_tokenizer

LOOP = "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{}<|im_end|>\n{{% endfor %}}"
TEMPLATES = Path(__file__).parents[1] / "invariants" / "templates"
QWEN = Path(__file__).with_name("qwen2.5_chat_template.jinja")


def in_loop(body: str) -> str:
    """A template with this for each message `m`."""
    return LOOP.format(body)


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content }}",
        "{{ m['content'] }}",
        "{{ 'a' + m['content'] + 'b' }}",
        "{{ 'a' ~ m['content'] }}",
        "{{ m.content | trim }}",
        "{{ 'a' + m.content | trim + 'b' }}",
        "{% if loop.first %}{{ messages[0].content }}{% else %}{{ messages[loop.index0]['content'] }}{% endif %}",
        "{% for call in m.tool_calls %}{{ call.name | tojson }}{% endfor %}{{ m.content }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = loop.index %}{{ ns.x }}{{ m.content }}",
        "{% if m.role == 'x' %}{{ raise_exception('no ' + m.role) }}{% elif 1 %}{{ m.content }}{% endif %}",
        "{% for n in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ m.content }}",
        "{% set first, second = 1, 2 %}{{ first }}{{ m.content }}",
        "{% if m.content %}{{ m.content }}{% endif %}",
        "{% if m.role == 'user' and not m.content %}a{% endif %}{{ m.content }}",
        "{% if m.role or m.content | trim %}{{ m.content }}{% endif %}",
    ],
)
def test_templates_that_only_print_contents_are_proven(body: str) -> None:
    assert only_prints_contents(in_loop(body))


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content if m.role == 'user' else 'a' + m.content }}",
        "{% if loop.index == messages | length %}a{% endif %}{{ m.content }}",
        "{% if m.content is string and m.content is not none and m.name is not defined %}{{ m.content }}{% endif %}",
        "{{ m.content if m.content else 'a' }}",
        "{% for n in messages[1:] %}{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ m.content }}",
        "{{ m.content | upper }}",
        "{% if (m.content or 'a') + 'b' %}{{ m.content }}{% endif %}",
        "{{ not m.content }}",
        "{{ m.content | trim('x') }}",
        "{{ m.content | replace('a', 'b') }}",
        "{{ m.content | length }}",
        "{{ (m.content + 'a') | trim }}",
        "{{ (m.content ~ 'a').strip() }}",
        "{{ m.content.strip('x') }}",
        "{{ m.content.lstrip() }}",
        "{{ m.content.split('</think>')[-1] }}",
        "{{ m.content[1:] }}",
        "{{ m.content[0] }}",
        "{{ m.content * 2 }}",
        "{{ m.content or 'a' }}",
        "{{ [m.content] }}",
        "{{ raise_exception(m.content) }}",
        "{{ '%s' | format(m.content) }}",
        "{% if m.content == 'a' %}a{% endif %}{{ m.content }}",
        "{% if 'a' in m.content %}a{% endif %}{{ m.content }}",
        "{% if m.content is equalto 'a' %}a{% endif %}{{ m.content }}",
        "{% if m.content is upper %}a{% endif %}{{ m.content }}",
        "{% if 'a' + m.content %}a{% endif %}{{ m.content }}",
        "{% for c in m.content %}{{ c }}{% endfor %}",
        "{% for n in messages if n.content == 'a' %}b{% endfor %}{{ m.content }}",
        "{% for n in messages recursive %}{{ n.content }}{{ loop(messages) }}{% endfor %}",
        "{{ (m.content if m.role else 'a') | trim }}",
        "{{ m.content | trim(*['x']) }}",
        "{{ m.content.strip() }}",
        "{% set x = m.content %}{{ x }}",
        "{% for m in [m.content] %}{{ m }}{% endfor %}",
        "{% for n in messages[m.content | length:] %}{{ n.role }}{% endfor %}",
        "{{ messages[m.content].role }}",
        "{{ messages['pop'].content }}",
        "{% set ns = namespace(x=m.content) %}{{ ns.x | upper }}",
        "{% set ns.x = m.content %}{{ ns.x }}",
        "{% set x %}{{ m.content }}{% endset %}{{ x }}",
        "{% set x = m.content %}{% set x = m %}{{ x }}",
        "{% set a, b = m.content %}{{ a }}",
        "{% set loop = 1 %}{{ m.content }}",
        "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(m.content) }}",
        "{% filter upper %}{{ m.content }}{% endfilter %}",
        "{% with x = m %}{{ x.content }}{% endwith %}",
        "{{ m }}",
        "{{ m | tojson }}",
        "{{ m.items() }}",
        "{{ m['values']() }}",
        "{{ m.get('content') }}",
        "{{ m[m.role] }}",
        "{{ messages }}",
        "{{ messages | tojson }}",
        "{{ messages.pop().content }}",
        "{{ messages['pop']().content }}",
        "{{ loop.previtem.content | upper }}",
        "{{ loop['next' + 'item'].content | upper }}",
        "{{ loop | attr('previtem') }}",
        "{% set l = loop %}{{ l.previtem }}",
        "{{ loop.changed(m.content) }}",
        "{{ self.x() }}",
        "{% generation %}{{ m.content }}{% endgeneration %}",
        "{% if %}",
        "{{ " + "(" * 20_000 + " }}",
    ],
)
def test_every_other_use_of_a_content_is_not_proven(body: str) -> None:
    assert not only_prints_contents(in_loop(body))


def framed(source: str) -> Frame:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|return|>", "<end_of_turn>", "<|user|>"]})
    return Frame.of_tokenizer(tokenizer)


PIECES = [*" \t\n\u3000\u200b{}%#<|>'\"\\aé漢", "<|im_end|>", "{{", "<think>"]
CONTENTS = st.lists(st.sampled_from(PIECES)).map("".join)
PROVEN = {"trim": in_loop("{{ m.content | trim }}"), "qwen2.5": QWEN.read_text(encoding="utf-8")}
FAMILIES = {path.stem: path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.jinja")}
PROVEN_FAMILIES = ["gemma2", "glm4", "glm4_tools", "gptoss", "internlm2", "mistral", "phi3"]


@pytest.mark.parametrize("name", [*PROVEN, *(pytest.param(name, marks=pytest.mark.slow) for name in PROVEN_FAMILIES)])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_what_is_proven_would_have_passed_the_check(name: str, data: st.DataObject) -> None:
    frame = framed({**PROVEN, **FAMILIES}[name])
    assert frame.verbatim
    roles = ["user", "assistant", "user", "assistant"]
    trims = frame.outline(roles, generation_prompt=False).trims
    raw = [data.draw(CONTENTS.filter(str.strip)) for _ in roles]
    contents = [text.lstrip(left).rstrip(right) for text, (left, right) in zip(raw, trims, strict=True)]
    replace(frame, verbatim=False).check(roles, contents, generation_prompt=False)


def test_templates_of_many_families_are_proven() -> None:
    assert sorted(name for name, source in FAMILIES.items() if only_prints_contents(source)) == PROVEN_FAMILIES


def test_blank_contents_are_checked_where_the_proof_is_for_others() -> None:
    frame = framed(in_loop("{% if m.content %}{{ m.content }}{% else %}nothing{% endif %}"))
    frame.check(["user", "assistant"], ["a", "b"], generation_prompt=False)
    with pytest.raises(FrameError, match="rewrites"):
        frame.check(["user", "assistant"], ["a", ""], generation_prompt=False)


def test_a_tokenizer_with_rendering_of_its_own_is_always_checked() -> None:
    tokenizer = tiny_tokenizer()

    def shout(self: object, *arguments: object, **options: object) -> str:
        return str(type(tokenizer).apply_chat_template(tokenizer, *arguments, **options)).replace("hi", "HI")

    tokenizer.apply_chat_template = MethodType(shout, tokenizer)
    frame = Frame.of_tokenizer(tokenizer)
    assert not frame.verbatim
    with pytest.raises(FrameError, match="rewrites"):
        frame.check(["user", "assistant"], ["hi", "b"], generation_prompt=False)


@pytest.mark.slow
def test_the_small_model_is_proven(smollm2_folder: Path) -> None:
    from transformers import AutoTokenizer

    assert Frame.of_tokenizer(AutoTokenizer.from_pretrained(smollm2_folder)).verbatim
