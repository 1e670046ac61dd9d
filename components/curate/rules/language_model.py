"""fastText's language model in numpy, for texts of ASCII.

All n-grams of many texts are hashed and added at once. fastText's own library looks up each by
itself, which took a third of the time of judging a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from struct import calcsize, unpack
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

OFFSET, PRIME = np.uint32(2166136261), np.uint32(16777619)  # FNV-1a
LENGTHS = 2, 3, 4  # characters of an n-gram
ENDING = b"</s>"


@dataclass(frozen=True, slots=True)
class Node:
    """An inner node of the tree of labels, by whose output the ``right`` side is taken."""

    number: int
    left: "Node | str"
    right: "Node | str"


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The input vectors of words and n-grams, the outputs of the tree's nodes, and the tree.

    ``rows`` has the row in ``vectors`` of each hashed n-gram; row 0 is of those that have none.
    """

    words: Mapping[bytes, int]
    rows: NDArray[np.uint16]
    vectors: Floats
    outputs: Floats
    root: Node

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a quantized model (``.ftz``) of fastText 0.9 with n-grams of ``LENGTHS``."""
        file = BytesIO(path.read_bytes())
        _, _, dim, *_, buckets, shortest, longest, _, _ = _numbers(file, "<14id")
        entries, words, labels, _, pruned = _numbers(file, "<3i2q")
        assert (shortest, longest) == (LENGTHS[0], LENGTHS[-1])
        names, counts = list[bytes](), list[int]()
        for _ in range(entries):
            end = file.getvalue().index(0, file.tell())
            names.append(file.read(end - file.tell()))
            counts.append(_numbers(file, "<xqb")[0])
        index = np.frombuffer(file.read(8 * pruned), np.int32).reshape(-1, 2)
        rows = np.zeros(buckets, np.uint16)  # small: texts read it at random places
        assert words + pruned <= np.iinfo(rows.dtype).max
        rows[index[:, 0]] = index[:, 1] + words + 1
        vectors = _quantized(file, dim)
        file.read(1)
        height, width = _numbers(file, "<2q")
        outputs = np.frombuffer(file.read(4 * height * width), np.float32).reshape(height, width)
        leaves = [name.decode().removeprefix("__label__") for name in names[words:]]
        assert len(leaves) == labels
        return cls(
            {name: number + 1 for number, name in enumerate(names[:words])},
            rows,
            np.concatenate([np.zeros((1, dim), np.float32), vectors]),
            outputs,
            _tree(leaves, counts[words:]),
        )

    def most_likely(
        self, texts: Sequence[bytes], at_least: float
    ) -> list[tuple[str, float] | None]:
        """Return for each text the label with a probability of ``at_least``, more than a half.

        ``None`` without one. Probabilities are the library's, but for rounding.
        """
        rows, begins = self._rows_of([text.split() for text in texts])
        hidden = np.add.reduceat(self.vectors[rows], begins, axis=0)
        hidden /= np.diff(begins, append=len(rows))[:, None]
        factors = 1 / (1 + np.exp(-(hidden @ self.outputs.T)))
        return [self._descend(of_nodes, at_least) for of_nodes in factors.tolist()]

    def _rows_of(self, texts: Sequence[Sequence[bytes]]) -> tuple[NDArray[np.uint16], Positions]:
        """Return the rows of the words and n-grams of texts, and where each text's begin."""
        spelled = [b"<" + b"> <".join(words) + b"> " for words in texts]
        characters = np.frombuffer(b"".join(spelled), np.uint8).astype(np.uint32)
        is_word = characters != ord(" ")
        hashes, are_words = (characters ^ OFFSET) * PRIME, is_word
        rows = np.zeros((len(characters), len(LENGTHS) + 1), np.uint16)
        for n in range(1, LENGTHS[-1]):
            hashes = (hashes[:-1] ^ characters[n:]) * PRIME
            are_words = are_words[:-1] & is_word[n:]
            rows[:-n, n] = self.rows[hashes % np.uint32(len(self.rows))] * are_words
        bounds = np.cumsum([0, *map(len, spelled)])
        for words, begin in zip(texts, bounds.tolist(), strict=False):
            known = [self.words[word] for word in (ENDING, *words) if word in self.words]
            rows[begin : begin + len(known), 0] = known
        is_row = rows > 0
        counts = np.concatenate([[0], np.cumsum(np.count_nonzero(is_row, axis=1))])
        return rows[is_row], counts[bounds[:-1]]

    def _descend(self, factors: Sequence[float], at_least: float) -> tuple[str, float] | None:
        node, probability = self.root, 1.0
        while isinstance(node, Node) and probability >= at_least:
            right = factors[node.number]
            node, factor = (node.right, right) if right > 0.5 else (node.left, 1 - right)
            probability *= factor + 1e-5
        return (node, probability) if isinstance(node, str) and probability >= at_least else None


def can_read(text: str) -> bool:
    """Return whether a text is of printable ASCII, without fastText's own words."""
    is_plain = text.isascii() and text.isprintable()
    return is_plain and not any(word in text for word in ("__label__", "</s>"))


def _numbers(file: BytesIO, form: str) -> tuple[Any, ...]:
    return unpack(form, file.read(calcsize(form)))


def _quantized(file: BytesIO, dim: int) -> Floats:
    _, has_norms, count, _, size = _numbers(file, "<2?2qi")
    codes = np.frombuffer(file.read(size), np.uint8).reshape(count, -1)
    parts = codes.shape[1]
    centroids = _centroids(file).reshape(parts, 256, dim // parts)
    vectors = centroids[np.arange(parts), codes].reshape(count, dim)
    if has_norms:
        norms = np.frombuffer(file.read(count), np.uint8)
        vectors = vectors * _centroids(file)[norms][:, None]
    return vectors


def _centroids(file: BytesIO) -> Floats:
    dim, *_ = _numbers(file, "<4i")
    return np.frombuffer(file.read(dim * 256 * 4), np.float32)


def _tree(leaves: list[str], counts: list[int]) -> Node:
    """Build fastText's Huffman tree of labels in descending order of their counts."""
    size = len(leaves)
    nodes: list[Node | str] = [*leaves]
    weights = [*counts]
    leaf, inner = size - 1, size
    for number in range(size - 1):
        pair: list[int] = []
        for _ in range(2):
            if leaf >= 0 and (inner >= len(nodes) or weights[leaf] < weights[inner]):
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(inner)
                inner += 1
        nodes.append(Node(number, nodes[pair[0]], nodes[pair[1]]))
        weights.append(weights[pair[0]] + weights[pair[1]])
    root = nodes[-1]
    assert isinstance(root, Node)
    return root
