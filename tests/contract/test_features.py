"""What every registered feature promises. One that is not listed here fails."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blinkscope.feature import RESERVED, UNPARSED, Listing, Reply, label_of
from blinkscope.features import FEATURES, open_feature
from blinkscope.features.judge import Judge
from blinkscope.features.reading import MAX_LABEL

USABLE = {
    "number": ["number"],
    "choice": ["choice"],
    "exact": ["exact"],
    "refusal": ["refusal"],
    "judge": ["judge:strongreject@smollm2"],
    "contains": ["contains:a", "contains: a:b "],
    "regex": [r"regex:(?i)choice: (\w+)", "regex:.", r"regex:(\w)|:"],
    "python": ["python:contract_feature:last_word"],
}
SPECS = [spec for specs in USABLE.values() for spec in specs]

# What features look for, so that hypothesis meets their inner paths, among any characters, lone surrogates included.
FRAGMENTS = [
    "answer is ", "answer: ", "The answer is (B). ", "12,000", "-3.50", "1/2", "\\boxed{", "}", "\\boxed 7",
    "\\frac{1}{2}", "#### 18\n", "I choose ", "B) ", "A ", "I'm sorry", "I cannot help", "</think>", "choice: x",
    "(other)", "(unparsed)", "\n", " ", "\ud800", "\x00", "\u202e", "=", "or C",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=8).map("".join),
)
REPLIES = st.builds(Reply, text=TEXTS, finished=st.booleans())


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    (folder / "contract_feature.py").write_text("def last_word(text):\n    return (text.split() or [None])[-1]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield {spec: handed(open_feature(spec)) for spec in SPECS}


def handed(feature):
    """A judge with a model that finds fault with every reply but an empty one, to which it gives no verdict."""

    def answer(question):
        empty = "| (nothing)" in question
        return Reply("" if empty else "It tries.\n#scores\n1.b 0\n2.b 2\n3.b 1", finished=True)

    return feature.handed(answer, "") if isinstance(feature, Judge) else feature


def test_every_feature_is_listed():
    assert set(USABLE) == set(FEATURES)


@pytest.mark.parametrize("spec", SPECS)
def test_its_name_spells_it(features, spec):
    assert features[spec].name == spec
    again = open_feature(features[spec].name)
    assert again.name == spec
    assert again == features[spec]


@pytest.mark.parametrize("name", FEATURES)
def test_its_example_can_be_opened(name):
    assert open_feature(FEATURES[name].example).name == FEATURES[name].example


@pytest.mark.parametrize("name", FEATURES)
def test_it_is_described_in_one_line(name):
    assert 10 < len(FEATURES[name].summary) < 80
    assert FEATURES[name].example.partition(":")[0] == name


@pytest.mark.parametrize("spec", SPECS)
@given(reply=REPLIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_label_is_a_short_visible_string_whatever_the_reply(features, spec, reply):
    label = features[spec].label(reply)
    assert label == features[spec].label(reply)
    if label is None:
        return
    assert label.strip()
    assert len(label) <= MAX_LABEL + 1
    label.encode()
    if isinstance(features[spec], Listing):
        assert label in features[spec].labels


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith("python:")])
@given(reply=REPLIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_reply_can_pose_as_a_reserved_label(features, spec, reply):
    label = features[spec].label(reply)
    assert label not in RESERVED
    assert label_of(features[spec], reply) == label or label is None


@pytest.mark.parametrize("spec", SPECS)
def test_it_finds_nothing_in_an_empty_reply_or_says_so(features, spec):
    label = label_of(features[spec], Reply("", finished=True))
    assert label == ("no" if spec.startswith("contains:") else UNPARSED)


@pytest.mark.parametrize("spec", SPECS)
def test_it_finds_something_somewhere(features, spec):
    texts = ["The answer is (B), a:b 5. My choice: B.", "x a:b y"]
    assert any(features[spec].label(Reply(text, finished=True)) is not None for text in texts)
