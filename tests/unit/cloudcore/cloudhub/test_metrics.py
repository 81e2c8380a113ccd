"""The numbers' form: cloudcore.cloudhub.metrics."""

from __future__ import annotations

from beehive.delivery import Item
from cloudcore.cloudhub.metrics import Metric, text
from cloudcore.cloudhub.nodes import Nodes
from tests.unit.cloudcore.cloudhub.test_nodes import item, link


def test_the_text_form_says_what_each_number_is() -> None:
    assert text([Metric("a_total", "What a is", 3), Metric("b", "What b is", 1.5, counts=False)]) == (
        "# HELP a_total What a is\n# TYPE a_total counter\na_total 3\n"
        "# HELP b What b is\n# TYPE b gauge\nb 1.5\n"
    )
    assert text([Metric("big_total", "", 12_345_678_901)]).endswith("big_total 12345678901\n")


def test_what_ended_links_did_still_counts() -> None:
    nodes = Nodes()
    for number in (1, 2):
        one = link(number)
        assert nodes.open(one)
        offered: Item = item("u", number)
        assert one.offer(offered)
        message = one.take(0.0)
        assert message is not None
        one.acked((message.id,))
        if number == 1:
            nodes.closed(one)
    total = nodes.counters()
    assert (total.sent, total.acked) == (2, 2)
    assert nodes.counters() == total, "reading changes nothing"
    assert nodes.opened == 2
