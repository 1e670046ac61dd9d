"""The judged rows of a curation: their judgements stay in files, and are read by column."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.curate import judgement_columns, text_codes
from components.curate.near import hashed_words, text_words
from components.curate.near.hashed_words import Hashes, TextColumn
from components.curate.near.request_columns import RequestColumns
from components.curate.redaction import surrogate_keys
from components.curate.redaction.surrogate_keys import Conversations, RedactedTurn
from components.curate.row_clusters import Origins
from components.curate.text_codes import MISSING, CodeLists, Ints, Marks
from components.store.arrow import compute

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """A file of judgements, and which of its rows are those of the curation."""

    path: Path
    is_live: Marks

    def read(self, *names: str) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return columns of its live rows, as an Arrow table."""
        with pq.ParquetFile(self.path) as file:
            table = file.read(columns=[*names], use_threads=False)
        return table if self.is_live.all() else table.filter(pa.array(self.is_live))

    def turns(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the list of turns of each of its rows to which no rule objected."""
        table = self.read("objection", "turns")
        return table.filter(table.column("objection").is_null()).column("turns").combine_chunks()


@dataclass(frozen=True, slots=True)
class _FiledTurns:
    """The texts of the accepted rows' turns, which stay in the files; part i has ``counts[i]``."""

    parts: Sequence[JudgedPart]
    counts: Ints
    sizes: Ints
    digests: Hashes

    @classmethod
    def of(cls, parts: Sequence[JudgedPart]) -> Self:
        """Digest the turns of files."""
        counts: list[int] = []
        sizes, digests = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.uint64)]
        for part in parts:
            lists = part.turns()
            sizes.append(compute.list_value_length(lists).to_numpy().astype(np.int64))
            digests.append(text_words.digests_of(lists.flatten().cast(pa.large_string())))
            counts.append(len(digests[-1]))
        return cls(parts, np.array(counts), np.concatenate(sizes), np.concatenate(digests))

    def at(self, places: Ints) -> Iterator[TextColumn]:
        """Yield the texts of some turns, in ascending order, in parts."""
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        of_parts = np.split(places, np.searchsorted(places, begins[1:-1]))
        for part, begin, wanted in zip(self.parts, begins.tolist(), of_parts, strict=False):
            if len(wanted):
                texts = part.turns().flatten().cast(pa.large_string())
                yield from hashed_words.taken(texts, wanted - begin)


