from __future__ import annotations

from pydoc_data.topics import topics

from tunecast import data
from tunecast.data import reference
from tunecast.data.suites import LONGEST, MAX_EXAMPLES, SHORTEST, SUITES, suite


def test_the_suite_is_of_this_python_and_always_the_same() -> None:
    found = suite("python", 0)
    assert list(found) == list(SUITES["python"]) == ["docstrings", "prose", "code"]
    assert suite("python", 0) == found
    everything = " ".join(" ".join(topics.values()).split())
    assert all(reference(example) in everything for example in found["prose"])
    assert all(reference(example).startswith(("def ", "class ")) for example in found["code"])


def test_texts_are_many_and_of_a_usual_length() -> None:
    for name, examples in suite("python", 0).items():
        assert len(examples) >= 50, name
        if name != "docstrings":
            assert len(examples) < 2 * MAX_EXAMPLES
            assert all(SHORTEST <= len(reference(example)) <= LONGEST for example in examples)
            assert len({reference(example) for example in examples}) == len(examples)


def test_its_docstrings_are_those_that_stdlib_holds_out() -> None:
    trained = {example.turns for example in data.read("stdlib", seed=3).train}
    assert trained.isdisjoint(example.turns for example in suite("python", 3)["docstrings"])
