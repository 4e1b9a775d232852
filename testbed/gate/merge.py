# SPDX-License-Identifier: Apache-2.0
"""The shards of one gate put together. A shard that did not come is never a pass."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.errors import UsageError
from testbed.gate.document import Document, Entry, State, conclude


def merge(documents: Sequence[Document]) -> Document:
    """One document of all shards; candidates of a shard that is missing are inconclusive.

    Raises:
        UsageError: nothing to merge, no shards, a shard twice, or shards of different gates.
    """
    if not documents:
        raise UsageError("expected the documents of the shards, found none")
    whole = [document for document in documents if document.shard is None]
    if whole:
        raise UsageError("a document is of a whole gate, not of a shard", hint="merge what `--shard i/n` made")
    shards: dict[int, Document] = {}
    first = documents[0]
    for document in documents:
        assert document.shard is not None and first.shard is not None
        if (document.plan, document.shard.of) != (first.plan, first.shard.of):
            raise UsageError(
                "the shards are of different gates: other candidates, or another question",
                hint="all shards need the same commit, configuration, image and options",
            )
        if document.shard.index in shards:
            raise UsageError(f"shard {document.shard.index}/{document.shard.of} is there twice")
        shards[document.shard.index] = document
    assert first.shard is not None
    of = first.shard.of
    absent = [index for index in range(1, of + 1) if index not in shards]
    return conclude(
        _entries(list(shards.values()), absent, of),
        first.asked,
        plan=first.plan,
        interrupted=any(document.interrupted for document in documents),
        head=first.head,
        base=first.base,
        deleted=first.deleted,
        notes=first.notes,
        lacking=[f"shard {index}/{of} is missing" for index in absent],
    )


def _entries(shards: Sequence[Document], absent: Sequence[int], of: int) -> list[Entry]:
    found = []
    for same in zip(*(document.candidates for document in shards), strict=True):
        own = [entry for entry in same if entry.state is not State.ELSEWHERE]
        if own:
            found.append(own[0])
            continue
        trouble = f"the shard that has it did not come: {' or '.join(f'{index}/{of}' for index in absent)}"
        found.append(same[0].model_copy(update={"state": State.MISSING, "trouble": trouble}))
    return found
