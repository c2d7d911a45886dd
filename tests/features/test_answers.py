import pytest

from blinkscope.feature import Reply
from blinkscope.features.answers import Exact, Number


def number(text: str, *, finished: bool = True) -> str | None:
    return Number().label(Reply(text, finished))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        # Seen to go wrong elsewhere.
        ("12,000", "12000"),
        ("The answer is 3.14.", "3.14"),
        (r"\boxed{\frac{a}{b^{2}}}", None),
        (r"\boxed 7", "7"),
        ("The answer is not clear.", None),
        ("The answer is the third one, (C).", None),
        # One spelling.
        ("3.0", "3"),
        ("3.50", "3.5"),
        (".5", "0.5"),
        ("007", "7"),
        ("-0", "0"),
        ("+5", "5"),
        ("50%", "50"),
        ("It costs $1,234.50.", "1234.5"),
        ("1e5", "1e5"),
        ("6.02e+023", "6.02e23"),
        ("2E-07", "2e-7"),
        ("1/2", "1/2"),
        ("5.0/02", "5/2"),
        ("version 1.2.3", "1.2.3"),
        ("It is 25°C", "25"),
        # Signs and hyphens.
        ("-5", "-5"),
        ("−5", "-5"),
        ("x=-5", "-5"),
        ("(-5)", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("5-3", "3"),
        ("10 - 4", "4"),
        # The last of several.
        ("Half of 8 is 4", "4"),
        ("1,2,3", "3"),
        ("so...5", "5"),
        ("5.", "5"),
        ("5,", "5"),
        ("I said 5 (five).", "5"),
        # Digits in words.
        ("H2O", None),
        ("H2O has 3 atoms", "3"),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text, label):
    assert number(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is 4. No: the answer is 5. That took 3 steps.", "5"),
        ("Answer: $5 for 2", "5"),
        ("ANSWER = 7 in 3", "7"),
        ("**Answer:** **42** of 50", "42"),
        ("The final answer is therefore about 3 miles, or 5 km", "3"),
        ("The answer to question 3 is 8, I think, at 90 %", "8"),
        (r"The answer is \(7\), since 3 + 4", "7"),
        (r"The answer is $7$ dollars for 2", "7"),
        ("The answer is 10 - 4 = 6. Check 7", "6"),
        ("The answer is x = 5, so 9", "5"),
        ("The answer is 5, since y = 3", "5"),
        ("The answer is not 5 but 6", "6"),
        ("5 apples. #### 18\nThat is 5 + 13", "13"),
        ("5 apples.\n#### 18\nThat is 5 + 13", "18"),
        ("#### 3. Then we\nadd 7", "7"),
        ("#### $1,000.", "1000"),
        ("The answer is 5: \\boxed{6} of 7", "6"),
        ("\\boxed{6}. The answer is 5 of 7", "5"),
        ("The answer is 5: \\boxed{x}", "5"),
        ("<think>The answer is 3</think> It is 4", "4"),
    ],
)
def test_what_is_said_in_so_many_words_counts_first(text, label):
    assert number(text) == label


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("5", "5"),
        ("-5", "-5"),
        ("12{,}000", "12000"),
        (r"\$12,\!000", "12000"),
        (r"10\%", "10"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        (r"x = 5 \text{ cm}", "5"),
        (r"5\text{ apples}", "5"),
        (r"\text{Maria has } 5", "5"),
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac{3}{4}", "3/4"),
        ("2x", None),
        ("x^2", None),
        (r"3\sqrt{2}", None),
        ("(3, 5)", None),
        ("3 + 4", None),
        ("", None),
    ],
)
def test_boxes(content, label):
    assert number(f"From 8 and 9 we get $\\boxed{{{content}}}$.") == label


def test_a_reply_that_was_cut_counts_only_what_it_says_in_so_many_words():
    assert number("First 3 + 4 = 7, then", finished=False) is None
    assert number("The answer is 12", finished=False) is None  # 125 may have been meant
    assert number("The answer is 12 because", finished=False) == "12"
    assert number("So \\boxed{12} is", finished=False) == "12"


def test_long_numbers_stay_text():
    assert number("9" * 10_000) == "9" * 200 + "…"


def test_exact():
    def exact(text: str, *, finished: bool = True) -> str | None:
        return Exact().label(Reply(text, finished))

    assert exact(" Paris \n is\tit.\n") == "Paris is it."
    assert exact("paris") == "paris"
    assert exact("<think>Rome?</think>\n\nParis") == "Paris"
    assert exact("Par", finished=False) == "Par"
    assert exact(" \n") is None
    assert exact("x" * 300) == "x" * 200 + "…"
    assert exact("(other)") == '"(other)"'
