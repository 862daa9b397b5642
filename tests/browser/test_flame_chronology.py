"""Stacks in the order of time, against a walk over the samples."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser import synthetic

pytestmark = pytest.mark.browser

_TIME = """() => {
  const view = perfkit.flame.views['code-time'];
  const { tree, values, stage } = view;
  const label = Array.from(tree.label, (one) => tree.strings[one]);
  return { parent: Array.from(tree.parent), label,
           self: Array.from(values.self), node: stage.bars.node, x0: stage.bars.x0,
           kind: stage.bars.kind, rowStart: stage.bars.rowStart };
}"""


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build(samples=1500)


def walked(section: dict[str, Any]) -> tuple[list[int], list[str], list[float]]:
    """Return parents, labels and own times, by following every running sample of each thread."""
    tree, samples = section["tree"], section["samples"]
    parents: list[int] = []
    labels: list[str] = []
    own: list[float] = []

    def add(parent: int, label: str) -> int:
        parents.append(parent)
        labels.append(label)
        own.append(0.0)
        return len(parents) - 1

    for thread, name in enumerate(section["threads"]):
        root, stack, nodes = -1, [], []
        for i in range(len(samples["stack"])):
            if samples["thread"][i] != thread or samples["state"][i] != 1:
                continue
            path, at = [], int(samples["stack"][i])
            while at >= 0:
                path.insert(0, at)
                at = int(tree["parent"][at])
            if root < 0:
                root = add(-1, name)
            same = 0
            while same < min(len(path), len(stack)) and path[same] == stack[same]:
                same += 1
            nodes = nodes[:same]
            for k in range(same, len(path)):
                label = tree["strings"][tree["label"][path[k]]]
                nodes.append(add(nodes[k - 1] if k else root, label))
            stack = path
            own[nodes[-1]] += float(samples["duration"][i])
    return parents, labels, own


def test_frames_follow_one_another_as_the_samples_did(open_page: Any, data: Any) -> None:
    page = open_page(data)
    page.locator("#flame_code").scroll_into_view_if_needed()
    page.get_by_role("button", name="In time order").click()
    page.wait_for_function("() => perfkit.flame.views['code-time']?.stage.bars?.rows > 2")
    got = page.evaluate(_TIME)
    parents, labels, own = walked(data.sections["flame_code"])
    assert got["parent"] == parents
    assert got["label"] == labels
    assert got["self"] == pytest.approx(own)
    for first, last in zip(got["rowStart"], got["rowStart"][1:], strict=False):
        drawn = [got["node"][i] for i in range(first, last) if got["kind"][i] == 0]
        assert drawn == sorted(drawn)
    page.get_by_role("button", name="Merged").click()
    assert page.locator("#flame_code [data-slot=flame]").is_visible()


def test_other_threads_and_times_are_left_out(open_page: Any, data: Any) -> None:
    page = open_page(data)
    page.locator("#flame_code").scroll_into_view_if_needed()
    page.get_by_role("button", name="In time order").click()
    page.locator("#flame_code").get_by_label("Thread", exact=True).select_option("1")
    name = data.sections["flame_code"]["threads"][1]
    page.wait_for_function(
        """(name) => {
          const { tree } = perfkit.flame.views['code-time'];
          return tree.childStart[1] === 1 && tree.strings[tree.label[0]] === name;
        }""",
        arg=name,
    )


def test_library_frames_are_hidden_and_the_order_stays(open_page: Any, data: Any) -> None:
    page = open_page(data)
    page.locator("#flame_code").scroll_into_view_if_needed()
    page.get_by_role("button", name="In time order").click()
    page.wait_for_function("() => perfkit.flame.views['code-time']?.stage.bars?.rows > 2")
    before = page.evaluate(_TIME)
    kinds = """() => {
      const { tree } = perfkit.flame.views['code-time'];
      return Array.from(tree.category, (one) => tree.categories[one]);
    }"""
    hidden = {"library", "stdlib", "native"}
    was = page.evaluate(kinds)
    assert set(was) & hidden
    page.evaluate("perfkit.flame.views['code-time'].hideLibrary(true)")
    got = page.evaluate(_TIME)
    # By hand: what is shown hangs below the nearest that is shown; neighbours of one name are one.
    parents: list[int] = []
    labels: list[str] = []
    own: list[float] = []
    last: dict[int, int] = {}
    place: list[int] = []
    for node, above in enumerate(before["parent"]):
        under = -1 if above < 0 else place[above]
        label = before["label"][node]
        if was[node] in hidden:
            place.append(under)
        elif under in last and labels[last[under]] == label:
            place.append(last[under])
        else:
            last[under] = len(labels)
            place.append(len(labels))
            parents.append(under)
            labels.append(label)
            own.append(0.0)
        own[place[node]] += before["self"][node]
    assert got["parent"] == parents
    assert got["label"] == labels
    assert got["self"] == pytest.approx(own)
