"""Measuring a job's ids: read a sample, work out lifetimes, try ways to keep fewer rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from fourfold.runtime.assembly import table_loads
from fourfold.runtime.config import Job
from fourfold.runtime.data.lifetimes import Effect, Lifetimes
from fourfold.runtime.data.reader import open_reader, read_schema
from fourfold.runtime.data.sightings import Sample, Trail, piece_of, read_sample
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.load import TableLoad
from fourfold.runtime.statistics import Kind, Reuse, Setting, Statistics, TableStatistics
from fourfold.runtime.table import Table, complete_tables

COUNTS = (2, 3, 4)
"""Sightings after which a row is given."""
PROBABILITIES = (0.5, 0.2, 0.1)
"""Chances of a row, per sighting."""
LIVES = (99, 99.9)
"""Percentiles of the gaps that are tried as times to live. Kraken takes the last one."""


def measure(
    job: Job,
    *,
    samples: int,
    memory_bytes: int,
    share: float = 1.0,
    report: Callable[[int], None] = lambda samples: None,
) -> Statistics:
    """Measure the first samples of a job's training data, up to whole batches. Local.

    memory_bytes, share, report: as in `read_sample`. Raises ConfigError for a job without sparse
    features and DataError for what is wrong with the data.
    """
    schema = read_schema(job.data)
    if not schema.sparse:
        raise ConfigError("the data have no sparse feature, so there are no ids to measure")
    tables, features = complete_tables(job.table, job.embedding, schema.sparse)
    size = job.train.batch_size
    with open_reader(job.data, shard=0, shards=1, batch_size=piece_of(size)) as reader:
        sample = read_sample(
            reader,
            [feature.table for feature in features],
            len(tables),
            batch_size=size,
            batches=-(-samples // size),
            memory_bytes=memory_bytes,
            share=share,
            report=report,
        )
    loads = table_loads(tables, features)
    return Statistics(
        samples=sample.samples,
        batch_size=size,
        batches=sample.batches,
        complete=sample.complete,
        tables=tuple(
            _measure_table(table, load, trail, sample)
            for table, load, trail in zip(tables, loads, sample.trails, strict=True)
        ),
    )


def _measure_table(table: Table, load: TableLoad, trail: Trail, sample: Sample) -> TableStatistics:
    """Work out the lifetimes of one table's ids and let go of its lookups."""
    ids, samples = trail.take()
    lives = Lifetimes.of(ids, samples, sample.batch_of)
    del ids, samples
    half = lives.born_before(sample.samples // 2)
    gap_samples, gap_batches = lives.gap_percentiles()
    per_batch = lives.visits / trail.share / sample.batches
    return TableStatistics(
        name=table.name,
        features=table.features,
        dynamic=table.rows is None,
        share=trail.share,
        lookups=trail.lookups,
        bags=trail.bags,
        distinct=min(round(lives.ids / trail.share), trail.lookups),
        once=float((lives.seen == 1).mean()) if lives.ids else 0.0,
        unique=min(per_batch, trail.lookups / sample.batches),
        growth=_growth(half, lives.ids),
        reuse=tuple(
            Reuse(
                least=some.least,
                most=some.most,
                ids=some.ids / lives.ids,
                lookups=some.lookups / lives.lookups,
            )
            for some in lives.histogram()
        ),
        gaps=len(lives.gaps),
        gap_samples=tuple(gap_samples),
        gap_batches=tuple(gap_batches),
        settings=_settings(table, load, lives, trail.share),
    )


def _settings(table: Table, load: TableLoad, lives: Lifetimes, share: float) -> tuple[Setting, ...]:
    """Try what a table may be told. A static table has all of its rows, whoever comes."""
    per_row = load.row_bytes(load.dim)

    def setting(kind: Kind, value: float, effect: Effect) -> Setting:
        rows = table.rows if table.rows is not None else round(effect.rows / share)
        lookups = max(1, lives.lookups)
        return Setting(
            kind=kind,
            value=value,
            rows=rows,
            row_bytes=rows * per_row,
            refused=effect.refused / lookups,
            cold=effect.cold / lookups,
        )

    found = [setting("always", 0, Effect(lives.ids, 0.0, 0.0))]
    if table.rows is not None:
        return tuple(found)
    found += [setting("count", n, lives.counted(n)) for n in COUNTS]
    found += [setting("probability", p, lives.drawn(p)) for p in PROBABILITIES]
    for batches in lives.gap_percentiles(LIVES)[1]:
        live = max(1, batches)  # a row that only one batch sees would be no row
        found.append(setting("time_to_live", live, lives.expiring(live)))
    return tuple(found)


def _growth(half: int, whole: int) -> float:
    """Give the exponent with which distinct ids grew while the samples doubled."""
    if not half:
        return 1.0 if whole else 0.0
    return min(1.0, math.log2(whole / half))
