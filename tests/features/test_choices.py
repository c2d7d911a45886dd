import pytest

from blinkscope.feature import Reply
from blinkscope.features.choices import Choice


def choice(text: str, *, finished: bool = True) -> str | None:
    return Choice().label(Reply(text, finished))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is the third one, (C).", "C"),
        ("Optionally none fits. The answer is (B).", "B"),
        ("The answer is not clear.", None),
        ("The answer is 3.14.", None),
        ("12,000", None),
        (r"\boxed{\frac{a}{b^{2}}}", None),
        (r"\boxed 7", None),
    ],
)
def test_seen_to_go_wrong_elsewhere(text, label):
    assert choice(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is A", "A"),
        ("The answer is a.", "A"),
        ("The answer is (j), of course.", "J"),
        ("Answer: b", "B"),
        ("ANSWER: C\nbecause of that", "C"),
        ("Answer:\n(A) cat", "A"),
        ("Answer: A) cat, the small one", "A"),
        ("Answer: **B. dog**, the big one", "B"),
        ("The correct answer is: **C** as said", "C"),
        ("Answer: $B$ as said", "B"),
        (r"Answer: \(B\) as said", "B"),
        (r"Answer: \text{B} as said", "B"),
        ('The answer is "B" as said', "B"),
        ("The answer is 'B' as said", "B"),
        ("Answer [D] as said", "D"),
        ("The answer is B because dogs bark", "B"),
        ("The answer is A because cats purr", "A"),
        ("The answer to the first question is B, clearly", "B"),
        ("The answer is clearly the second option, B, as said", "B"),
        ("The answer is most likely (B) here", "B"),
        ("My choice: D (a dog)", "D"),
        ("I choose option D because it is", "D"),
        ("I would go with B here", "B"),
        ("I pick (c) for this", "C"),
        ("Option B is correct, as said", "B"),
        ("A is the right one", "A"),
        (r"So we have \boxed{B} here", "B"),
        (r"So we have \boxed{\text{(B)}} here", "B"),
        (r"So we have \boxed{B) 12} here", "B"),
        (r"So we have \boxed b here", "B"),
    ],
)
def test_said_in_so_many_words(text, label):
    assert choice(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is A. No wait, the answer is B.", "B"),
        (r"The answer is A. So \boxed{B}.", "B"),
        (r"\boxed{B}. The answer is A.", "A"),
        (r"The answer is B: \boxed{12}", "B"),
        ("The answer is C. I would not choose B.", "C"),
        ("My answer is not B, it is (C).", "C"),
        ("A) cat\nB) dog\nThe answer is B.", "B"),
        ("<think>The answer is A.</think> The answer is B.", "B"),
    ],
)
def test_the_last_statement_counts(text, label):
    assert choice(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A) cat", "A"),
        ("(b) dog", "B"),
        ("**B**", "B"),
        ("b", "B"),
        ("C.", "C"),
        ("(J)", "J"),
        ("B\n\nBecause dogs bark.", "B"),
        ("B) dog\n\nDogs are easier to train.", "B"),
        ("Dogs are easier to train.\n\nB. dog", "B"),
        ("B\n\nDogs bark.\n\nb) dog", "B"),
        ("A\n\nDogs bark.\n\nb) dog", None),
        ("So it's B.", "B"),
        ("It can only be (D)!", "D"),
        ("A) cat\nB) dog\nC) cow", None),
        ("Neither (A) nor (B).", None),
        ("I take vitamin C.", None),
        ("K", None),
    ],
)
def test_a_lone_letter(text, label):
    assert choice(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A dog is loyal.",
        "A dog",
        "I think so",
        "The answer is a dog.",
        "The answer is A dog",
        "Answer: I don't know.",
        "Answer: I'm not sure.",
        "The answer is I think nothing",
        "The answer is e.g. 5",
        "Answer: D.C. is the capital",
        "Answer: Bob",
        "The answer is K.",
        "The answer is B or C.",
        "The answer is (A) and (C).",
        "The answer is A/B.",
        "I would not choose B.",
        "Answer A is wrong.",
        "Option A is wrong.",
        "i.e.",
        "I. Introduction",
    ],
)
def test_no_choice(text):
    assert choice(text) is None


def test_a_reply_that_was_cut_counts_only_what_it_says_in_so_many_words():
    assert choice("The answer is A", finished=False) is None  # "A dog" may have been meant
    assert choice("The answer is (A), as", finished=False) == "A"
    assert choice("B) dog", finished=False) is None
