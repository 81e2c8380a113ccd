"""The daemon's page of numbers, and the annotation of what was dropped."""

from edgecore import metrics
from edgecore.metrics import Numbers, annotation, render

NUMBERS = Numbers(
    connected=True,
    waiting=3,
    bytes=700,
    dropped={("event", "full"): 4, ("twin", 'refused:"odd"'): 1},
    writes=2,
    writes_dropped={("configmaps", "Conflict"): 1},
    statements_refused=3,
    commits=9,
    failures=1,
    damaged=0,
    locked=5,
    devices={("mqtt", "refused"): 2},
)


def test_each_number_has_its_line() -> None:
    lines = render(NUMBERS).splitlines()
    assert "skerry_edge_connected 1" in lines
    assert 'skerry_edge_outbox_dropped_total{kind="event",reason="full"} 4' in lines
    assert 'skerry_edge_outbox_dropped_total{kind="twin",reason="refused:\\"odd\\""} 1' in lines
    assert 'skerry_edge_offline_writes_dropped_total{kind="configmaps",reason="Conflict"} 1' in lines
    assert "skerry_edge_store_locked_rows 5" in lines
    assert 'skerry_edge_device_dropped_total{kind="mqtt",reason="refused"} 2' in lines
    assert "skerry_edge_succession_refused_total 3" in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named)) == 12


def test_what_was_dropped_most_comes_first_and_it_all_has_a_bound() -> None:
    assert annotation({}) == ""
    assert annotation({("event", "old"): 1, ("event", "full"): 4}) == "event/full=4 event/old=1"
    many = annotation({("event", f"reason-{number:03}"): 1 for number in range(500)})
    assert len(many) <= metrics.MAX_ANNOTATION + 4
    assert many.endswith(" ...")