@dataclass(frozen=True)
class JudgedRows:
    """The judged rows; ``new`` were not kept, ``screened`` were kept from other quality rules.

    The accepted ones, to which no rule objected, are numbered in the order of their ids.
    """

    workload_id: str
    parts: Sequence[JudgedPart]
    new: int
    screened: int

    @cached_property
    def ids(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        """The ids of the accepted rows, as an Arrow column."""
        return self.in_file_order.take(pa.array(self.order))

    @cached_property
    def numbers(self) -> Sequence[Ints]:
        """The number of each row of each part, ``MISSING`` if a rule objected to it."""
        every = np.full(sum(map(len, self._are_accepted)), MISSING)
        every[np.concatenate([np.zeros(0, np.bool_), *self._are_accepted])] = self._ranks
        ends = np.cumsum([len(part) for part in self._are_accepted])
        return np.split(every, ends[:-1]) if self.parts else []

    def numbers_at(self, places: Ints) -> Ints:
        """Return numbers by place, one for each accepted row, both in the order of the files."""
        return self._ranks[places[self.order]]

    @cached_property
    def _ranks(self) -> Ints:
        """The number of each accepted row, in the order of the files."""
        ranks = np.empty(len(self.order), np.int64)
        ranks[self.order] = np.arange(len(self.order))
        return ranks

    @cached_property
    def _are_accepted(self) -> Sequence[Marks]:
        return [part.read("objection").column(0).is_null().to_numpy() for part in self.parts]

    @cached_property
    def in_file_order(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        """The ids of the accepted rows in the order of the files, as an Arrow column."""
        return pa.concat_arrays(
            [
                pa.array([], pa.large_string()),
                *(column.cast(pa.large_string()) for column in self._column("interaction_id")),
            ]
        )

    @cached_property
    def order(self) -> Ints:
        """Return the places in the files of the accepted rows, by number."""
        return compute.sort_indices(self.in_file_order).to_numpy().astype(np.int64)

    def _accepted(self, *names: str) -> Iterator[Any]:
        for part, is_accepted in zip(self.parts, self._are_accepted, strict=True):
            yield part.read(*names).filter(pa.array(is_accepted))

    def _column(self, name: str) -> list[Any]:
        return [table.column(0).combine_chunks() for table in self._accepted(name)]

    @property
    def logged_us(self) -> Ints:
        """When the accepted rows were logged, in microseconds."""
        columns = self._column("logged_us")
        return np.concatenate([np.zeros(0, np.int64), *columns])[self.order]

    @property
    def labels(self) -> tuple[Sequence[str], Ints]:
        """The distinct labels, and the code of each accepted row's label."""
        texts, (codes,) = text_codes.encode([pa.chunked_array(self._column("label"), pa.string())])
        return texts.texts.to_pylist(), codes[self.order]

    @property
    def origins(self) -> Origins:
        """The origins of the accepted rows' ties."""
        tables = [*self._accepted(*judgement_columns.ORIGIN)]
        table = pa.concat_tables(tables) if tables else judgement_columns.EMPTY
        paths = [chunk.flatten() for chunk in table.column("path").chunks]
        sizes = compute.list_value_length(table.column("path")).to_numpy().astype(np.int64)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        flat = [name for name in judgement_columns.ORIGIN if name != "path"]
        columns = [table.column(name) for name in flat]
        names, codes = text_codes.encode([*columns, pa.chunked_array(paths, pa.string())])
        fields = {name: of_rows[self.order] for name, of_rows in zip(flat, codes, strict=False)}
        return Origins(
            names=names,
            request=fields["request_id"],
            redacted_request=fields["redacted_request"],
            tools=fields["origin_tools"],
            conversation=fields["origin_conversation"],
            user=fields["origin_user"],
            path=CodeLists(bounds, codes[-1]).take(self.order),
            context=fields["context"],
            answered_before=fields["answered_before"],
            answered=fields["answered"],
            former_group=fields["former_group"],
        )

    @property
    def requests(self) -> RequestColumns:
        """The accepted rows' requests in the order of the files."""
        roles = _dictionary([column.flatten() for column in self._column("roles")])
        others = (_dictionary(self._column(name)) for name in judgement_columns.REQUEST[2:])
        return RequestColumns(_FiledTurns.of(self.parts), roles, *others)

    def tool_names(self) -> list[tuple[str, ...]]:
        """Return the names of the tools that the accepted rows offer."""
        columns = map(judgement_columns.values_of, self._column("tool_names"))
        return self.ordered([*chain.from_iterable(columns)])

    def ordered(self, values: Sequence[Value]) -> list[Value]:
        """Return values of the accepted rows, in the order of the files, by number."""
        return [values[place] for place in self.order.tolist()]

    def conversations(self, seed: int | None) -> Conversations:
        """Return the conversation of each row, whether accepted or not."""
        return Conversations(partial(self._conversation_names, seed))

    def _conversation_names(self, seed: int | None) -> tuple[Any, Any]:
        ids: list[Any] = [pa.array([], pa.large_string())]
        names: list[Any] = [pa.array([], surrogate_keys.NAME)]
        for part in self.parts:
            table = part.read("interaction_id", "conversation")
            texts = compute.coalesce(table.column("conversation"), table.column("interaction_id"))
            named = [
                surrogate_keys.conversation_name(text, seed)
                for text in judgement_columns.values_of(texts)
            ]
            ids.append(table.column("interaction_id").combine_chunks().cast(pa.large_string()))
            names.append(pa.array(named, surrogate_keys.NAME))
        every = pa.concat_arrays(ids)
        order = compute.sort_indices(every)
        return every.take(order), pa.concat_arrays(names).take(order)

    def turns(self, seed: int | None) -> list[RedactedTurn]:
        """Return the turns that redaction changed, in logged order."""
        turns: list[tuple[int, RedactedTurn]] = []
        for part in self.parts:
            has_marks = judgement_columns.have_marks(part.read("rewritten.first_mark"))
            if not compute.any(has_marks).as_py():
                continue
            table = part.read(*judgement_columns.TURN).filter(has_marks)
            for logged_us, interaction_id, language, text, marked in judgement_columns.marked_of(
                table
            ):
                name = surrogate_keys.conversation_name(text or interaction_id, seed)
                turn = RedactedTurn(interaction_id, name, language, marked)
                turns.append((logged_us, turn))
        turns.sort(key=lambda logged: (logged[0], logged[1].interaction_id))
        return [turn for _, turn in turns]

    def replacements(self) -> dict[str, Sized]:
        """Return the columns of the table ``redacted``, one row per interaction and kind."""
        counted = [
            counts
            for table in self._accepted("rewritten")
            for counts in judgement_columns.replacements_of(table)
        ]
        return {
            "kind": pa.array([kind.value for kind, _, _ in counted], pa.string()),
            "distinct_values": pa.array([distinct for _, distinct, _ in counted], pa.int64()),
            "replacements": pa.array([replaced for _, _, replaced in counted], pa.int64()),
        }


def _dictionary(columns: Sequence[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return columns as one in which each different text is once."""
    names, codes = text_codes.encode(columns)
    numbers = np.concatenate([np.zeros(0, np.int64), *codes])
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), names.texts)
