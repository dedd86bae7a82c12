"""Values of merges that are built and not executed yet."""

from deltawitness.commit import merge_builders
from deltawitness.commit.merge_builders import MergeBuilders


class Builder:
    """Stands in for the engine's merge builder, of which only the id is used."""


def test_value_of_a_builder_is_returned_once() -> None:
    builders: MergeBuilders[str] = MergeBuilders()
    builder = Builder()
    builders.put(builder, "first")
    builders.put(builder, "second")
    assert builders.pop(builder) == "second"
    assert builders.pop(builder) is None


def test_oldest_builder_is_dropped(monkeypatch) -> None:
    monkeypatch.setattr(merge_builders, "MAX_PENDING_MERGES", 2)
    builders: MergeBuilders[int] = MergeBuilders()
    kept = [Builder() for _ in range(3)]
    for number, builder in enumerate(kept):
        builders.put(builder, number)
    assert [builders.pop(builder) for builder in kept] == [None, 1, 2]
