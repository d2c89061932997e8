"""
Every fault a doctor can make, as a table: what it does, what it needs, what answers may look like.

Numbers of rows are those of the resilience specification's fault matrix (§5). Signals and toxics are both here on
purpose: a stopped process keeps acknowledging TCP, a proxy that hangs does too, a closed port does not, and each
exercises different code.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from orchestrator.doctor.checker import DETECT_WITHIN_S, Expect
from orchestrator.doctor.faults import Fault, Need
from orchestrator.doctor.mix import CACHE, RERANK, USER
from orchestrator.doctor.steps import (
    Again,
    Configure,
    Drop,
    FewFiles,
    ForgetSlates,
    Freeze,
    InTurn,
    Misbehave,
    Poison,
    Signal,
    Starve,
    Target,
    Tell,
)
from orchestrator.doctor.system import Names
from orchestrator.doctor.toxics import Kind, Toxic, both_ways
from orchestrator.supervisor.plan import ORCHESTRATOR, REDIS


def catalogue(names: Names) -> tuple[Fault, ...]:
    """Every fault for a system whose parts are called *names*, by row of the matrix."""
    everything = (*hangs(names), *crashes(names), *networks(names), *misbehaviour(names), *stores(names), *hosts(names))
    return tuple(sorted(everything, key=lambda fault: fault.row))


STORE = frozenset({CACHE, USER})
"""What a lost Redis takes with it: slates, and features with histories. One Redis holds both."""


def hangs(names: Names) -> Sequence[Fault]:
    """Rows 1 to 8: peers that keep their connections and say nothing."""
    rank, sources, replicas = names.reranker, names.sources, frozenset({Need.REPLICAS})
    everything = frozenset({*sources, CACHE, USER, RERANK})
    return (
        Fault("hang-rerank", 1, "every re-ranker hangs", (_stop(rank),), _lose(RERANK, detect=True), quick=True),
        Fault(
            "hang-one-reranker",
            2,
            "one of two re-rankers hangs",
            (Signal(Target((rank,), 0), signal.SIGSTOP),),
            Expect(may_lose=frozenset({RERANK}), least_clean_share=0.95, clean_after_s=2.0),
            replicas,
            quick=True,
        ),
        *(
            Fault(f"hang-{_short(one)}", 3 + n, f"{one} hangs", (_stop(one),), _lose(one, detect=True), quick=n == 0)
            for n, one in enumerate(sources[:2])
        ),
        Fault(
            "hang-sources",
            5,
            "every candidate source hangs",
            (_stop(*sources),),
            # Without a candidate there is nothing to re-rank: that stage is not asked, and so not lost.
            _lose(*sources, may=(RERANK,), detect=True),
            quick=True,
        ),
        Fault(
            "hang-redis",
            6,
            "Redis hangs: no cached slates, no features, no histories",
            (_stop(REDIS),),
            _lose(CACHE, USER, detect=True),
            frozenset({Need.OWN_REDIS}),
            quick=True,
        ),
        Fault(
            "hang-everything",
            8,
            "Redis and every model service hang",
            (_stop(*names.models, REDIS),),
            Expect(frozenset({*sources, CACHE, USER}), everything, detect_within_s=DETECT_WITHIN_S),
            frozenset({Need.OWN_REDIS}),
            quick=True,
        ),
    )


def crashes(names: Names) -> Sequence[Fault]:
    """Rows 9 to 14: processes that end."""
    rank, proxies, replicas = names.reranker, frozenset({Need.PROXIES}), frozenset({Need.REPLICAS})
    gone = (Toxic(Kind.REFUSE), Toxic(Kind.RESET, now=True))
    return (
        *(
            Fault(
                f"crash-{_short(one)}",
                9,
                f"{one} is killed and restarted by the supervisor",
                (Signal(Target((one,)), signal.SIGKILL),),
                Expect(may_lose=frozenset({names.stage(one)}), must_show=frozenset({names.stage(one)})),
                lasts_s=0.0,
                quick=one == rank,
            )
            for one in names.models
        ),
        Fault(
            "crash-redis",
            9,
            "Redis is killed and restarted by the supervisor",
            (Signal(Target((REDIS,)), signal.SIGKILL),),
            Expect(may_lose=STORE),
            frozenset({Need.OWN_REDIS}),
            lasts_s=0.0,
            by_doctor=False,  # its last second of events is not on the disk yet
        ),
        Fault(
            "crash-one-reranker",
            10,
            "one of two re-rankers is killed",
            (Signal(Target((rank,), 0), signal.SIGKILL),),
            Expect(may_lose=frozenset({RERANK}), least_clean_share=0.99),
            replicas,
            lasts_s=0.0,
        ),
        Fault(
            "crash-loop",
            11,
            "the re-ranker is killed again and again",
            (Again(Signal(Target((rank,)), signal.SIGKILL), every_s=2.0),),
            Expect(may_lose=frozenset({RERANK}), must_show=frozenset({RERANK})),
            by_doctor=False,  # the supervisor's back-off grows, so that it ends long after
        ),
        Fault(
            "outage-rerank",
            12,
            "nobody listens where the re-rankers were, for long",
            (Poison(Target((rank,)), gone),),
            Expect(frozenset({RERANK})),
            proxies,
        ),
        Fault(
            "rolling-restart",
            13,
            "every model service is restarted, one replica after the other",
            (InTurn(Target(names.models), signal.SIGTERM),),
            # The specification says all; on two cores the start of a process (1.3 s of imports) makes one late now
            # and then: 933 of 934 answers clean, 98.9 % before starting processes were nice.
            Expect(may_lose=frozenset({names.stage(one) for one in names.models}), least_clean_share=0.99),
            replicas,
        ),
        Fault(
            "restart-worker",
            14,
            "one of two orchestrators is restarted under load",
            (Signal(Target((ORCHESTRATOR,), 0), signal.SIGTERM),),
            Expect(),
            frozenset({Need.WORKERS}),
            lasts_s=0.0,
        ),
    )


def networks(names: Names) -> Sequence[Fault]:
    """Rows 15 to 24: what lies between the processes."""
    rank, one = names.reranker, names.sources[0]
    may = Expect(may_lose=frozenset({RERANK}))

    def between(
        name: str, row: int, says: str, toxics: Sequence[Toxic], expect: Expect, *, quick: bool = False
    ) -> Fault:
        step = Poison(Target((rank,)), tuple(toxics))
        return Fault(name, row, says, (step,), expect, frozenset({Need.PROXIES}), quick=quick)

    def late(ms: float) -> list[Toxic]:
        return [Toxic(Kind.LATENCY, ms=ms, jitter_ms=ms / 10)]

    alone = frozenset({Need.OWN_NETWORK})
    return (
        Fault(
            "blackhole",
            15,
            "every packet to and from the re-rankers is dropped",
            (Drop(Target((rank,))),),
            Expect(frozenset({RERANK}), detect_within_s=DETECT_WITHIN_S),
            alone,
        ),
        Fault(
            "cold-hang",
            16,
            "an orchestrator starts while nothing passes from or to the re-rankers",
            (Poison(Target((rank,)), both_ways(Toxic(Kind.HANG))), Signal(Target((ORCHESTRATOR,), 0), signal.SIGTERM)),
            _lose(RERANK),
            frozenset({Need.PROXIES, Need.WORKERS}),
        ),
        *(
            Fault(
                f"loss-{share:.0%}".removesuffix("%"),
                18,
                f"{share:.0%} of the packets to and from the re-rankers are lost",
                (Drop(Target((rank,)), share),),
                Expect(may_lose=frozenset({RERANK}), least_clean_share=0.99 if share <= 0.01 else 0.0),
                alone,
                least_answers=800 if share <= 0.01 else 0,
            )
            for share in (0.01, 0.05, 0.2)
        ),
        between(
            "reject",
            17,
            "connections to the re-ranker are reset and refused",
            [Toxic(Kind.REFUSE), Toxic(Kind.RESET, now=True)],
            _lose(RERANK),
        ),
        between(
            "late-10ms",
            19,
            "the re-ranker's answers come 10 ms later",
            late(10),
            Expect(may_lose=frozenset({RERANK}), least_clean_share=0.95),
        ),
        between("late-20ms", 19, "the re-ranker's answers come 20 ms later", late(20), may),
        between("late-50ms", 19, "the re-ranker's answers come 50 ms later", late(50), _lose(RERANK, detect=True)),
        between(
            "late-200ms",
            19,
            "the re-ranker's answers come 200 ms later",
            late(200),
            _lose(RERANK, detect=True),
            quick=True,
        ),
        Fault(
            "rarely-late",
            20,
            "2 % of the re-ranker's calls take 200 ms longer",
            (Misbehave(((rank, (("delay_ms", 200), ("share", 0.02))),)),),
            Expect(may_lose=frozenset({RERANK}), least_clean_share=0.97),
            frozenset({Need.PROXIES}),
        ),
        between(
            "narrow",
            21,
            "64 kB/s to and from the re-ranker",
            both_ways(Toxic(Kind.BANDWIDTH, bytes_per_s=64_000)),
            may,
        ),
        between(
            "resets",
            22,
            "connections to the re-ranker break in the middle of answers (2 % of chunks)",
            [Toxic(Kind.RESET, share=0.02)],
            Expect(may_lose=frozenset({RERANK}), least_clean_share=0.97),
            quick=True,
        ),
        between("garbage", 23, "a tenth of the re-ranker's chunks is corrupt", [Toxic(Kind.CORRUPT, share=0.1)], may),
        between(
            "truncated", 23, "the re-ranker's connections end after 1 kB", [Toxic(Kind.LIMIT_DATA, bytes=1000)], may
        ),
        between(
            "slow-drip",
            24,
            "the re-ranker's answers drip, one byte every 50 ms",
            [Toxic(Kind.SLICER, bytes=1, ms=50)],
            _lose(RERANK),
        ),
        between(
            "half-close", 24, "the re-ranker's connections are half closed", [Toxic(Kind.HALF_CLOSE)], _lose(RERANK)
        ),
        Fault(
            "hang-network",
            24,
            f"nothing passes from or to {one}, connections stay",
            (Poison(Target((one,)), both_ways(Toxic(Kind.HANG))),),
            _lose(one, detect=True),
            frozenset({Need.PROXIES}),
        ),
    )


def misbehaviour(names: Names) -> Sequence[Fault]:
    """Rows 25 and 26: services that answer, but not what was asked for."""
    rank, one = names.reranker, names.sources[0]

    def service(name: str, row: int, which: str, says: str, expect: Expect, **wish: object) -> Fault:
        step = Misbehave(((which, tuple(wish.items())),))
        return Fault(name, row, says, (step,), expect, frozenset({Need.PROXIES}))

    return (
        *(
            service(
                f"error-{code.lower().replace('_', '-')}-{share:.0%}".removesuffix("%"),
                25,
                rank,
                f"{share:.0%} of the re-ranker's calls end {code}",
                expect if share >= 1 else Expect(may_lose=frozenset({RERANK}), must_show=frozenset({RERANK})),
                status=code,
                share=share,
            )
            for code, expect in (
                ("UNAVAILABLE", _lose(RERANK)),
                ("INTERNAL", _lose(RERANK)),
                ("RESOURCE_EXHAUSTED", _lose(RERANK)),
                ("INVALID_ARGUMENT", Expect(frozenset({RERANK}), never_open=True)),
            )
            for share in (0.5, 1.0)
        ),
        service(
            "error-source-invalid",
            25,
            one,
            f"every call of {one} ends INVALID_ARGUMENT: our mistake, so no breaker may open",
            Expect(frozenset({one}), never_open=True),
            status="INVALID_ARGUMENT",
            share=1.0,
        ),
        *(
            service(
                f"answer-{kind}-{_short(which)}",
                26,
                which,
                f"{which} answers with {kind} values",
                Expect(may_lose=frozenset({names.stage(which), RERANK})),
                answer=kind,
                share=1.0,
            )
            for which in (one, rank)
            for kind in ("empty", "nan", "duplicate", "unknown", "huge")
        ),
    )


def stores(names: Names) -> Sequence[Fault]:
    """Rows 7 and 27 to 30: Redis."""
    own = frozenset({Need.OWN_REDIS})
    may = Expect(may_lose=STORE)
    return (
        Fault(
            "redis-late",
            7,
            "Redis answers 50 ms later: neither slates nor features come in time",
            (Poison(Target((REDIS,)), (Toxic(Kind.LATENCY, ms=50),)),),
            _lose(CACHE, USER),
            frozenset({Need.PROXIES}),
        ),
        Fault(
            "redis-pause",
            27,
            "Redis pauses its clients for half a second, again and again",
            (Again(Tell(("CLIENT", "PAUSE", 500), ("CLIENT", "UNPAUSE")), every_s=1.5),),
            may,
            own,
            quick=True,
        ),
        Fault(
            "redis-stutter",
            27,
            "Redis stops for half a second, again and again",
            (Again(_stop(REDIS), every_s=1.5, undo_after_s=0.5),),
            may,
            own,
        ),
        Fault(
            "redis-full",
            28,
            "Redis is full and evicts nothing: writes fail",
            (Configure("maxmemory", "1mb"),),
            Expect(may_lose=frozenset({CACHE}), least_clean_share=0.99),
            own,
        ),
        Fault(
            "redis-kicks",
            28,
            "Redis closes every client's connection, twice a second",
            (Again(Tell(("CLIENT", "KILL", "TYPE", "normal")), every_s=0.5),),
            Expect(may_lose=STORE, least_clean_share=0.8),
            own,
        ),
        Fault(
            "redis-no-clients",
            28,
            "Redis takes no new clients and closes the old ones",
            # Not by CONFIG SET maxclients: undoing that takes a connection, which it would refuse.
            (Poison(Target((REDIS,)), (Toxic(Kind.REFUSE), Toxic(Kind.RESET, now=True))),),
            _lose(CACHE, USER),
            frozenset({Need.PROXIES}),
        ),
        Fault(
            "redis-readonly",
            28,
            "Redis is a replica of nobody: writes are refused",
            (Tell(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),),
            Expect(may_lose=STORE, least_clean_share=0.99),
            own,
            by_doctor=False,  # events that arrive meanwhile would be lost
        ),
        Fault(
            "forget-slates",
            29,
            "every cached slate is gone",
            (ForgetSlates(),),
            Expect(least_clean_share=0.99),
            own,
            quick=True,
        ),
        Fault(
            "flush-redis",
            29,
            "Redis is empty: no slates, features, histories, interned nothing",
            (Tell(("FLUSHALL",)),),
            Expect(may_lose=STORE, least_clean_share=0.99),
            own,
            by_doctor=False,
        ),
        Fault(
            "restart-redis",
            30,
            "Redis is shut down and started again; pooled sockets are stale",
            (Signal(Target((REDIS,)), signal.SIGTERM),),
            Expect(may_lose=STORE),
            own,
            lasts_s=0.0,
        ),
    )


def hosts(names: Names) -> Sequence[Fault]:
    """Rows 32, 33, 35, 36, 38, 42 and 43: the machine, the clients, and several things at once."""
    rank, sources = names.reranker, names.sources
    starved = Expect(may_lose=frozenset({RERANK}))
    return (
        Fault(
            "starve-rerank",
            32,
            "the re-rankers get a tenth of a core",
            (Starve(Target((rank,)), 0.1),),
            starved,
            frozenset({Need.CPU_QUOTA}),
        ),
        Fault(
            "freeze-sources",
            33,
            "every candidate source is frozen by its control group",
            (Freeze(Target(sources)),),
            _lose(*sources, may=(RERANK,), detect=True),
            frozenset({Need.FREEZER}),
        ),
        Fault(
            "impatient-clients",
            35,
            "everything hangs, and clients ask again three times at 100 ms",
            (_stop(*names.models, REDIS),),
            Expect(frozenset({*sources, CACHE, USER}), frozenset({RERANK})),
            frozenset({Need.OWN_REDIS}),
            impatient=True,
        ),
        Fault(
            "stall-orchestrator",
            36,
            "every orchestrator stops for 150 ms, again and again",
            (Again(_stop(ORCHESTRATOR), every_s=1.0, undo_after_s=0.15),),
            # Late answers in those moments are the machine's; a breaker that opens over them would be ours.
            Expect(
                may_lose=frozenset({*sources, CACHE, USER, RERANK}),
                never_open=True,
                p99_s=0.3,
                heal_within_s=1.0,
            ),
        ),
        Fault(
            "few-files",
            38,
            "the orchestrators may open no more files or connections",
            (FewFiles(Target((ORCHESTRATOR,)), 16),),
            Expect(may_lose=frozenset({*sources, CACHE, USER, RERANK}), may_shed=True),
        ),
        Fault(
            "freeze-orchestrator",
            42,
            "every orchestrator stops for a second and goes on",
            (_stop(ORCHESTRATOR),),
            # Whoever asked meanwhile waited for all of it; that is counted, and nothing else may come of it.
            Expect(
                frozenset(),
                frozenset({*sources, CACHE, USER, RERANK}),
                may_shed=True,
                p99_s=1.5,
                heal_within_s=1.0,
            ),
            lasts_s=1.0,
        ),
        Fault(
            "rerank-and-redis",
            43,
            "the re-rankers hang and Redis refuses connections",
            (
                _stop(rank),
                Poison(Target((REDIS,)), (Toxic(Kind.REFUSE), Toxic(Kind.RESET, now=True))),
            ),
            _lose(RERANK, CACHE, USER),
            frozenset({Need.PROXIES}),
        ),
    )


def _stop(*names: str) -> Signal:
    return Signal(Target(names), signal.SIGSTOP)


def _lose(*names: str, may: Sequence[str] = (), detect: bool = False) -> Expect:
    return Expect(frozenset(names), frozenset(may), detect_within_s=DETECT_WITHIN_S if detect else None)


def _short(name: str) -> str:
    """`collaborative_filtering` → `collaborative`: what a person types."""
    return name.partition("_")[0]
