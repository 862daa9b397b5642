"""What a call path says about waiting: for whom, in whose name, and where that is unknown.

A thread that waits for another one does so in a primitive: a condition, a queue, a lock, often deep
in a library. A worker that has nothing to do looks the same, except that nothing but the frames of
the worker leads to the primitive.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths, Ints
from perfkit.analysis.code.frame_roles import LOOP_ROLES, PRIMITIVES

_WORKER_FRAMES = 2
"""How many functions of its own a worker's idle loop may have (our own choice)."""
_THREAD_FILES = r"(?:^|/)threading\.py$|concurrent/futures/thread\.py$|(?:^|/)runpy\.py$|^<frozen "
_BLOCKING = (*PRIMITIVES, "worker", "select", "pool")


def waits(paths: pl.DataFrame) -> pl.DataFrame:
    """Return how each path of `call_paths` waits, if its innermost frame does.

    Columns: `kind`; `certain`; `site`, the path of the innermost function of the program (or of
    the nearest to it that there is); `resource`, the path of what is waited in. Kinds: `pool`,
    `lock`, `queue`, `condition`; `io`; `idle`, for a worker or loop that has nothing to do;
    `call`, for code that may have called anything that is written in C; null for the rest.
    `certain`: whether the frame cannot but wait; otherwise it does only while the thread did not
    run.
    """
    tree = CallPaths.of(paths)
    nodes = np.arange(paths.height)

    # Asked at once: each question alone takes longer to ask than to answer.
    flags = paths.select(
        primitive=_has_role(*PRIMITIVES),
        pool=_has_role("pool"),
        lock=_has_role("lock"),
        queue=_has_role("queue"),
        select=_has_role("select"),
        loop=_has_role("loop"),
        worker=_has_role("worker", "native loop"),
        io=_has_role("io", "select"),
        blocking=_has_role(*_BLOCKING),
        starts_loop=_has_role(*LOOP_ROLES),
        certain=_has_role("condition", "queue"),
        own=pl.col("own"),
        code=(pl.col("own") | (pl.col("category") == "library")).fill_null(False),
    )
    primitive, pool, lock, queue, code = (
        flags[name].to_numpy() for name in ("primitive", "pool", "lock", "queue", "code")
    )
    loop_select = flags["select"].to_numpy() & tree.under(flags["loop"].to_numpy())
    # A lock is never what a worker without work waits for.
    workless = primitive & ~tree.under(lock) & (_functions_above(paths, tree) <= _WORKER_FRAMES)
    idle = loop_select | flags["worker"].to_numpy() | workless
    kinds = (
        ("pool", primitive & tree.under(pool)),
        ("idle", idle),
        ("lock", primitive & tree.under(lock)),
        ("queue", primitive & tree.under(queue)),
        ("condition", primitive),
        ("io", flags["io"].to_numpy()),
        ("call", code & ~flags["blocking"].to_numpy()),
    )
    kind = np.select([applies for _, applies in kinds], range(len(kinds)), default=-1)
    # What starts an event loop is not what waits in it.
    loop = tree.innermost(flags["starts_loop"].to_numpy())
    own, library = tree.innermost(flags["own"].to_numpy()), tree.innermost(code)
    site = np.select([own > loop, library > loop], [own, library], nodes)
    resource = np.where(primitive, tree.outermost(primitive), nodes)
    resource = np.where(kind == 0, tree.innermost(pool), resource)
    names = pl.Series([name for name, _ in kinds])
    return pl.DataFrame(
        {
            "kind": names.gather(pl.Series(np.where(kind < 0, 0, kind))).set(
                pl.Series(kind < 0), None
            ),
            "certain": flags["certain"],
            "site": site,
            "resource": resource,
        }
    )


def _has_role(*roles: str) -> pl.Expr:
    return pl.col("role").is_in(roles).fill_null(False)


def resting(paths: pl.DataFrame) -> pl.Series:
    """Return for each path of `call_paths` whether it is a pool's worker that has nothing to do."""
    of_pool = CallPaths.of(paths).under((paths["role"] == "worker").fill_null(False).to_numpy())
    return pl.Series(of_pool) & (waits(paths)["kind"] == "idle").fill_null(False)


def _functions_above(paths: pl.DataFrame, tree: CallPaths) -> Ints:
    """Count the functions on each path that are neither a thread's own frames nor a primitive."""
    file = pl.col("file").fill_null("").str.replace_all("\\", "/", literal=True)
    frame = (
        (pl.col("category") == "thread").fill_null(False)
        | _has_role(*_BLOCKING)
        | file.str.contains(_THREAD_FILES)
    )
    return tree.count(paths.select(~frame).to_series().to_numpy())
