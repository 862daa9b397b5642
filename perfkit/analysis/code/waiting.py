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

    def has_role(*roles: str) -> pl.Series:
        return paths["role"].is_in(roles).fill_null(False)

    primitive = has_role(*PRIMITIVES).to_numpy()
    pool, lock, queue = (has_role(name).to_numpy() for name in ("pool", "lock", "queue"))
    category = paths["category"]
    loop_select = has_role("select").to_numpy() & tree.under(has_role("loop").to_numpy())
    # A lock is never what a worker without work waits for.
    workless = primitive & ~tree.under(lock) & (_functions_above(paths, tree) <= _WORKER_FRAMES)
    idle = loop_select | has_role("worker", "native loop").to_numpy() | workless
    code = (paths["own"] | (category == "library")).fill_null(False).to_numpy()
    kinds = (
        ("pool", primitive & tree.under(pool)),
        ("idle", idle),
        ("lock", primitive & tree.under(lock)),
        ("queue", primitive & tree.under(queue)),
        ("condition", primitive),
        ("io", has_role("io", "select").to_numpy()),
        ("call", code & ~has_role(*_BLOCKING).to_numpy()),
    )
    kind = np.select([flags for _, flags in kinds], range(len(kinds)), default=-1)
    # What starts an event loop is not what waits in it.
    loop = tree.innermost(has_role(*LOOP_ROLES).to_numpy())
    own, library = tree.innermost(paths["own"].to_numpy()), tree.innermost(code)
    site = np.select([own > loop, library > loop], [own, library], nodes)
    resource = np.where(primitive, tree.outermost(primitive), nodes)
    resource = np.where(kind == 0, tree.innermost(pool), resource)
    names = pl.Series([name for name, _ in kinds])
    return pl.DataFrame(
        {
            "kind": names.gather(pl.Series(np.where(kind < 0, 0, kind))).set(
                pl.Series(kind < 0), None
            ),
            "certain": has_role("condition", "queue"),
            "site": site,
            "resource": resource,
        }
    )


def resting(paths: pl.DataFrame) -> pl.Series:
    """Return for each path of `call_paths` whether it is a pool's worker that has nothing to do."""
    of_pool = CallPaths.of(paths).under((paths["role"] == "worker").fill_null(False).to_numpy())
    return pl.Series(of_pool) & (waits(paths)["kind"] == "idle").fill_null(False)


def _functions_above(paths: pl.DataFrame, tree: CallPaths) -> Ints:
    """Count the functions on each path that are neither a thread's own frames nor a primitive."""
    file = paths["file"].fill_null("").str.replace_all("\\", "/", literal=True)
    frame = (
        (paths["category"] == "thread").fill_null(False)
        | paths["role"].is_in(_BLOCKING).fill_null(False)
        | file.str.contains(_THREAD_FILES)
    )
    return tree.count(~frame.to_numpy())
