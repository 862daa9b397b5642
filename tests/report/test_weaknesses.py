from __future__ import annotations

import pytest

from perfkit.report import weaknesses
from tests.analysis.build import S, analyse

US = 1000


@pytest.mark.parametrize(("early_us", "told"), [(600, False), (2100, True)])
def test_clocks_that_differ_by_less_than_a_millisecond_agree(early_us: int, told: bool) -> None:
    spans = [S(1, 5000 * US, 6000 * US, kind="client")]
    began = (5000 - early_us) * US
    spans.append(S(2, began, began + 900 * US, 1, kind="server", service="b"))
    found = [what for what, _ in weaknesses.of_data(analyse(spans))]
    assert any("clocks of hosts disagree" in what for what in found) == told
