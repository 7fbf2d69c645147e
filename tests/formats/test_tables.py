from hypothesis import given
from hypothesis import strategies as st

from vidtad.formats.tables import MILLISECOND, Annotations, distinct

quarters = st.integers(0, 24)  # of a millisecond


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), quarters, quarters), max_size=40),
    st.sampled_from([0.0, 0.1, 5.0, 86400.0]),
)
def test_distinct_rows_are_those_no_earlier_kept_one_is_within_a_millisecond_of(rows, begin_s: float) -> None:
    named = [(f"v{v}", f"c{c}", begin_s + a * 0.00025, begin_s + 3 + b * 0.00025) for v, c, a, b in rows]
    table = Annotations.from_rows(named)
    kept: list[int] = []
    for row in range(len(table)):
        near = [
            other
            for other in kept
            if (table.video[other], table.label[other]) == (table.video[row], table.label[row])
            and abs(table.start[row] - table.start[other]) <= MILLISECOND
            and abs(table.end[row] - table.end[other]) <= MILLISECOND
        ]
        if not near:
            kept.append(row)
    assert distinct(table, range(len(table))).tolist() == kept
    assert distinct(table, kept[1:]).tolist() == kept[1:]
