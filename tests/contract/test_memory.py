"""The twins of orchestrator/adapters/memory.py, held to the contracts of the real things."""

import pytest

from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryPeople,
    MemoryReranker,
    MemorySlateLog,
    MemorySlates,
    MemorySource,
    MemoryStore,
    MemoryUserReader,
)
from orchestrator.core.model import Loss
from orchestrator.core.slate_cache import LEASE_S
from tests.contract.candidate_source import CandidateSourceContract
from tests.contract.event_log import EventLogContract
from tests.contract.feature_reader import FeatureReaderContract
from tests.contract.people import PeopleContract
from tests.contract.reranker import RerankerContract
from tests.contract.slate_cache import SlateCacheContract
from tests.contract.slate_log import SlateLogContract
from tests.support.worlds import FOREVER, Distant


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def events(store):
    return MemoryEvents(store=store)


class TestMemorySource(CandidateSourceContract):
    @pytest.fixture
    def source(self):
        return Distant(MemorySource(name="toy", keys=range(9, -1, -1)), 0)

    @pytest.fixture
    def fail(self, source):
        def fail(loss):
            source.twin.fail_with = loss

        return fail

    @pytest.fixture
    def hang(self, source):
        def hang():
            source.latency_s = FOREVER
            return source.heal

        return hang


class TestMemoryReranker(RerankerContract):
    @pytest.fixture
    def reranker(self):
        return MemoryReranker()

    @pytest.fixture
    def fail(self, reranker):
        def fail(loss):
            reranker.fail_with = loss

        return fail


class TestMemoryUserReader(FeatureReaderContract):
    @pytest.fixture
    def reader(self, store):
        return MemoryUserReader(store=store, n_numeric=2, n_categorical=1)

    @pytest.fixture
    def know(self, reader):
        async def know(user_id, a, b, c):
            reader.features[f"u:{user_id}"] = ((a, b), (c,))

        return know

    @pytest.fixture
    def fail(self, reader):
        async def fail():
            reader.fail_with = Loss.UNAVAILABLE

        return fail


class TestMemorySlates(SlateCacheContract):
    @pytest.fixture
    def now(self):
        return [1_000.0]

    @pytest.fixture
    def slates(self, store, now):
        return MemorySlates(store=store, wall=lambda: now[0])

    @pytest.fixture
    def end_of_leases(self, now):
        async def end_of_leases():
            now[0] += LEASE_S

        return end_of_leases

    @pytest.fixture
    def erase(self, store):
        async def erase(subject):
            del store.slates[subject], store.leases[subject]

        return erase

    @pytest.fixture
    def fail(self, slates):
        async def fail():
            slates.fail_with = Loss.UNAVAILABLE

        return fail


class TestMemoryEvents(EventLogContract):
    @pytest.fixture
    def history(self, store):
        async def history(subject):
            return [(e.key, e.type_code, e.at_us) for e in store.histories.get(subject, [])]

        return history

    @pytest.fixture
    def impressions(self, store):
        async def impressions(subject):
            return [(e.key, e.type_code, e.at_us) for e in store.shown.get(subject, [])]

        return impressions

    @pytest.fixture
    def logged(self, store):
        async def logged():
            return [event.body for event in store.log]

        return logged

    @pytest.fixture
    def fail(self, events):
        async def fail():
            events.fail_with = Loss.UNAVAILABLE

        return fail


class TestMemoryPeople(PeopleContract):
    @pytest.fixture
    def people(self, store):
        return MemoryPeople(store=store)

    @pytest.fixture
    def slates(self, store):
        return MemorySlates(store=store)

    @pytest.fixture
    def know(self, people):
        async def know(user_id, features):
            people.features[user_id] = features

        return know

    @pytest.fixture
    def redactions(self, store):
        async def redactions():
            return store.redactions

        return redactions

    @pytest.fixture
    def everywhere(self, store, people):
        async def everywhere():
            """The log keeps what was sent, and is ingestion's to redact."""
            return repr((store.histories, store.shown, store.watermarks, store.slates, store.leases)) + repr(
                (store.identities, store.visitors, people.features)
            )

        return everywhere

    @pytest.fixture
    def fail(self, people):
        async def fail():
            people.fail_with = Loss.UNAVAILABLE

        return fail


class TestMemorySlateLog(SlateLogContract):
    @pytest.fixture
    def twin(self):
        return MemorySlateLog()

    @pytest.fixture
    def slate_log(self, twin):
        def slate_log(share):
            twin.share = share
            return twin

        return slate_log

    @pytest.fixture
    def messages(self, twin):
        async def messages():
            return twin.messages

        return messages

    @pytest.fixture
    def lose(self, twin):
        async def lose():
            twin.is_lost = True

        return lose

    @pytest.fixture
    def lost(self, twin):
        async def lost():
            return twin.lost

        return lost
