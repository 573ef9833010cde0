"""How long a page of a list takes: against the prototype, against a smaller store, and by a filter against none.

All that is compared is asked in turn, request by request, so that a busy moment of the machine strikes both alike.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import median, quantiles
from typing import NamedTuple

from bench.api_figures import Figures
from bench.api_load import Lists, Query
from bench.api_servers import Running

LISTS_LIMIT = 0.8
FLAT_LIMIT = 1.5
FILTER_LIMIT = 6.0
"""Times the first page without a filter that a page by filter may take."""
FILTERS_FLAT_LIMIT = 2.0
FILTER_ROUNDS = 7
PAGE_SIZE = 256

PAGES: dict[str, Query] = {
    "MINIMAL": [],
    "BASIC": [("view", "BASIC")],
    "by state": [("state", "COMPLETE")],
    "by tag": [("tag_key", "run"), ("tag_value", "r-17")],
}
"""Pages of 256 that the prototype has too."""


def tags(*pairs: str) -> Query:
    query = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        query += [("tag_key", key), ("tag_value", value)]
    return query


FILTERS: dict[str, Query] = {
    "state: none": [("state", "PAUSED")],
    "state: 100": [("state", "QUEUED")],
    "state: oldest": [("state", "CANCELED")],
    "state: one in 50": [("state", "EXECUTOR_ERROR")],
    "state: most": [("state", "COMPLETE")],
    "tag: none": tags("run=other"),
    "tag: few": tags("few=yes"),
    "tag: half": tags("half=1"),
    "tag: all": tags("run=r-17"),
    "key: none": tags("other="),
    "key: few": tags("few="),
    "key: all": tags("run="),
    "key: all, each its own value": tags("number="),
    "two tags: all and few": tags("run=r-17", "few=yes"),
    "two tags: all and all": tags("run=r-17", "step=align"),
    "two tags: all and none": tags("run=r-17", "step=other"),
    "state and tag: most and few": [("state", "COMPLETE"), *tags("few=yes")],
    "state and tag: most and all": [("state", "COMPLETE"), *tags("run=r-17")],
    "state and tag: 100 and all": [("state", "QUEUED"), *tags("run=r-17")],
    "state and tag: none and all": [("state", "PAUSED"), *tags("run=r-17")],
    "state and tag: oldest and all": [("state", "CANCELED"), *tags("run=r-17")],
    "two tags: exclusive halves": tags("half=0", "odd=yes"),
    "two tags: half and one in 50, exclusive": tags("half=1", "fiftieth=yes"),
    "two tags: half and one in 50": tags("half=0", "fiftieth=yes"),
    "two tags: older half and half": tags("age=old", "half=1"),
    "tag and key: half and one in 50, exclusive": tags("half=1", "fiftieth="),
    "four tags and keys: all and half": tags("run=r-17", "step=", "half=1", "number="),
    "state and tag: one in 50 and half, exclusive": [("state", "EXECUTOR_ERROR"), *tags("half=0")],
    "state and tag: one in 50 and half": [("state", "EXECUTOR_ERROR"), *tags("half=1")],
    "state and tag: one in 50 and one in 50, exclusive": [("state", "EXECUTOR_ERROR"), *tags("fiftieth=yes")],
    "state and tag: most and half": [("state", "COMPLETE"), *tags("half=1")],
    "state and tags: most and exclusive halves": [("state", "COMPLETE"), *tags("half=0", "odd=yes")],
    "state and tag: oldest and half": [("state", "CANCELED"), *tags("half=1")],
    "state and tag: oldest and newer half": [("state", "CANCELED"), *tags("age=new")],
    "name: none": [("name_prefix", "other")],
    "name: one": [("name_prefix", "seldom-8")],
    "name: seldom": [("name_prefix", "seldom-")],
    "name: one in 50": [("name_prefix", "fiftieth-")],
    "name: newer half": [("name_prefix", "new-")],
    "name: older half": [("name_prefix", "old-")],
    "name: oldest hundredth": [("name_prefix", "old-sample-000")],
    "name and state: older half and most": [("name_prefix", "old-"), ("state", "COMPLETE")],
    "name and state: older half and 100": [("name_prefix", "old-"), ("state", "QUEUED")],
    "name and tag: newer half and all": [("name_prefix", "new-"), *tags("run=r-17")],
    "name and tag: older half and few": [("name_prefix", "old-"), *tags("few=yes")],
    "name and tag: newer and older half": [("name_prefix", "new-"), *tags("age=old")],
    "name and tag: one in 50 and half, exclusive": [("name_prefix", "fiftieth-"), *tags("half=0")],
    "name and state: one in 50 and one in 50, exclusive": [("name_prefix", "fiftieth-"), ("state", "EXECUTOR_ERROR")],
    "name, state and tags": [("name_prefix", "old-"), ("state", "COMPLETE"), *tags("half=0", "odd=yes")],
}


class Filled(NamedTuple):
    """Both servers with the same `size` tasks."""

    size: int
    server: Running
    tesk: Lists
    """As an admin asks, who sees all tasks."""
    prototype: Lists
    people: dict[str, Lists]
    """As others ask."""


class ListFigures(NamedTuple):
    """Measures one store, `filled`, beside the smallest one, `first`, which may be the same."""

    figures: Figures
    where: str
    filled: Filled
    first: Filled

    def pages(self, times: int) -> None:
        for name, query in PAGES.items():
            self._page(name, times, query, query, query)
        middle = self.filled.size // 2
        deep, smallest = self.filled.tesk.after(middle), self.first.tesk.after(self.first.size // 2)
        self._page("deep", times, self.filled.prototype.after(middle), deep, smallest)

    def _page(self, name: str, times: int, base: Query, query: Query, smallest: Query) -> None:
        asked = [(self.filled.prototype, base), (self.filled.tesk, query)]
        if self._is_larger:
            asked.append((self.first.tesk, smallest))
        floor, ms, *others = _columns_ms(_in_turn(times, [(lists, _sized(each)) for lists, each in asked]))
        self.figures.at_least(f"page {name} {self.where}", f"{ms:.2f} ms", floor / ms, LISTS_LIMIT)
        for first_ms in others:
            self.figures.at_most(f"page {name} {self.where}, {self._over}", f"{ms:.2f} ms", ms / first_ms, FLAT_LIMIT)

    def filters(self, times: int) -> None:
        """Many short rounds, each through all filters: a busy moment of the machine is in few of any one."""
        asked = [self._asked(query) for query in FILTERS.values()]
        rounds = [[_in_turn(times, each) for each in asked] for _ in range(FILTER_ROUNDS)]
        taken = [_columns_ms(chain.from_iterable(each)) for each in zip(*rounds, strict=True)]
        for name, (page, ms, *_) in zip(FILTERS, taken, strict=True):
            self.figures.at_most(f"{name}; {self.where}", f"{ms:.2f} ms", ms / page, FILTER_LIMIT)
        shown = f"{median(each[1] for each in taken):.2f} ms"
        name = f"median of the {len(FILTERS)} filters; {self.where}"
        if self._is_larger:
            ratios = [same / first_ms for _, _, same, first_ms in taken]
            self.figures.at_most(f"{name}, {self._over}", shown, median(ratios), FILTERS_FLAT_LIMIT)
            full = median(each[1] for each in taken) / median(first_ms for *_, first_ms in taken)
            self.figures.plain(f"the same with fuller pages among more tasks, {self._over}", f"{full:.2f}")
            most, slowest = max(zip(ratios, FILTERS, strict=True))
            self.figures.plain(f"the most that one takes, {self._over}: {slowest}", f"{most:.2f}")
        else:
            self.figures.plain(name, shown)

    def filters_of_people(self, times: int) -> None:
        """The same filters for those who see a part of the tasks, against the page of all tasks without a filter."""
        for who, lists in self.filled.people.items():
            asked = [[(self.filled.tesk, _sized([])), (lists, _sized(query))] for query in [[], *FILTERS.values()]]
            rounds = [[_in_turn(times, each) for each in asked] for _ in range(FILTER_ROUNDS)]
            taken = [_columns_ms(chain.from_iterable(each)) for each in zip(*rounds, strict=True)]
            for name, (page, ms) in zip(("no filter", *FILTERS), taken, strict=True):
                self.figures.at_most(f"{name}; {who}, {self.where}", f"{ms:.2f} ms", ms / page, FILTER_LIMIT)

    def _asked(self, query: Query) -> list[tuple[Lists, Query]]:
        """A page without and one with the filter; then, for a larger store, pages of both stores with as many tasks
        as the smallest one has for it, since a page of 256 is not to be compared with one of 20."""
        pages = [(self.filled.tesk, _sized([])), (self.filled.tesk, _sized(query))]
        if self._is_larger:
            same = _sized(query, max(self.first.tesk.count(_sized(query)), 1))
            pages += [(self.filled.tesk, same), (self.first.tesk, same)]
        return pages

    @property
    def _is_larger(self) -> bool:
        return self.filled.size > self.first.size

    @property
    def _over(self) -> str:
        return f"over {self.first.size:,}"


def _sized(query: Query, size: int = PAGE_SIZE) -> Query:
    return [*query, ("page_size", str(size))]


def _in_turn(times: int, asked: Sequence[tuple[Lists, Query]]) -> list[list[float]]:
    """Seconds that each of the pages took, as often as is said."""
    return [[lists.page(query)[0] for lists, query in asked] for _ in range(times)]


def _columns_ms(taken: Iterable[Sequence[float]]) -> list[float]:
    """What a page takes where nothing else disturbs it: the first quartile, since a busy machine only adds to times,
    and on some to more than half of them."""
    return [quantiles(column, n=4)[0] * 1000 for column in zip(*taken, strict=True)]
